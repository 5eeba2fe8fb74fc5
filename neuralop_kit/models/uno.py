"""UNO: a Fourier neural operator in the shape of a U."""

from collections.abc import Sequence

from torch import Tensor, nn

from neuralop_kit.layers import PointwiseLinear, Resample
from neuralop_kit.models.fno import FNOBlock, check_modes, spectral_conv
from neuralop_kit.models.lifted import Activation, LiftedOperator
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError


class Descent(nn.Module):
    """One level of a U: a block, then all that happens on half as many points per axis, then another block.

        v = B u,      w = B' (v + N up(C(down(M v))))

    ``down`` and ``up`` are interpolations, ``M`` and ``N`` pointwise maps between the channels of the two levels. The
    coarse grid is half of the given one, not of a fixed size: both are refined together.

    Args:
        block, last: ``B`` and ``B'``, on ``width`` channels.
        coarse: ``C``, on ``coarse_width`` channels.
        width, coarse_width: channels of the two levels.
        domain: where fields live.

    Shape: ``(batch, width, *space) -> (batch, width, *space)``.
    """

    def __init__(
        self, block: nn.Module, coarse: nn.Module, last: nn.Module, *, width: int, coarse_width: int, domain: Domain
    ) -> None:
        super().__init__()
        self.block, self.coarse, self.last = block, coarse, last
        self.widen, self.narrow = PointwiseLinear(width, coarse_width), PointwiseLinear(coarse_width, width)
        self.resample = Resample(domain)

    def forward(self, u: Tensor) -> Tensor:
        """Down, through what is below, and up again."""
        v: Tensor = self.block(u)
        shape = tuple(v.shape[2:])
        below = self.resample(self.widen(v), [max(-(-n // 2), min(n, 3)) for n in shape])
        w: Tensor = self.last(self.narrow(self.resample(self.coarse(below), shape), plus=v))
        return w


@register_model("uno")
class UNO(LiftedOperator):
    """U-shaped neural operator: blocks of an :class:`FNO` on grids that get coarser and finer again.

        G(u) = Q g(R U P [u, x]),      U = B' (1 + N up U_coarse down M) B

    and so on downwards, on half as many points per axis, with twice the channels and half the modes. The deeper, the
    cheaper a channel: width is where it costs least. Every level refines with the data, so that there is a limit.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        domain: a box of one to three dimensions.
        width: channels of the finest level.
        levels: number of grids, at least 1; there are ``2 levels - 1`` blocks.
        modes: Fourier modes per axis of the finest level, both signs counted; one number for all axes or one each.
        activation: a smooth pointwise function; a kinked one slows convergence under refinement.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any resolution the domain allows. Under
    refinement it converges as :class:`FNO` does, spectrally on periodic domains.
    Good values: width 24, 3 levels, 16 modes per axis for 64 points.

    Raises:
        ArgumentError: a size is below 1, or there is not one mode count per axis.
        DomainError: the domain is a sphere or has more than three axes.
        ShapeError: a field has another rank or channel count.

    Source: Rahman, Ross and Azizzadenesheli (2023), arXiv 2204.11127, with sums for concatenations.

    >>> import torch
    >>> model = UNO(1, 1, domain=Domain.box((1.0, 1.0)), width=8, levels=3, modes=8)
    >>> model(torch.randn(4, 1, 33, 33)).shape, model(torch.randn(4, 1, 65, 50)).shape
    (torch.Size([4, 1, 33, 33]), torch.Size([4, 1, 65, 50]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        width: int = 24,
        levels: int = 3,
        modes: int | Sequence[int] = 16,
        activation: Activation = nn.functional.gelu,
    ) -> None:
        if levels < 1:
            raise ArgumentError(f"expected at least one level, got {levels}; three are a good start")
        finest = check_modes(domain, modes)

        def block(level: int) -> FNOBlock:
            channels, kept = width * 2**level, [max(m // 2**level, 1) for m in finest]
            return FNOBlock(channels, spectral_conv(channels, kept, domain=domain), activation=activation)

        def from_level(level: int) -> nn.Module:
            if level == levels - 1:
                return block(level)
            return Descent(
                block(level),
                from_level(level + 1),
                block(level),
                width=width * 2**level,
                coarse_width=width * 2 ** (level + 1),
                domain=domain,
            )

        super().__init__(
            in_channels,
            out_channels,
            domain=domain,
            width=width,
            num_layers=1,
            block=lambda: from_level(0),
            activation=activation,
        )
