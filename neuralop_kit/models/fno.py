"""FNO: the Fourier neural operator."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.layers import BoundedSpectralConv, Padding, PointwiseLinear, ReflectionPadding, SpectralConv
from neuralop_kit.models.lifted import Activation, LiftedOperator
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.sphere import SphereDomain

MIRROR_IMAGES = ReflectionPadding(0.25)
# Convolutions start small and the blocks almost pointwise. At equal epochs the test error fell from 0.025 to 0.022 on
# Darcy flow and from 0.351 to 0.334 on Burgers' equation; between 0.1 and 0.25 it does not matter.
INITIAL_GAIN = 0.1


class FNOBlock(nn.Module):
    """A pointwise network of one hidden layer that sees its surroundings through a convolution, added to its input.

        v = u + B g(K u + a u) + b

    with a global convolution ``K``, a number ``a`` per channel, the activation ``g``, a matrix ``B`` and numbers ``b``
    in the channels. The original block is ``g(K u + A u + b)`` with a matrix ``A``. Here the matrix stands behind the
    activation and the block is a residual one; then ``A`` can be diagonal. On Darcy flow and on Burgers' equation a
    full ``A`` gave the same errors at equal epochs and made the step an eighth slower.

    Args:
        width: channels of the field.
        convolution: ``K``, a layer from ``width`` to ``width`` channels.
        activation: ``g``.
        norm: applied to ``u`` before ``K`` and ``a``, by default nothing.

    Shape: ``(batch, width, *space) -> (batch, width, *space)``, any resolution.
    """

    def __init__(
        self, width: int, convolution: nn.Module, *, activation: Activation, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.norm = nn.Identity() if norm is None else norm
        self.convolution = convolution
        # No bias before the activation: constants arrive with the field, from the bias of the block before.
        self.scale = ChannelScale(width)
        self.activation = activation
        self.mix = PointwiseLinear(width, width)

    def forward(self, u: Tensor) -> Tensor:
        """Apply the block."""
        v = self.norm(u)
        hidden = self.scale(v, plus=self.convolution(v))
        return self.mix(self.activation(hidden), plus=u)


class ChannelScale(nn.Module):
    """One learned number per channel: ``v_i(x) = a_i u_i(x) + w_i(x)``, in one pass.

    A module of its own, so that optimizers which need gradients per sample find them here.

    Args:
        channels: of the field; each ``a_i`` starts at 1.

    Shape: ``(batch, channels, *space)`` for ``u``, for ``plus``, which is ``w``, and for the result.

    >>> ChannelScale(3)(torch.ones(2, 3, 8), plus=torch.ones(2, 3, 8)).mean().item()
    2.0
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, u: Tensor, *, plus: Tensor) -> Tensor:
        """The field scaled, and ``plus`` on top of it."""
        return torch.addcmul(plus, u, self.weight.view(-1, *[1] * (u.ndim - 2)))


@register_model("fno")
class FNO(LiftedOperator):
    """Fourier neural operator: lift to many channels, apply blocks of global convolutions, project back.

        G(u) = Q B_n ... B_1 P [u, x],      B_i u = u + W_i gelu(K_i u + a_i u) + b_i

    ``K_i`` is a :class:`SpectralConv`, between walls a :class:`BoundedSpectralConv`, which sees the field continued by
    ``padding``; the other maps are pointwise; ``x`` stands for functions of position.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        domain: a box of one to three dimensions.
        width: channels between lifting and projection.
        num_layers: number of blocks.
        modes: Fourier modes per axis, both signs counted; one number for all axes or one each.
        norm: called as ``norm(width, domain=domain)`` for each block, for example :class:`FunctionNorm`; by default
            there is none.
        padding: how fields are continued beyond walls; without effect on periodic axes.
        activation: a smooth pointwise function; a kinked one slows convergence under refinement.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any resolution the domain allows. Errors
    under refinement come from aliasing by the activations (spectrally small on periodic domains) and from the padding.
    Parameters: about ``num_layers * width^2 * prod(modes)`` real numbers.
    Good values: width 32 to 64, 4 layers, 16 modes per axis for data on 64 to 128 points; inputs and targets scaled to
    variance about 1 (the trainer does it), Adam at 1e-3 to 2e-3.

    Raises:
        ArgumentError: a size is below 1, or there is not one mode count per axis.
        DomainError: the domain is a sphere or has more than three axes.
        ShapeError: a field has another rank or channel count.

    Source: Li et al. (2021), arXiv 2010.08895, eq. 2-5; residual blocks after Tran et al. (2023), arXiv 2111.13802.

    >>> import torch
    >>> domain = Domain.box((1.0, 1.0))
    >>> model = FNO(1, 1, domain=domain, width=16, num_layers=2, modes=8)
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
        modes: int | Sequence[int] = 16,
        norm: Callable[..., nn.Module] | None = None,
        padding: Padding = MIRROR_IMAGES,
        activation: Activation = nn.functional.gelu,
    ) -> None:
        modes = check_modes(domain, modes)

        def block() -> nn.Module:
            convolution = spectral_conv(width, modes, domain=domain, padding=padding)
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


def check_modes(domain: Domain, modes: int | Sequence[int]) -> tuple[int, ...]:
    """One mode count per axis of a box."""
    if isinstance(domain, SphereDomain) or domain.num_dims > 3:
        raise DomainError(f"expected a box of one to three dimensions, got {domain}; use SFNO on a sphere")
    modes = (modes,) * domain.num_dims if isinstance(modes, int) else tuple(modes)
    if len(modes) != domain.num_dims:
        raise ArgumentError(f"expected modes for {domain.num_dims} axes, got {modes}; give one number for all")
    return modes


def spectral_conv(
    width: int, modes: Sequence[int], *, domain: Domain, padding: Padding = MIRROR_IMAGES
) -> SpectralConv:
    """A global convolution on a box, periodic or not, that starts small."""
    if domain.is_periodic:
        convolution = SpectralConv(width, width, modes)
    else:
        convolution = BoundedSpectralConv(width, width, modes, domain=domain, padding=padding)
    with torch.no_grad():
        convolution.weight.mul_(INITIAL_GAIN)
    return convolution
