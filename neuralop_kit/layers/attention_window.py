"""Attention that sees only what is near: tiles of queries with their surroundings on a box, a mask on a sphere."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from neuralop_kit.layers.constants import constant
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.sphere import SphereDomain

# A logit that hides a key: its exponential is zero in every dtype, yet sums of three fit into float16.
HIDDEN = -1e4
_SMALLEST_TILE = 4


class AttentionWindow(ABC):
    """Which keys a query sees on the grids of one domain."""

    def __init__(self, domain: Domain, radius: float) -> None:
        if not (math.isfinite(radius) and radius > 0):
            raise ArgumentError(f"expected a positive window, got {radius}; give it in the domain's length unit")
        self.domain, self.radius = domain, float(radius)

    @abstractmethod
    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, log_weight: Tensor | None, shape: tuple[int, ...]
    ) -> Tensor:
        """Attention of ``(batch, heads, points, width)``; ``log_weight`` of the keys is ``(1 or batch, *shape)``."""

    def check(self, shape: tuple[int, ...], source_shape: tuple[int, ...]) -> None:
        """Queries and keys share a grid."""
        if shape != source_shape:
            raise ShapeError(f"expected the context on the grid {shape}, got {source_shape}; use Resample")

    def __repr__(self) -> str:
        return f"{self.radius:g}"


def window_on(domain: Domain, radius: float) -> AttentionWindow:
    """The window that goes with a domain."""
    return SphericalWindow(domain, radius) if isinstance(domain, SphereDomain) else TiledWindow(domain, radius)


class SphericalWindow(AttentionWindow):
    """A mask of all pairs; the radius is a length along great circles."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, log_weight: Tensor | None, shape: tuple[int, ...]
    ) -> Tensor:
        """One call with the mask."""
        angle = self.radius / self.domain.radius  # type: ignore[attr-defined]
        mask = _geodesic_window(self.domain.grid, shape, angle, query.dtype, query.device)  # type: ignore[attr-defined]
        if log_weight is not None:
            mask = mask + log_weight.flatten(1)[:, None, None]
        return scaled_dot_product_attention(query, key, value, mask)


class TiledWindow(AttentionWindow):
    """Tiles about as wide as the window; every tile attends to itself and a margin. The tiling changes no result."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, log_weight: Tensor | None, shape: tuple[int, ...]
    ) -> Tensor:
        """Gather tiles, attend within each, put them back."""
        spacing = self.domain.spacing(shape)
        margins = tuple(max(math.ceil(self.radius / h) - 1, 0) for h in spacing)
        tiles = tuple(min(max(margin, _SMALLEST_TILE), n) for margin, n in zip(margins, shape, strict=True))
        counts = tuple(-(-n // tile) for n, tile in zip(shape, tiles, strict=True))
        relative = tuple(h / self.radius for h in spacing)

        def gather(x: Tensor, widen: tuple[int, ...]) -> Tensor:
            """``(batch, heads, points, width) -> (batch, tiles * heads, points of a tile, width)``."""
            x = x.unflatten(2, shape)
            for index, axis in enumerate(self.domain.axes):
                sizes = (shape[index], counts[index], tiles[index], widen[index], axis.is_periodic)
                places = _places(*sizes, torch.int64, x.device)
                x = x.index_select(2 + 2 * index, places.flatten()).unflatten(2 + 2 * index, places.shape)
            num_dims = len(shape)
            outer, inner = range(2, 2 + 2 * num_dims, 2), range(3, 3 + 2 * num_dims, 2)
            x = x.permute(0, *outer, 1, *inner, 2 + 2 * num_dims)
            return x.flatten(1, 1 + num_dims).flatten(2, 1 + num_dims)

        nothing = (0,) * len(shape)
        mask = _box_window(tiles, margins, relative, query.dtype, query.device)
        seen = self._seen(shape, counts, tiles, margins, query)
        if log_weight is not None:
            gathered = gather(log_weight.flatten(1)[:, None, :, None], margins)[..., 0]
            seen = gathered if seen is None else gathered + seen
        if seen is not None:
            mask = mask + seen.repeat_interleave(query.shape[1], dim=1)[:, :, None]
        mixed = scaled_dot_product_attention(gather(query, nothing), gather(key, margins), gather(value, margins), mask)
        return self._put_back(mixed, shape, counts, tiles)

    def _seen(
        self,
        shape: tuple[int, ...],
        counts: tuple[int, ...],
        tiles: tuple[int, ...],
        margins: tuple[int, ...],
        x: Tensor,
    ) -> Tensor | None:
        """Zero for points, ``HIDDEN`` for places behind walls: ``(1, tiles, points of a widened tile)``."""
        if self.domain.is_periodic:
            return None
        walls = tuple(not axis.is_periodic for axis in self.domain.axes)
        return _behind_walls(shape, counts, tiles, margins, walls, x.dtype, x.device)

    @staticmethod
    def _put_back(mixed: Tensor, shape: tuple[int, ...], counts: tuple[int, ...], tiles: tuple[int, ...]) -> Tensor:
        num_dims = len(shape)
        x = mixed.unflatten(2, tiles).unflatten(1, (*counts, -1))
        pairs = [axis for index in range(num_dims) for axis in (1 + index, 2 + num_dims + index)]
        x = x.permute(0, 1 + num_dims, *pairs, 2 + 2 * num_dims)
        for index, n in enumerate(shape):
            x = x.flatten(2 + index, 3 + index).narrow(2 + index, 0, n)
        return x.flatten(2, 1 + num_dims)


@constant
def _places(num_points: int, count: int, tile: int, margin: int, is_periodic: bool) -> NDArray[np.int64]:
    """Which point stands at each place of each tile; places behind walls repeat the last point."""
    places = np.arange(count)[:, None] * tile + np.arange(-margin, tile + margin)
    return places % num_points if is_periodic else np.clip(places, 0, num_points - 1)


@constant
def _behind_walls(
    shape: tuple[int, ...],
    counts: tuple[int, ...],
    tiles: tuple[int, ...],
    margins: tuple[int, ...],
    walls: tuple[bool, ...],
) -> NDArray[np.float64]:
    num_dims, total = len(shape), np.zeros(())
    for index, (n, count, tile, margin, wall) in enumerate(zip(shape, counts, tiles, margins, walls, strict=True)):
        places = np.arange(count)[:, None] * tile + np.arange(-margin, tile + margin)
        hidden = np.where(((places < 0) | (places >= n)) & wall, HIDDEN, 0.0)
        along = np.ones(2 * num_dims, dtype=int)
        along[[index, num_dims + index]] = hidden.shape
        total = total + hidden.reshape(along)
    return total.reshape(1, math.prod(counts), -1)


@constant
def _box_window(tiles: tuple[int, ...], margins: tuple[int, ...], relative: tuple[float, ...]) -> NDArray[np.float64]:
    """Logarithm of the window between the points of a tile and those of the widened one; spacings in radii."""
    squared: NDArray[Any] = np.zeros((1, 1))
    for tile, margin, h in zip(tiles, margins, relative, strict=True):
        line = ((np.arange(-margin, tile + margin) - np.arange(tile)[:, None]) * h) ** 2
        squared = (squared[:, None, :, None] + line[None, :, None, :]).reshape(len(squared) * tile, -1)
    return _log_window(squared)


@constant
def _geodesic_window(grid: str, shape: tuple[int, int], angle: float) -> NDArray[np.float64]:
    sphere = Domain.sphere(grid=grid)
    theta, phi = (sphere.axis_coordinates(index, n).numpy() for index, n in enumerate(shape))
    flat = np.sin(theta)[:, None]
    x = np.stack(np.broadcast_arrays(flat * np.cos(phi), flat * np.sin(phi), np.cos(theta)[:, None])).reshape(3, -1)
    return _log_window((np.arccos(np.clip(x.T @ x, -1, 1)) / angle) ** 2)


def _log_window(squared: NDArray[Any]) -> NDArray[np.float64]:
    """Of ``(1 - r^2)^2``: without the second power, the kink where the rim cuts cells costs the sums half an order."""
    inside = squared < 1
    return np.where(inside, 2 * np.log(np.where(inside, 1 - squared, 1.0)), HIDDEN)
