"""Which points of a cloud lie within a radius of which queries."""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, ShapeError

# Entries of the largest table of distances on a device without a tree.
_LARGEST_TABLE = 2**26
# Points in a leaf of the tree, measured at balls of about 28 points.
_LEAF_SIZE = 16


class Neighbourhoods(NamedTuple):
    """Pairs of a query and a point, sorted by query; clouds of a batch are numbered one after the other.

    Args:
        queries, points: indices, int64, shape ``(num_pairs,)``.
    """

    queries: Tensor
    points: Tensor


def find_neighbourhoods(points: Tensor, queries: Tensor, radius: float) -> Neighbourhoods:
    """All pairs at a distance of at most ``radius``.

    A k-d tree on the CPU, ``O(n log n)``; tables of distances, in pieces, on other devices. One search serves a batch:
    clouds are set apart along one more coordinate.

    Args:
        points, queries: ``(n, d)`` and ``(m, d)``, or ``(batch, n, d)`` and ``(batch, m, d)`` for different clouds.
        radius: positive, in the unit of the coordinates.

    Raises:
        ArgumentError: the radius is not positive.
        ShapeError: the shapes do not go together.

    >>> line = torch.tensor([[0.0], [1.0], [2.5]])
    >>> find_neighbourhoods(line, line, 1.2).points
    tensor([0, 1, 0, 1, 2])
    """
    if not (math.isfinite(radius) and radius > 0):
        raise ArgumentError(f"expected a positive radius, got {radius}; give it in the unit of the coordinates")
    fits = (
        points.ndim == queries.ndim
        and points.shape[-1] == queries.shape[-1]
        and points.shape[:-2] == queries.shape[:-2]
    )
    if points.ndim not in (2, 3) or not fits:
        raise ShapeError(
            f"expected points (n, d) and queries (m, d), both with or both without a batch axis in front, "
            f"got {tuple(points.shape)} and {tuple(queries.shape)}; expand one of them"
        )
    with torch.no_grad():
        apart, of_queries = (_set_apart(x.detach(), radius) for x in (points, queries))
        if points.device.type == "cpu":
            tree, of_points = (cKDTree(x.numpy(), leafsize=_LEAF_SIZE) for x in (of_queries, apart))
            pairs = tree.sparse_distance_matrix(of_points, radius, output_type="ndarray")
            # Query and point in one number: sorting numbers is faster than sorting pairs.
            count = max(len(apart), 1)
            order = torch.from_numpy(np.sort(pairs["i"] * count + pairs["j"]))
            return Neighbourhoods(order // count, order % count)
        step = max(_LARGEST_TABLE // max(len(apart), 1), 1)
        found = [
            (torch.cdist(piece, apart) <= radius).nonzero() + torch.tensor([step * index, 0], device=points.device)
            for index, piece in enumerate(of_queries.split(step))
        ]
        rows, columns = torch.cat(found).unbind(1)
        return Neighbourhoods(rows, columns)


def _set_apart(x: Tensor, radius: float) -> Tensor:
    """``(batch, n, d) -> (batch * n, d + 1)``, in float64: no two clouds come nearer than three radii."""
    x = x.double()
    if x.ndim == 2:
        return x
    number = torch.arange(x.shape[0], dtype=x.dtype, device=x.device) * 3 * radius
    return torch.cat((x, number[:, None, None].expand(*x.shape[:2], 1)), dim=2).flatten(0, 1)
