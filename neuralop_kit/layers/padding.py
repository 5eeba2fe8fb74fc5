"""Continue a function beyond the walls of a box, so that it becomes periodic, and come back."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralop_kit.registry import register_component
from neuralop_kit.solvers.domain import Axis, Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError


@dataclass(frozen=True)
class Padding(ABC):
    """How to continue a function over the strip that is added behind the far wall of every axis that is not periodic.

    The strip is a fraction of the *length*, so that every resolution sees the same longer, periodic domain: an axis of
    length ``L`` gets the period ``(1 + fraction) L``, rounded to a whole number of spacings ``h``. Where that product
    is a whole number anyway (``fraction=0.25`` and a multiple of 4 intervals) the period is exact, and stays exact
    under refinement; elsewhere it is off by at most ``h / 2``, which costs an error O(h). A strip shorter than a
    spacing vanishes.

    A leaf defines :meth:`strip`, linear in the field. Leaves are plain values without learned parameters.

    Args:
        fraction: length of the strip over that of the axis, in (0, 1]. Good values: 0.125 to 0.25.

    Raises:
        ArgumentError: the fraction is outside (0, 1].
    """

    fraction: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ArgumentError(f"expected a fraction in (0, 1], got {self.fraction}; 0.25 is a good value")

    @abstractmethod
    def strip(self, u: Tensor, dim: int, axis: Axis, num_strip: int) -> Tensor:
        """Values on the ``num_strip`` points that follow the last one along ``dim``, until the first one returns."""

    def inside(self, u: Tensor, dim: int, axis: Axis) -> Tensor:
        """Values on the points of the box itself; as they are, unless a leaf has a reason."""
        return u

    def domain(self, domain: Domain) -> Domain:
        """The longer, periodic domain; shifted by one spacing on ``interior`` nodes, which no convolution notices."""
        longer = []
        for axis in domain.axes:
            stop = axis.stop if axis.is_periodic else axis.start + (1 + self.fraction) * axis.length
            nodes = "cell" if axis.nodes == "cell" else "left"
            longer.append(Axis(axis.start, stop, "periodic", nodes))
        return Domain(longer)

    def extend(self, u: Tensor, domain: Domain) -> Tensor:
        """``u`` on the grid of the longer domain, ``(batch, channel, *longer)``."""
        for index, axis in enumerate(domain.axes):
            dim = index - domain.num_dims
            num_strip = self.num_points(axis, u.shape[dim]) - u.shape[dim]
            if num_strip:
                u = torch.cat([self.inside(u, dim, axis), self.strip(u, dim, axis, num_strip)], dim=dim)
        return u

    def restrict(self, v: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The part of ``v`` on the box, whose grid has ``shape``; inverse of :meth:`extend`."""
        return v[(..., *(slice(n) for n in shape))]

    def num_points(self, axis: Axis, num_points: int) -> int:
        """Points of the longer axis when the axis itself carries ``num_points``."""
        if axis.is_periodic:
            return num_points
        intervals = axis.placement.num_intervals(num_points)
        return max(num_points, math.floor((1 + self.fraction) * intervals + 0.5))


@register_component("zero_padding")
@dataclass(frozen=True)
class ZeroPadding(Padding):
    """Zero behind the wall: the cheapest strip, and the right one for a convolution *over the box alone*.

        (k * u)(x) = integral_box k(x - y) u(y) dy

    Values at and next to the walls get their quadrature weight (1/2 on ``vertex`` nodes, 3/2 on ``interior`` ones):
    without it the integral is O(h) accurate, with it O(h^2). The jump at the wall makes the output's Fourier series
    converge slowly; that is an approximation error of the operator, not a dependence on the resolution.

    >>> padding = ZeroPadding(0.5)
    >>> padding.extend(torch.ones(1, 1, 5), Domain.box((1.0,)))
    tensor([[[0.5000, 1.0000, 1.0000, 1.0000, 0.5000, 0.0000]]])
    """

    def inside(self, u: Tensor, dim: int, axis: Axis) -> Tensor:
        """Values times weight over spacing."""
        num_points = u.shape[dim]
        if axis.placement.end_weights(num_points) == (1.0, 1.0):
            return u
        weights = axis.placement.weights(axis.length, num_points, device=u.device) / axis.spacing(num_points)
        return u * weights.to(u.dtype).view(-1, *[1] * (-1 - dim))

    def strip(self, u: Tensor, dim: int, axis: Axis, num_strip: int) -> Tensor:
        """Zeros."""
        shape = list(u.shape)
        shape[dim] = num_strip
        return u.new_zeros(shape)


@register_component("reflection_padding")
@dataclass(frozen=True)
class ReflectionPadding(Padding):
    """Mirror images of both ends behind their walls, blended into each other over the strip.

    Continuous, so Fourier coefficients decay like k^-2 (those of zero padding like k^-1), and never larger than the
    field itself. The error under refinement is O(h^2). On ``interior`` nodes the values at the walls, which the strip
    contains, are extrapolated linearly.

    >>> ReflectionPadding(0.5).extend(torch.tensor([[[0.0, 1.0, 2.0, 3.0, 4.0]]]), Domain.box((1.0,)))
    tensor([[[0., 1., 2., 3., 4., 2.]]])
    """

    def strip(self, u: Tensor, dim: int, axis: Axis, num_strip: int) -> Tensor:
        """Each image times a weight that fades to zero at the other wall."""
        if axis.nodes == "interior":
            u = torch.cat([_wall_value(u, dim), u, _wall_value(u.flip(dim), dim)], dim=dim)
        # A wall that is a node is its own image and stands inside already; on interior nodes it stands in the strip.
        first = 1 if axis.nodes == "vertex" else 0
        behind_far_wall = u.narrow(dim, u.shape[dim] - first - num_strip, num_strip).flip(dim)
        before_near_wall = u.narrow(dim, first, num_strip).flip(dim)
        weight = fade(axis, num_strip, u.device).to(u.dtype).view(-1, *[1] * (-1 - dim))
        return before_near_wall + weight * (behind_far_wall - before_near_wall)


class Extended(nn.Module):
    """An operator for periodic functions, applied to functions on a box: extend, apply, restrict.

        v = R A (E u)

    Args:
        operator: maps fields on the longer, periodic domain to fields on the same grid.
        padding: the extension ``E``.
        domain: the box where ``u`` lives.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any resolution.

    Raises:
        ShapeError: the field has another number of space axes.

    >>> domain = Domain.box((1.0, 1.0))
    >>> layer = Extended(nn.Identity(), ZeroPadding(0.25), domain=domain)
    >>> layer(torch.ones(1, 1, 9, 9)).shape
    torch.Size([1, 1, 9, 9])
    """

    def __init__(self, operator: nn.Module, padding: Padding, *, domain: Domain) -> None:
        super().__init__()
        self.operator, self.padding, self.domain = operator, padding, domain

    def forward(self, u: Tensor) -> Tensor:
        """Apply the operator to the continued field and cut off the strip."""
        if u.ndim != 2 + self.domain.num_dims:
            raise ShapeError(
                f"expected a field of shape (batch, channel, *space) with {self.domain.num_dims} space axes, "
                f"got {tuple(u.shape)}; a single channel still needs its axis: u[:, None]"
            )
        return self.padding.restrict(self.operator(self.padding.extend(u, self.domain)), tuple(u.shape[2:]))

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.padding}, domain={self.domain}"


def fade(axis: Axis, num_strip: int, device: torch.device) -> Tensor:
    """Weights on the strip from 1 at the far wall to 0 where the period closes, float64; three derivatives match."""
    offset = axis.placement.offset
    s = (torch.arange(num_strip, dtype=torch.float64, device=device) + 1 - offset) / max(num_strip + 1 - 2 * offset, 1)
    return 1 - s**4 * (35 - 84 * s + 70 * s**2 - 20 * s**3)


def _wall_value(u: Tensor, dim: int) -> Tensor:
    """Linear extrapolation to the wall, one spacing before the first of the ``interior`` nodes."""
    return 2 * u.narrow(dim, 0, 1) - u.narrow(dim, 1, 1)
