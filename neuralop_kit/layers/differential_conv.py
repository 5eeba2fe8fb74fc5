"""DifferentialConv: a learned derivative, the part of a small convolution that survives refinement."""

import operator
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_field
from neuralop_kit.solvers.domain import Axis, Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError


class DifferentialConv(nn.Module):
    """Derivatives of the field in learned directions, by finite differences.

        v_i(x) = sum_j  b_ij . grad u_j(x)                                         order 1
                      + sum_{a <= c} B_ijac  d^2 u_j / dx_a dx_c (x)                order 2 adds this

    A convolution of pixels with fixed weights tends to a pointwise product as the spacing shrinks. What is left when
    its mean is taken out and the rest is divided by the spacing are these derivatives. Differences are central, with
    the spacing of their own axis, and one-sided where an axis has walls: exact for polynomials of degree 2 (the second
    derivative along an axis of degree 3, from four points at walls), O(h^2) otherwise.

    Args:
        in_channels, out_channels: channels of the field.
        domain: a box of one to three dimensions; fields on periodic axes must not jump, as a coordinate would.
        order: 1 or 2.
        generator: source of the initial weights, normal numbers of variance ``1 / (in_channels * terms)`` times the
            length of each axis for each derivative along it: smooth fields of variance one give outputs of order one
            to ten.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any resolution from 4 points per axis on.
    Half precision is computed in float32, also under autocast: differences of rounded numbers are divided by ``h``.
    Cost: ``2 terms in out`` operations per point with ``terms = d`` or ``d + d (d + 1) / 2``, as one matrix product.
    Noise in the field is amplified like ``1/h`` or ``1/h^2``, as derivatives do.

    Raises:
        ArgumentError: the order is neither 1 nor 2, or a channel count is below 1.
        DomainError: the domain is a sphere or has more than three axes.
        ShapeError: the field has another rank or channel count, or an axis is too short.

    Source: Liu-Schiaffini et al. (2024), arXiv 2402.16845, section 3.1, where taps are learned and centred.

    >>> layer = DifferentialConv(3, 5, domain=Domain.periodic((1.0, 2.0)))
    >>> layer(torch.randn(2, 3, 16, 33)).shape
    torch.Size([2, 5, 16, 33])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        order: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if order not in (1, 2) or min(in_channels, out_channels) < 1:
            raise ArgumentError(
                f"expected order 1 or 2 and at least one channel, got {order}, {in_channels} and {out_channels}; "
                "higher orders amplify noise beyond use"
            )
        if type(domain) is not Domain or domain.num_dims > 3:
            raise DomainError(
                f"expected a box of one to three dimensions, got {domain}; on a sphere directions jump at the poles"
            )
        self.in_channels, self.domain, self.order = in_channels, domain, order
        axes = range(domain.num_dims)
        self.derivatives = [c for n in range(1, order + 1) for c in combinations_with_replacement(axes, n)]
        weight = torch.randn(len(self.derivatives), out_channels, in_channels, generator=generator)
        for matrix, along in zip(weight, self.derivatives, strict=True):
            for axis in along:
                matrix *= domain.lengths[axis]
        self.weight = nn.Parameter(weight * (in_channels * len(self.derivatives)) ** -0.5)

    def forward(self, u: Tensor) -> Tensor:
        """The derivative of ``u``."""
        num_dims = self.domain.num_dims
        check_field(u, self.in_channels, num_dims)
        if min(u.shape[2:]) < 4:
            raise ShapeError(f"expected at least 4 points on every axis, got {tuple(u.shape)}; take a finer grid")
        shape = tuple(operator.index(n) for n in u.shape[2:])
        with torch.autocast(u.device.type, enabled=False):
            x = u.to(torch.promote_types(u.dtype, torch.float32))
            rows = torch.cat(self._differences(x, shape), dim=1).flatten(2)
            matrix = self.weight.transpose(0, 1).flatten(1)
            return torch.matmul(matrix.to(x.dtype), rows).unflatten(2, shape).to(u.dtype)

    def _differences(self, u: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
        """All derivatives of the field."""
        spacing = self.domain.spacing(shape)
        taken: dict[tuple[int, ...], Tensor] = {}
        for along in self.derivatives:
            last = along[-1]
            dim, axis, h = 2 + last, self.domain.axes[last], spacing[last]
            if len(along) == 2 and along[0] == last:
                taken[along] = second_difference(u, dim, axis, h)
            else:
                taken[along] = first_difference(taken[along[:-1]] if along[:-1] else u, dim, axis, h)
        return [taken[along] for along in self.derivatives]

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.in_channels}, {self.weight.shape[1]}, order={self.order}, domain={self.domain}"


def first_difference(u: Tensor, dim: int, axis: Axis, h: float) -> Tensor:
    """``(u(x+h) - u(x-h)) / 2h``, at walls ``(-3 u(x) + 4 u(x+h) - u(x+2h)) / 2h``."""
    if axis.is_periodic:
        return (u.roll(-1, dim) - u.roll(1, dim)) * (0.5 / h)
    n = u.shape[dim]
    inner = u.narrow(dim, 2, n - 2) - u.narrow(dim, 0, n - 2)
    near = [u.narrow(dim, i, 1) for i in range(3)]
    far = [u.narrow(dim, n - 1 - i, 1) for i in range(3)]
    start, stop = -3 * near[0] + 4 * near[1] - near[2], 3 * far[0] - 4 * far[1] + far[2]
    return torch.cat((start, inner, stop), dim) * (0.5 / h)


def second_difference(u: Tensor, dim: int, axis: Axis, h: float) -> Tensor:
    """``(u(x+h) - 2 u(x) + u(x-h)) / h^2``, at walls ``(2 u(x) - 5 u(x+h) + 4 u(x+2h) - u(x+3h)) / h^2``."""
    if axis.is_periodic:
        return (u.roll(-1, dim) - 2 * u + u.roll(1, dim)) * h**-2
    n = u.shape[dim]
    inner = u.narrow(dim, 2, n - 2) - 2 * u.narrow(dim, 1, n - 2) + u.narrow(dim, 0, n - 2)
    ends = []
    for places in (range(4), range(n - 1, n - 5, -1)):
        a, b, c, d = (u.narrow(dim, i, 1) for i in places)
        ends.append(2 * a - 5 * b + 4 * c - d)
    return torch.cat((ends[0], inner, ends[1]), dim) * h**-2
