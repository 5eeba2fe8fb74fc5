"""Where the points of every tensor inside a network are: lines of points, and which dimension of a tensor holds which.

Positions are counted in spacings of the reference input grid, from the start of the domain's axis, in exact fractions.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

from neuralop_kit.solvers.domain import Axis, Domain
from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.nodes import NodePlacement, Vertex


@dataclass(frozen=True)
class Size:
    """A dimension, or a factor of one, that is no space: batch, channels, heads."""

    num_points: int
    is_batch: bool = False


@dataclass(frozen=True)
class Margin:
    """Padding that was asked for by a layer of its own and is carried out by the convolution that follows."""

    left: int
    right: int
    mode: str


@dataclass(frozen=True)
class Line:
    """Points along one axis of the domain, as a tensor inside the network holds them at the reference resolution.

        x_i = start + (i + offset) * spacing / ratio,      i < refined(ratio)

    The placement of nodes is that of the domain, over an interval of the line's own: a pooled tensor starts half a
    spacing later than its input, and both are refined in place.

    Args:
        axis: of the domain.
        nodes: placement over the interval.
        num_points: at the reference resolution.
        start: of the interval, in reference spacings of the input.
        spacing: at the reference resolution, in reference spacings of the input.
        wraps: whether the point after the last one is the first one again.
        held: whether it stays at the reference resolution whatever the input's.
        is_measure: whether values along it are shares of a whole, as after a softmax: sums need no weights.
        margin: padding that is still to be done.
    """

    axis: int
    nodes: NodePlacement
    num_points: int
    start: Fraction
    spacing: Fraction
    wraps: bool
    held: bool = False
    is_measure: bool = False
    margin: Margin | None = None

    @property
    def offset(self) -> Fraction:
        """Of the first point from the start of the interval, in spacings."""
        return Fraction(self.nodes.offset)

    def first(self, ratio: int) -> Fraction:
        """Position of the first point."""
        return self.start + self.offset * self.spacing / ratio

    def refined(self, ratio: int) -> int:
        """Number of points when the spacing is ``ratio`` times smaller."""
        return 1 if self.num_points < self.nodes.min_points else self.nodes.refine(self.num_points, ratio)

    def ratio(self, num_points: int) -> int:
        """Inverse of :meth:`refined`.

        Raises:
            ShapeError: there is none.
        """
        intervals = self.nodes.num_intervals(self.num_points)
        ratio, rest = divmod(self.nodes.num_intervals(num_points), intervals) if intervals else (1, num_points - 1)
        if rest or ratio < 1:
            raise ShapeError(
                f"expected {self.num_points} points refined by an integer on {self.nodes.name!r} nodes, "
                f"got {num_points}; call the operator, not its parts"
            )
        return ratio

    def out_ratio(self, ratio: int) -> int:
        """Ratio of this line where that of the input is ``ratio``."""
        return 1 if self.held else ratio

    def moved(self, *, first: Fraction, spacing: Fraction, num_points: int, held: bool = False) -> "Line":
        """The line that begins at another point with another spacing, on the same axis."""
        wraps = self.wraps and num_points * spacing == self.num_points * self.spacing
        nodes = Vertex() if self.nodes.name == "left" and not wraps else self.nodes
        start = first - self.offset * spacing
        return replace(
            self, nodes=nodes, num_points=num_points, start=start, spacing=spacing, wraps=wraps,
            held=held or self.held, margin=None,
        )  # fmt: skip

    def as_axis(self) -> Axis:
        """The interval, for interpolation."""
        intervals = max(self.nodes.num_intervals(self.num_points), 1)
        boundary = "periodic" if self.wraps else "dirichlet"
        return Axis(float(self.start), float(self.start + intervals * self.spacing), boundary, self.nodes.name)

    def same_points(self, other: "Line") -> bool:
        """Whether index ``i`` means the same on both at every ratio, up to a shift."""
        mine, theirs = ((a.axis, a.nodes, a.num_points, a.spacing, a.margin) for a in (self, other))
        return mine == theirs


Atom: TypeAlias = Size | Line
Dim: TypeAlias = tuple[Atom, ...]
Layout: TypeAlias = tuple[Dim, ...]


def input_layout(domain: Domain, shape: Sequence[int]) -> Layout:
    """Of a field ``(batch, channel, *space)`` at the reference resolution."""
    lines = [
        Line(index, axis.placement, n, Fraction(0), Fraction(1), axis.is_periodic)
        for index, (axis, n) in enumerate(zip(domain.axes, shape[2:], strict=True))
    ]
    return ((Size(shape[0], is_batch=True),), (Size(shape[1]),), *((line,) for line in lines))


def plain_layout(shape: Sequence[int]) -> Layout:
    """Of a tensor without space."""
    return tuple((Size(n),) for n in shape)


def num_points(dim: Dim) -> int:
    """Size of a dimension at the reference resolution."""
    return math.prod([atom.num_points for atom in dim])


def shape_of(layout: Layout) -> tuple[int, ...]:
    """Shape at the reference resolution."""
    return tuple(num_points(dim) for dim in layout)


def lines_of(dim: Dim) -> list[Line]:
    """The lines of a dimension."""
    return [atom for atom in dim if isinstance(atom, Line)]


def is_free(dim: Dim) -> bool:
    """Whether the size of the dimension follows the resolution of the input."""
    return any(not line.held for line in lines_of(dim))


def free_dims(layout: Layout) -> list[int]:
    """Dimensions whose size follows the resolution of the input."""
    return [index for index, dim in enumerate(layout) if is_free(dim)]


def sizes_at(dim: Dim, ratios: Sequence[int]) -> list[int]:
    """Size of each factor of a dimension where the input is refined by ``ratios``, one per axis of the domain."""
    return [
        atom.refined(atom.out_ratio(ratios[atom.axis])) if isinstance(atom, Line) else atom.num_points for atom in dim
    ]


def hold(layout: Layout) -> Layout:
    """The same layout with every line at the reference resolution."""
    return tuple(tuple(replace(atom, held=True) if isinstance(atom, Line) else atom for atom in dim) for dim in layout)


def as_line(dim: Dim) -> Line | None:
    """A dimension as one line, if it is one: also held patches whose points follow each other, ``(patch, point)``."""
    atoms = [atom for atom in dim if atom.num_points != 1] or list(dim)
    line = atoms[0]
    if not isinstance(line, Line) or not all(isinstance(atom, Size) for atom in atoms[1:]):
        return None
    if len(atoms) == 1:
        return line
    if not line.held:
        return None
    parts = num_points(tuple(atoms[1:]))
    spacing = line.spacing / parts
    # The points of a patch lie evenly around its own point.
    first = line.first(1) - (line.spacing - spacing) / 2
    return line.moved(first=first, spacing=spacing, num_points=line.num_points * parts, held=True)


def iterate_lines(layout: Layout) -> Iterator[Line]:
    """All lines of a tensor."""
    for dim in layout:
        yield from lines_of(dim)
