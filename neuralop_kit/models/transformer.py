"""TransformerOperator: a transformer whose attention is a ratio of integrals."""

from torch import Tensor, nn

from neuralop_kit.layers import FunctionAttention, PointwiseLinear
from neuralop_kit.models.lifted import Activation, LiftedOperator
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.domain import Domain


class TransformerBlock(nn.Module):
    """Attention between points, then a network at every point, each on the normalised field and added to it.

        v = u + A N u,      w = v + B g(C N v)

    ``N`` normalises over the channels of a point, which no grid can change.

    Args:
        width: channels of the field.
        attention: ``A``, a layer from ``width`` to ``width`` channels.
        activation: ``g``.

    Shape: ``(batch, width, *space) -> (batch, width, *space)``.
    """

    def __init__(self, width: int, attention: nn.Module, *, activation: Activation) -> None:
        super().__init__()
        self.attention, self.activation = attention, activation
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.expand, self.contract = PointwiseLinear(width, 2 * width), PointwiseLinear(2 * width, width)

    def forward(self, u: Tensor) -> Tensor:
        """Apply the block."""
        first, second = self.norms
        v = u + self.attention(first(u.movedim(1, -1)).movedim(-1, 1))
        hidden = self.expand(second(v.movedim(1, -1)).movedim(-1, 1))
        return self.contract(self.activation(hidden), plus=v)


@register_model("transformer")
class TransformerOperator(LiftedOperator):
    """Transformer between functions: every point attends to every other by its quadrature weight.

        G(u) = Q g(R B_n ... B_1 P [u, x]),      B_i: :class:`FunctionAttention`, then a network at every point

    Args:
        in_channels, out_channels: channels of the input and output fields.
        domain: a box or a sphere.
        width: channels between lifting and projection.
        num_layers: number of blocks.
        num_heads: attention heads; ``width / num_heads`` a multiple of 8 is fast.
        window: attention sees only what is nearer than this length; by default everything.
        activation: a smooth pointwise function.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any resolution. Under refinement errors
    fall like O(h^2) between walls, spectrally on periodic axes and on spheres; with a window like O(h^2) on all.
    Cost: grows with the square of the number of points, ``4 n^2 width`` operations per block; with a window linearly.
    Good values: width 64, 4 heads, 4 layers, up to 32 x 32 points on a CPU; a window of 4 to 8 spacings beyond.

    Raises:
        ArgumentError: a size is below 1, or the window is not positive.
        ShapeError: a field has another rank or channel count.

    Source: Vaswani et al. (2017); Cao (2021), arXiv 2105.14995, for operators; Xiong et al. (2020), norms before.

    >>> import torch
    >>> model = TransformerOperator(1, 1, domain=Domain.box((1.0, 1.0)), width=16, num_layers=2, num_heads=2)
    >>> model(torch.randn(4, 1, 9, 9)).shape, model(torch.randn(4, 1, 17, 12)).shape
    (torch.Size([4, 1, 9, 9]), torch.Size([4, 1, 17, 12]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        width: int = 64,
        num_layers: int = 4,
        num_heads: int = 4,
        window: float | None = None,
        activation: Activation = nn.functional.gelu,
    ) -> None:
        def block() -> nn.Module:
            attention = FunctionAttention(width, width, num_heads, domain=domain, window=window)
            return TransformerBlock(width, attention, activation=activation)

        super().__init__(
            in_channels,
            out_channels,
            domain=domain,
            width=width,
            num_layers=num_layers,
            block=block,
            activation=activation,
        )
