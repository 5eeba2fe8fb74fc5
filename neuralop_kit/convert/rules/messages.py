"""Message passing on the points of a grid: edges are distances in the domain, not pairs of indices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuralop_kit.convert.grid import Line, is_free, lines_of
from neuralop_kit.convert.kernels import Kernel
from neuralop_kit.convert.registry import Call, Conversion, Edge, Refusal, adopt
from neuralop_kit.convert.rules.shapes import with_sizes
from neuralop_kit.convert.sampling import natural_ends
from neuralop_kit.layers.constants import constant

Offsets = tuple[tuple[int, ...], ...]


class FieldMessages(nn.Module):
    """Put in front of a message-passing class: on finer grids it is called with the edges of that grid.

    Every edge of the trained graph is an offset, the same around every point. On a finer grid each point is joined to
    those at the same offsets in the domain, after the smoothing of a :class:`Kernel`, as the taps of a convolution are.
    """

    takes_ratios = True
    kernel: Kernel
    lines: tuple[Line, ...]
    dim: int
    offsets: Offsets
    examples: tuple[int, ...]

    def forward(self, x: Tensor, edges: Tensor, *others: Tensor, ratios: Sequence[int]) -> Any:
        """``(..., points, channel)``, ``(2, edges)``, and what each edge carries."""
        factors = [ratios[line.axis] for line in self.lines]
        if all(ratio == 1 for ratio in factors):
            return super().forward(x, edges, *others)
        sizes = [line.refined(ratio) for line, ratio in zip(self.lines, factors, strict=True)]
        steps = tuple(tuple(o * r for o, r in zip(offset, factors, strict=True)) for offset in self.offsets)
        wraps = tuple(line.wraps for line in self.lines)
        fine = _edges(tuple(sizes), steps, wraps, torch.int64, x.device)
        which = _which(tuple(sizes), steps, wraps, torch.int64, x.device)
        examples = torch.tensor(self.examples, device=x.device)
        carried = [other[examples][which] for other in others]
        return super().forward(self._smooth(x, sizes, factors), fine, *carried)

    def _smooth(self, x: Tensor, sizes: Sequence[int], factors: Sequence[int]) -> Tensor:
        parts = x.unflatten(self.dim, list(sizes))
        for index, (line, ratio) in enumerate(zip(self.lines, factors, strict=True)):
            parts = self.kernel.smooth(
                parts, self.dim + index, line, ratio=ratio, shift=0.0, before=0, after=0,
                ends=natural_ends(line, self.kernel),
            )  # fmt: skip
        return parts.flatten(self.dim, self.dim + len(self.lines) - 1)


def message_passing(call: Call) -> Conversion:
    """Rule for layers called as ``layer(x, edge_index)`` or ``layer(x, edge_index, edge_values)``; register your class.

    ``x`` holds the flattened points of a grid in one dimension, ``edge_index`` pairs of their indices, ``(2, edges)``.
    The graph must look the same around every point, up to walls. Sums and means over neighbours keep their size, for
    the number of neighbours does not change.

    >>> class Layer(nn.Module):
    ...     def forward(self, x, edge_index):
    ...         return torch.zeros_like(x).index_add(-2, edge_index[1], x[..., edge_index[0], :])
    >>> from neuralop_kit.convert import register_rule
    >>> _ = register_rule(Layer)(message_passing)
    """
    field = call.field
    where = [d for d, dim in enumerate(field.layout) if lines_of(dim)]
    if len(call.edges) < 2 or len(where) != 1 or call.kwargs:
        raise Refusal("it is not called as layer(x, edge_index) with all points in one dimension of x")
    dim = where[0]
    lines = tuple(lines_of(field.layout[dim]))
    layout = _output(call, dim)
    if not is_free(field.layout[dim]):
        return Conversion(layout, "message passing", limit="fixed latent grid")
    pairs = call.edges[1].value
    if pairs.ndim != 2 or pairs.shape[0] != 2 or pairs.is_floating_point():
        raise Refusal(f"its second argument is no list of edges (2, number), but {tuple(pairs.shape)}")
    offsets, examples = _offsets(pairs.cpu().numpy(), lines)
    cls = type("FieldMessages", (FieldMessages, type(call.target)), {})
    kernel = call.settings.kernel
    converted: nn.Module = adopt(
        call.target, cls, kernel=kernel, lines=lines, dim=dim, offsets=offsets, examples=examples
    )  # fmt: skip
    walls = "" if all(line.wraps for line in lines) else ", 1 at walls, where neighbours are missing"
    return Conversion(layout, f"message passing, {kernel.name}", target=converted, limit=f"order {kernel.order}{walls}")


def _output(call: Call, dim: int) -> Any:
    field: Edge = call.field
    if not isinstance(call.output, Tensor) or call.output.ndim != len(field.layout):
        raise Refusal("it does not return values at the points alone")
    return with_sizes(field.layout, call.output.shape)


def _offsets(pairs: NDArray[Any], lines: Sequence[Line]) -> tuple[Offsets, tuple[int, ...]]:
    """Offsets from source to target, and an edge that has each."""
    shape = tuple(line.num_points for line in lines)
    source, target = (np.stack(np.unravel_index(row, shape)) for row in pairs)
    difference = target - source
    for index, line in enumerate(lines):
        if line.wraps:
            n = line.num_points
            difference[index] = (difference[index] + n // 2) % n - n // 2
    offsets, examples, counts = np.unique(difference, axis=1, return_index=True, return_counts=True)
    for offset, count in zip(offsets.T, counts, strict=True):
        expected = np.prod(
            [n if line.wraps else n - abs(o) for n, o, line in zip(shape, offset, lines, strict=True)]
        )  # fmt: skip
        if count != expected:
            raise Refusal(f"its graph is not the same around every point (offset {tuple(map(int, offset))})")
    return tuple(tuple(map(int, o)) for o in offsets.T), tuple(map(int, examples))


def _pairs(sizes: tuple[int, ...], steps: Offsets, wraps: tuple[bool, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    points = np.stack([axis.ravel() for axis in np.indices(sizes)])
    rows, which = [], []
    for number, step in enumerate(steps):
        target = points + np.array(step)[:, None]
        inside = np.ones(points.shape[1], dtype=bool)
        for index, (n, wrap) in enumerate(zip(sizes, wraps, strict=True)):
            if wrap:
                target[index] %= n
            else:
                inside &= (target[index] >= 0) & (target[index] < n)
        ends = (points[:, inside], target[:, inside])
        rows.append(np.stack([np.ravel_multi_index(tuple(end), sizes) for end in ends]))
        which.append(np.full(int(inside.sum()), number))
    return np.concatenate(rows, axis=1), np.concatenate(which)


@constant
def _edges(sizes: tuple[int, ...], steps: Offsets, wraps: tuple[bool, ...]) -> NDArray[Any]:
    return _pairs(sizes, steps, wraps)[0]


@constant
def _which(sizes: tuple[int, ...], steps: Offsets, wraps: tuple[bool, ...]) -> NDArray[Any]:
    return _pairs(sizes, steps, wraps)[1]
