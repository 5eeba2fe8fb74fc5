"""The ends of an operator: from the grid of the input to one that its parts can work on, and back to the user's."""

import operator
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from neuralop_kit.convert.grid import Layout, Line, as_line, hold, input_layout, lines_of, sizes_at
from neuralop_kit.convert.registry import Edge
from neuralop_kit.convert.sampling import move, refine_dim
from neuralop_kit.layers.checks import check_tensor
from neuralop_kit.layers.resample import Resample
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ShapeError


class CoarseGridWarning(UserWarning):
    """The input is coarser than the reference: it is interpolated there, and nothing is gained over that."""


class Grid:
    """Which refinement of the reference carries an input, and how both get there.

    Parts of an operator work where each axis is refined by an integer. Other inputs are interpolated to the next finer
    such grid, and what comes out is interpolated back.
    """

    def __init__(self, domain: Domain, resolution: Sequence[int], channels: int) -> None:
        self.domain, self.resolution, self.channels = domain, tuple(resolution), channels
        self.resample = Resample(domain)

    def check(self, u: Tensor) -> None:
        """Raise a :class:`ShapeError` unless this is a field of the right channels."""
        check_tensor(u)
        if u.ndim != 2 + self.domain.num_dims or u.shape[1] != self.channels:
            raise ShapeError(
                f"expected a field of shape (batch, {self.channels}, *space) with {self.domain.num_dims} space axes, "
                f"got {tuple(u.shape)}; a single channel still needs its axis: u[:, None]"
            )
        self.domain.check_shape(u.shape[2:])

    def intervals(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Spacings along each axis, of a grid and of the reference."""
        sizes = zip(self.domain.axes, map(operator.index, shape), self.resolution, strict=True)
        return [(axis.placement.num_intervals(n), axis.placement.num_intervals(m)) for axis, n, m in sizes]

    def ratios(self, shape: Sequence[int]) -> tuple[int, ...]:
        """How many times finer than the reference each axis is, rounded up."""
        return tuple(-(-mine // theirs) for mine, theirs in self.intervals(shape))

    def arrive(self, u: Tensor, ratios: Sequence[int]) -> Tensor:
        """The input on the refinement by ``ratios``."""
        sizes = zip(self.domain.axes, self.resolution, ratios, strict=True)
        shape = tuple(axis.placement.refine(m, ratio) for axis, m, ratio in sizes)
        coarse = any(mine < theirs for mine, theirs in self.intervals(u.shape[2:]))
        if coarse and not torch.compiler.is_compiling():
            warnings.warn(
                f"the input of {tuple(u.shape[2:])} points is coarser than the reference of {self.resolution}; "
                "it is interpolated to the reference and back",
                CoarseGridWarning,
                stacklevel=3,
            )
        return self.resample(u, shape)

    def leave(self, value: Any, layout: Any, shape: Sequence[int], ratios: Sequence[int]) -> Any:
        """An output on the grid of the input: other parts of it, or none, where it has no space."""
        if isinstance(value, tuple | list):
            return type(value)(self.leave(v, p, shape, ratios) for v, p in zip(value, layout, strict=True))
        if isinstance(value, dict):
            return {key: self.leave(item, layout[key], shape, ratios) for key, item in value.items()}
        if not isinstance(value, Tensor):
            return value
        return self._leave(value, layout, shape, ratios)

    def _leave(self, v: Tensor, layout: Layout, shape: Sequence[int], ratios: Sequence[int]) -> Tensor:
        intervals = self.intervals(shape)
        for d, dim in enumerate(layout):
            lines = lines_of(dim)
            if not lines:
                continue
            free = tuple(_released(atom) for atom in dim)
            if all(line.held for line in lines):
                v = refine_dim(v, d, free, ratios)
            sizes = sizes_at(free, ratios)
            wanted = [_size(atom, n, intervals) for atom, n in zip(free, sizes, strict=True)]
            if wanted != sizes:
                parts = v.unflatten(d, sizes)
                for offset, (atom, n) in enumerate(zip(free, wanted, strict=True)):
                    parts = _on_grid(parts, d + offset, atom, n)
                v = parts.flatten(d, d + len(dim) - 1)
        return v


def _released(atom: Any) -> Any:

    return replace(atom, held=False) if isinstance(atom, Line) else atom


def _size(atom: Any, current: int, intervals: Sequence[tuple[int, int]]) -> int:
    """Points wanted: as fine as the input, where there is such a grid."""
    if not isinstance(atom, Line) or atom.num_points < atom.nodes.min_points:
        return current
    mine, theirs = intervals[atom.axis]
    wanted, rest = divmod(atom.nodes.num_intervals(atom.num_points) * mine, theirs)
    return atom.nodes.num_points(wanted) if rest == 0 and wanted > 0 else current


def _on_grid(x: Tensor, dim: int, atom: Any, n: int) -> Tensor:

    return move(x, dim, atom, n) if isinstance(atom, Line) else x


def reference_layout(value: Any, domain: Domain, resolution: Sequence[int]) -> Any:
    """Layouts of outputs; a field whose points lost their places inside of the network gets those of the domain."""

    if isinstance(value, tuple | list):
        return type(value)(reference_layout(item, domain, resolution) for item in value)
    if isinstance(value, dict):
        return {key: reference_layout(item, domain, resolution) for key, item in value.items()}
    if not isinstance(value, Edge):
        return None
    known = tuple((line,) if (line := as_line(dim)) else dim for dim in value.layout)
    shape = tuple(value.value.shape)
    if len(shape) == 2 + len(resolution) and shape[2:] == tuple(resolution):
        places = hold(input_layout(domain, shape))
        known = tuple(k if lines_of(k) else p for k, p in zip(known, places, strict=True))
    return known
