"""LiftedOperator: what most operators here share, around blocks of their own."""

from collections.abc import Callable

from torch import Tensor, nn

from neuralop_kit.layers import CoordinateEmbedding, PointwiseLinear
from neuralop_kit.layers.checks import check_field
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError

Activation = Callable[[Tensor], Tensor]


class LiftedOperator(nn.Module):
    """Lift to many channels, apply blocks, project back.

        G(u) = Q g(R B_n ... B_1 P [u, x])

    with pointwise maps ``P``, ``R``, ``Q``, the activation ``g``, and functions of position ``x``. Models derive from
    this and say what a block is.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        domain: where they live.
        width: channels between ``P`` and ``Q``.
        num_layers: number of blocks.
        block: called once per block: a layer from ``width`` to ``width`` channels.
        activation: ``g``.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``.

    Raises:
        ArgumentError: a size is below 1.
        ShapeError: a field has another rank or channel count.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        width: int,
        num_layers: int,
        block: Callable[[], nn.Module],
        activation: Activation,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, width, num_layers) < 1:
            raise ArgumentError(
                f"expected at least one channel and one layer, got {in_channels} channels in, {out_channels} out, "
                f"width {width}, {num_layers} layers"
            )
        embed = CoordinateEmbedding(domain=domain)
        self.lift = nn.Sequential(embed, PointwiseLinear(in_channels + embed.num_features, width))
        self.blocks = nn.Sequential(*(block() for _ in range(num_layers)))
        self.project = PointwiseLinear(width, width)
        self.activation = activation
        self.read_out = PointwiseLinear(width, out_channels)
        self.in_channels, self.domain = in_channels, domain

    def forward(self, u: Tensor) -> Tensor:
        """The operator applied to ``u``."""
        check_field(u, self.in_channels, self.domain.num_dims)
        features = self.blocks(self.lift(u))
        return self.read_out(self.activation(self.project(features)))
