"""GraphKernel: a learned kernel on neighbourhoods of a cloud of points."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_real
from neuralop_kit.layers.neighbourhoods import Neighbourhoods, find_neighbourhoods
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

_PIECE = 2**13


class GraphKernel(nn.Module):
    """Mean of a function over balls, weighed by a learned kernel: from points to points, wherever they are.

        v(x) = integral_{|x-y|<R} k(x, y) * V u(y) m(x, y) dy  /  integral_{|x-y|<R} m(x, y) dy,
        k(x, y) = A g(P x + Q (x - y) / R + b) + c,            m(x, y) = (1 - |x - y|^2 / R^2)^2

    with ``*`` channel by channel. Integrals are sums with quadrature weights, over all points in the ball: neither a
    number of neighbours nor their density matters, and a point that is split into two with half the weight each changes
    nothing. ``m`` lets points enter the ball smoothly. A ball without points gives zero.

    The first layer of the kernel's network is linear in ``x`` and in ``y``: it is applied once per point, not per pair.

    Args:
        in_channels, out_channels: channels of the field.
        radius: ``R``, positive, in the unit of the coordinates.
        num_dims: of space.
        hidden_width: of the kernel's network.
        activation: ``g``, pointwise and smooth.

    Shape: ``(batch, in_channels, n) -> (batch, out_channels, m)``.
    Cost: ``2 hidden_width out_channels`` operations and ``2 hidden_width + 3 batch out_channels`` numbers per pair. The
    search takes a tenth to a third of the time; pass ``neighbourhoods`` where points stay. On a GPU, sums run in any
    order, so that the last digits may change from run to run.

    Raises:
        ArgumentError: a size is below 1, or the radius is not positive.
        ShapeError: shapes do not go together.

    Good values: balls of 20 to 50 points.
    Source: Li et al. (2020), arXiv 2003.03485, eq. 8, with quadrature weights and a smooth cut-off.

    >>> layer = GraphKernel(3, 8, 0.2, num_dims=2)
    >>> points, queries = torch.rand(500, 2), torch.rand(40, 2)
    >>> layer(torch.randn(4, 3, 500), points, queries).shape
    torch.Size([4, 8, 40])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        radius: float,
        *,
        num_dims: int,
        hidden_width: int = 32,
        activation: Callable[[Tensor], Tensor] = nn.functional.gelu,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, num_dims, hidden_width) < 1 or not (math.isfinite(radius) and radius > 0):
            raise ArgumentError(
                f"expected sizes of at least 1 and a positive radius, got {in_channels}, {out_channels}, {num_dims}, "
                f"{hidden_width} and {radius}; give the radius in the unit of the coordinates"
            )
        self.in_channels, self.radius, self.num_dims, self.activation = in_channels, float(radius), num_dims, activation
        self.value = nn.Linear(in_channels, out_channels, bias=False)
        self.position = nn.Linear(num_dims, hidden_width)
        self.offset = nn.Linear(num_dims, hidden_width, bias=False)
        self.kernel = nn.Linear(hidden_width, out_channels)

    def forward(
        self,
        u: Tensor,
        points: Tensor,
        queries: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        neighbourhoods: Neighbourhoods | None = None,
    ) -> Tensor:
        """The field at ``queries``, by default at the points themselves.

        Args:
            u: values, ``(batch, in_channels, n)``.
            points, queries: ``(n, d)`` and ``(m, d)`` for one cloud, with ``batch`` in front for a cloud per item;
                clouds of fewer points are filled up by any points of weight zero.
            weights: of the points, ``(n,)`` or ``(batch, n)``, not negative, any scale; equal by default, which is
                right where points are equally dense.
            neighbourhoods: as :func:`find_neighbourhoods` gives them for these points and queries; searched by default.
        """
        points, queries, weights = self._check(u, points, points if queries is None else queries, weights)
        pairs = find_neighbourhoods(points, queries, self.radius) if neighbourhoods is None else neighbourhoods
        of_clouds, num_queries = points.ndim == 3, queries.shape[-2]
        x, y = (p.reshape(-1, self.num_dims).to(u.dtype) for p in (queries, points))
        value = torch.matmul(self.value.weight, u)
        # One row per point; the items of a batch that share a cloud stand side by side.
        value = value.mT.flatten(0, 1)[..., None] if of_clouds else value.permute(2, 1, 0)
        total, mass = self._sums(x, y, value, weights.flatten().to(u.dtype), pairs)
        mean = total / torch.where(mass > 0, mass, 1.0)[:, None, None]
        return mean[..., 0].unflatten(0, (-1, num_queries)).mT if of_clouds else mean.permute(2, 1, 0)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"radius={self.radius:g}, num_dims={self.num_dims}"

    def _sums(
        self, x: Tensor, y: Tensor, value: Tensor, weights: Tensor, pairs: Neighbourhoods
    ) -> tuple[Tensor, Tensor]:
        """Numerator ``(queries, out_channels, batch)`` and denominator ``(queries,)``."""
        near, far = self.position(x) + self.offset(x / self.radius), self.offset(y / self.radius)
        total, mass = value.new_zeros((len(x), *value.shape[1:])), weights.new_zeros(len(x))
        # In pieces that stay in the cache; whole, the tables of pairs would be read from memory five times.
        # The sums are new tensors: adding in place is safe, and a copy per piece would cost more than the piece.
        for i, j in zip(pairs.queries.split(_PIECE), pairs.points.split(_PIECE), strict=True):
            # `index_select` copies rows several times faster than `x[i]`, forward and in the gradient.
            squared = (x.index_select(0, i) - y.index_select(0, j)).square().sum(dim=1) / self.radius**2
            share = (1 - squared).clamp(min=0).square() * weights.index_select(0, j)
            kernel = self.kernel(self.activation(near.index_select(0, i) - far.index_select(0, j))) * share[:, None]
            total.index_add_(0, i, kernel[..., None] * value.index_select(0, j))
            mass.index_add_(0, i, share)
        return total, mass

    def _check(
        self, u: Tensor, points: Tensor, queries: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points, queries and weights, all of them with a batch axis or none."""
        weights = points.new_ones(points.shape[-2:-1]) if weights is None else weights
        sizes = [(points, self.num_dims, 2), (queries, self.num_dims, 2), (weights, points.shape[-2], 1)]
        batched = any(x.ndim > ndim for x, _, ndim in sizes)
        fits = u.ndim == 3 and tuple(u.shape[1:]) == (self.in_channels, points.shape[-2])
        for x, last, ndim in sizes:
            fits = fits and x.shape[-1] == last and (x.ndim == ndim or (x.ndim == ndim + 1 and len(x) == len(u)))
        if not fits:
            raise ShapeError(
                f"expected a field (batch, {self.in_channels}, n), points (n, {self.num_dims}), queries "
                f"(m, {self.num_dims}) and weights (n,), the last three also with batch in front, "
                f"got {tuple(u.shape)}, {tuple(points.shape)}, {tuple(queries.shape)}, {tuple(weights.shape)}; "
                "match n and batch"
            )
        check_real(u)
        if batched:
            points, queries, weights = (x if x.ndim > n else x.expand(len(u), *x.shape) for x, _, n in sizes)
        return points, queries, weights
