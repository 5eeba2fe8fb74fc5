"""SFNO: the Fourier neural operator on a sphere."""

from collections.abc import Callable

import torch
from torch import nn

from neuralop_kit.layers import SphericalConv
from neuralop_kit.models.fno import INITIAL_GAIN, FNOBlock
from neuralop_kit.models.lifted import Activation, LiftedOperator
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.domain import Domain


@register_model("sfno")
class SFNO(LiftedOperator):
    """Spherical Fourier neural operator: :class:`FNO` with convolutions on the sphere.

        G(u) = Q B_n ... B_1 P [u, x],      B_i u = u + W_i gelu(K_i u + a_i u) + b_i

    ``K_i`` is a :class:`SphericalConv`, the other maps are pointwise; ``x`` is the unit vector, smooth at the poles.
    Poles are points like all others, which they are not for an FNO on the rectangle of latitudes and longitudes.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        domain: a sphere, ``Domain.sphere()``.
        width: channels between lifting and projection.
        num_layers: number of blocks.
        num_degrees: of spherical harmonics that the convolutions see, 0 to ``num_degrees - 1``.
        isotropic: convolutions that commute with all rotations; otherwise they know east from west.
        norm: called as ``norm(width, domain=domain)`` for each block, for example :class:`FunctionNorm`; by default
            there is none.
        activation: a smooth pointwise function.

    Shape: ``(batch, in_channels, latitudes, longitudes) -> (batch, out_channels, latitudes, longitudes)``, any
    resolution; under refinement it converges spectrally.
    Parameters: about ``num_layers * width^2 * num_degrees`` real numbers, twice as many if not isotropic: far fewer
    than those of an FNO, which grow with the square of the modes.
    Good values: width 32 to 64, 4 layers, degrees up to a third or half of the number of latitudes.

    Raises:
        ArgumentError: a size is below 1.
        DomainError: the domain is not a sphere.
        ShapeError: a field has another rank or channel count.

    Source: Bonev et al. (2023), arXiv 2306.03838, with the blocks of :class:`FNO`.

    >>> import torch
    >>> model = SFNO(3, 3, domain=Domain.sphere(), width=16, num_layers=2, num_degrees=10)
    >>> model(torch.randn(4, 3, 32, 64)).shape, model(torch.randn(4, 3, 65, 128)).shape
    (torch.Size([4, 3, 32, 64]), torch.Size([4, 3, 65, 128]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        width: int = 32,
        num_layers: int = 4,
        num_degrees: int = 24,
        isotropic: bool = False,
        norm: Callable[..., nn.Module] | None = None,
        activation: Activation = nn.functional.gelu,
    ) -> None:
        def block() -> nn.Module:
            convolution = SphericalConv(width, width, num_degrees, domain=domain, isotropic=isotropic)
            with torch.no_grad():
                convolution.weight.mul_(INITIAL_GAIN)
            normalise = None if norm is None else norm(width, domain=domain)
            return FNOBlock(width, convolution, activation=activation, norm=normalise)

        super().__init__(
            in_channels,
            out_channels,
            domain=domain,
            width=width,
            num_layers=num_layers,
            block=block,
            activation=activation,
        )
