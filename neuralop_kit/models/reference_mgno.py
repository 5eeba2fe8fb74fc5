"""ReferenceMgNO: the model of MgNO's released code, in its published configurations."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.layers.multigrid import ReferenceMultigrid
from neuralop_kit.models.mgno import MgNOLayer, PointwiseSum
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError

Activation = Callable[[Tensor], Tensor]

SIX_LEVELS = ((1, 0),) * 5 + ((2, 0),)


@register_model("mgno_reference")
class ReferenceMgNO(nn.Module):
    """MgNO as released, for like-for-like comparison with published numbers; :class:`MgNO` is what we recommend.

        u_0 = u,      u_i = g(L_i u_{i-1} [+ W_i u_{i-1} + b_i]),      v = Q u_n [+ u]

    with :class:`ReferenceMultigrid` for ``L_i``; what stands in brackets depends on the problem.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        domain: two axes of one boundary, which chooses zero, circular or reflected padding.
        width, num_layers: channels of the hidden fields, layers before the head.
        sweeps, prolongation_sizes, bias, norm_resolution: of each :class:`ReferenceMultigrid`.
        pointwise_branch: whether ``W_i`` and ``b_i`` exist (Darcy, pipe; not Navier-Stokes).
        add_input: whether the input is added to the output (Navier-Stokes).
        activation: pointwise function.
        generator: for the initial weights of the operators.

    The released Helmholtz model, with more channels on coarser levels, is :class:`ReferenceHelmholtzMgNO`.

    Source: xlliu2017/MgNO at commit 3a68a90, models.py.

    >>> model = ReferenceMgNO.darcy(Domain.box((1.0, 1.0)))
    >>> sum(p.numel() for p in model.parameters())
    572661
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        width: int = 24,
        num_layers: int = 4,
        sweeps: Sequence[tuple[int, int]] = SIX_LEVELS,
        prolongation_sizes: Sequence[int] | None = None,
        bias: bool = False,
        norm_resolution: int | None = None,
        pointwise_branch: bool = True,
        add_input: bool = False,
        activation: Activation = nn.functional.gelu,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(width, num_layers) < 1 or (add_input and in_channels != out_channels):
            raise ArgumentError(
                f"expected at least one channel and one layer, and equal channels in and out to add the input, got "
                f"width {width}, {num_layers} layers, {in_channels} and {out_channels} channels; correct them"
            )
        self.layers, self.add_input = nn.Sequential(), add_input
        for index in range(num_layers):
            num_in = width if index else in_channels
            operator = ReferenceMultigrid(
                num_in,
                width,
                sweeps,
                domain=domain,
                prolongation_sizes=prolongation_sizes,
                bias=bias,
                norm_resolution=norm_resolution,
                generator=generator,
            )
            layer = MgNOLayer(operator, num_in, width, activation=activation, pointwise_branch=pointwise_branch)
            self.layers.append(layer)
        self.head = PointwiseSum(width, out_channels, bias=False)

    @classmethod
    def darcy(cls, domain: Domain) -> "ReferenceMgNO":
        """Darcy rough and multiscale, sizes that are multiples of 32: 572,661 parameters."""
        return cls(1, 1, domain=domain)

    @classmethod
    def darcy_smooth(cls, domain: Domain) -> "ReferenceMgNO":
        """Darcy smooth on 211 x 211 points: 678,093 parameters."""
        return cls(1, 1, domain=domain, num_layers=5, prolongation_sizes=(3, 4, 3, 3, 4))

    @classmethod
    def pipe(cls, domain: Domain) -> "ReferenceMgNO":
        """Flow through pipes, two coordinates in, sizes that are multiples of 32: 783,876 parameters."""
        return cls(2, 1, domain=domain, num_layers=5, sweeps=((1, 0),) * 4 + ((1, 1), (2, 0)))

    @classmethod
    def navier_stokes(cls, domain: Domain) -> "ReferenceMgNO":
        """One step of vorticity at viscosity 1e-5, 64 x 64 points only: 2,885,194 parameters."""
        return cls(
            1,
            1,
            domain=domain,
            width=32,
            num_layers=5,
            sweeps=((1, 0), (1, 0), (1, 0), (2, 0), (2, 0)),
            bias=True,
            norm_resolution=64,
            pointwise_branch=False,
            add_input=True,
        )

    def forward(self, u: Tensor) -> Tensor:
        """The model applied to ``u``."""
        v = self.head(self.layers(u))
        return u + v if self.add_input else v
