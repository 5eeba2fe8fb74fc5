"""ReferenceHelmholtzMgNO: the Helmholtz model of MgNO's released code."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.layers.multigrid import WideningMultigrid
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.errors import ArgumentError

Activation = Callable[[Tensor], Tensor]


@register_model("mgno_reference_helmholtz")
class ReferenceHelmholtzMgNO(nn.Module):
    """MgNO for the Helmholtz equation as released: from wave speed to wave, on one grid only.

        u_0 = c,      u_i = g(N_i L_i u_{i-1}),      v = L_n u_n

    with :class:`WideningMultigrid` for ``L_i`` and layer normalisations ``N_i`` that have a weight and a bias per
    channel and *pixel*: they tie the model to its resolution and hold 1,632,160 of its weights.

    Args:
        width, num_layers: channels of the hidden fields, layers before the head. Published: 20 and 4.
        resolution: points per side. Published: 101.
        sweeps, prolongation_sizes: of each :class:`WideningMultigrid`.
        activation: pointwise function.
        generator: for the initial weights of the operators.

    5,340,565 weights; the released model carries 11,241 more that never act. The published 7.58 M do not follow from
    the released code with any number of layers (6,819,046 with five).

    Shape: ``(batch, 1, resolution, resolution)`` to the same.
    Raises: ArgumentError for sizes below 1, ShapeError for another field.
    Source: xlliu2017/MgNO at commit 3a68a90, models.py, class MgNO_helm. Published error: 0.0071 (re-run by others
    0.0081) relative L2 on the data of :class:`neuralop_kit.solvers.pde.Helmholtz` in its ``mgno`` setting.

    >>> sum(p.numel() for p in ReferenceHelmholtzMgNO().parameters()) + 11_241
    5351806
    """

    def __init__(
        self,
        *,
        width: int = 20,
        num_layers: int = 4,
        resolution: int = 101,
        sweeps: Sequence[int] = (1, 1, 1, 1, 2),
        prolongation_sizes: Sequence[int] = (3, 4, 4, 3),
        activation: Activation = nn.functional.gelu,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(width, num_layers, resolution) < 1:
            raise ArgumentError(
                f"expected positive sizes, got width {width}, {num_layers} layers, resolution {resolution}; "
                "the published ones are 20, 4 and 101"
            )
        channels = [1] + [width] * num_layers + [1]
        self.operators = nn.ModuleList(
            WideningMultigrid(before, after, sweeps, prolongation_sizes=prolongation_sizes, generator=generator)
            for before, after in itertools.pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm([width, resolution, resolution]) for _ in range(num_layers))
        self.activation = activation

    def forward(self, u: Tensor) -> Tensor:
        """The model applied to ``u``."""
        *operators, head = self.operators
        for operator, norm in zip(operators, self.norms, strict=True):
            u = self.activation(norm(operator(u)))
        result: Tensor = head(u)
        return result
