"""PointwiseLinear: the same matrix at every point."""

import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_dtype, check_real, check_tensor
from neuralop_kit.solvers.errors import ArgumentError, ShapeError


class PointwiseLinear(nn.Module):
    """Mix the channels at every point by one learned matrix: the convolution with kernel size 1, on any number of axes.

        v_i(x) = sum_j W_ij u_j(x) + b_i

    Args:
        in_channels, out_channels: channels of the field.
        bias: learn ``b``.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``. Exact on every grid: no discretisation.
    Cost: 2 in out operations per point, as one batched matrix product that leaves the channels where they are;
    ``nn.Conv2d(..., 1)`` computes the same and, on CPU, reorders its input first.

    Raises:
        ArgumentError: a channel count is below 1, or the field's dtype is not that of the weights.
        ShapeError: the field has another channel count.

    >>> PointwiseLinear(3, 5)(torch.randn(8, 3, 16, 17, 18)).shape
    torch.Size([8, 5, 16, 17, 18])
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__()
        if min(in_channels, out_channels) < 1:
            raise ArgumentError(f"expected at least one channel in and out, got {in_channels} and {out_channels}")
        self.in_channels, self.out_channels = in_channels, out_channels
        bound = in_channels**-0.5
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None

    def forward(self, u: Tensor, *, plus: Tensor | None = None) -> Tensor:
        """``W u + b``, and ``plus`` on top of it, a field of the output's shape: the sum costs no extra pass."""
        check_tensor(u)
        if u.ndim < 3 or u.shape[1] != self.in_channels:
            raise ShapeError(
                f"expected a field of shape (batch, {self.in_channels}, *space), got {tuple(u.shape)}; "
                "a single channel still needs its axis: u[:, None]"
            )
        check_real(u)
        check_dtype(u, self.weight)
        weight = self.weight.expand(u.shape[0], -1, -1)
        flat = u.flatten(2)
        mixed = torch.bmm(weight, flat) if plus is None else torch.baddbmm(plus.flatten(2), weight, flat)
        if self.bias is not None:
            # In place: the product is fresh, and another field in memory costs more than the addition.
            mixed = mixed.add_(self.bias[:, None])
        return mixed.unflatten(2, u.shape[2:])

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.in_channels}, {self.out_channels}, bias={self.bias is not None}"
