"""LocalNO: a Fourier neural operator that also sees its surroundings closely."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from neuralop_kit.layers import DifferentialConv, IntegralConv, KernelBasis
from neuralop_kit.models.fno import INITIAL_GAIN, FNOBlock, check_modes, spectral_conv
from neuralop_kit.models.lifted import Activation, LiftedOperator
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.domain import Domain


class SumOfLayers(nn.ModuleList):
    """``(K + L + D) u``: layers with the same channels in and out, side by side."""

    def forward(self, u: Tensor) -> Tensor:
        """Apply all and add."""
        first, *others = self
        total = cast(Tensor, first(u))
        for layer in others:
            total = total + layer(u)
        return total


@register_model("local_no")
class LocalNO(LiftedOperator):
    """Localized neural operator: :class:`FNO` with local integrals and derivatives beside the global convolutions.

        G(u) = Q B_n ... B_1 P [u, x],      B_i u = u + W_i gelu((K_i + L_i + D_i) u + a_i u) + b_i

    ``K_i`` is a :class:`SpectralConv` or, between walls, a :class:`BoundedSpectralConv`; ``L_i`` an
    :class:`IntegralConv` and ``D_i`` a :class:`DifferentialConv`, both of which see wavenumbers beyond ``modes``.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        domain: a box of one to three dimensions.
        width: channels between lifting and projection.
        num_layers: number of blocks.
        modes: Fourier modes per axis, both signs counted; one number for all axes or one each.
        radius: of the local integrals, in the length unit of the domain; by default a 20th of the shortest side.
        basis: of their kernels, by default ``PiecewiseLinear()``.
        derivatives: whether there are ``D_i``.
        activation: a smooth pointwise function; a kinked one slows convergence under refinement.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any resolution the domain allows. With
    derivatives the output converges like O(h^2) under refinement, without them as that of :class:`FNO`.
    Good values: as for :class:`FNO` with fewer modes, 8 to 16; a radius of 3 to 6 spacings of the training data.

    Raises:
        ArgumentError: a size is below 1, the radius is not positive, or there is not one mode count per axis.
        DomainError: the domain is a sphere or has more than three axes.
        ShapeError: a field has another rank or channel count.

    Source: Liu-Schiaffini et al. (2024), arXiv 2402.16845; their local kernels are sampled, ours integrated.

    >>> model = LocalNO(1, 1, domain=Domain.box((1.0, 1.0)), width=8, num_layers=2, modes=6)
    >>> model(torch.randn(4, 1, 33, 33)).shape, model(torch.randn(4, 1, 65, 50)).shape
    (torch.Size([4, 1, 33, 33]), torch.Size([4, 1, 65, 50]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        width: int = 32,
        num_layers: int = 4,
        modes: int | Sequence[int] = 12,
        radius: float | None = None,
        basis: KernelBasis | None = None,
        derivatives: bool = True,
        activation: Activation = nn.functional.gelu,
    ) -> None:
        modes = check_modes(domain, modes)
        radius = min(domain.lengths) / 20 if radius is None else radius

        def block() -> nn.Module:
            local: list[IntegralConv | DifferentialConv] = [
                IntegralConv(width, width, radius, domain=domain, basis=basis)
            ]
            if derivatives:
                local.append(DifferentialConv(width, width, domain=domain))
            with torch.no_grad():
                for layer in local:
                    layer.weight.mul_(INITIAL_GAIN)
            layers = SumOfLayers([spectral_conv(width, modes, domain=domain), *local])
            return FNOBlock(width, layers, activation=activation)

        super().__init__(
            in_channels,
            out_channels,
            domain=domain,
            width=width,
            num_layers=num_layers,
            block=block,
            activation=activation,
        )
