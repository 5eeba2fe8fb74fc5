"""The grids of a multigrid hierarchy, counted from the coarse end, where they are the same for every resolution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from neuralop_kit.solvers.domain import Axis, Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

Shape = tuple[int, ...]

# A grid takes the place of the level whose spacing is nearest: up to this factor coarser is the next level's business.
LARGEST_STRETCH = 4 / 3
# Kernels know one spacing; axes that differ by more than this would need kernels of their own.
LARGEST_ANISOTROPY = 2.5


@dataclass(frozen=True)
class Levels:
    """Grids that halve their spacing from level to level, ending at the grid of the field.

    Level ``l`` has ``coarsest * 2^l`` intervals per axis, whatever the field's resolution; only the last one is the
    field's own grid. Fields whose number of intervals is ``coarsest * 2^l`` give nested grids throughout. Any other
    size has one step of a ratio other than 2 below its own grid, between 4/3 and 8/3, and nested grids from there on.

    Args:
        domain: a box.
        coarsest: intervals per axis of level 0.

    >>> Levels(Domain.periodic((1.0, 1.0)), (4, 4)).shapes((16, 20))
    ((4, 4), (8, 8), (16, 20))
    """

    domain: Domain
    coarsest: Shape

    def __post_init__(self) -> None:
        if len(self.coarsest) != self.domain.num_dims or min(self.coarsest) < 1:
            raise ArgumentError(
                f"expected a positive number of intervals per axis ({self.domain.num_dims}), got {self.coarsest}; "
                "4 along the shortest side is a good value"
            )
        for axis, count in zip(self.domain.axes, self.coarsest, strict=True):
            if axis.placement.num_points(count) < 1:
                raise ArgumentError(
                    f"expected points on the coarsest grid, got {count} interval on {axis.nodes!r} nodes; take 2"
                )

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of the domain."""
        return self.domain.axes

    def shapes(self, shape: Sequence[int]) -> tuple[Shape, ...]:
        """Shapes of all grids, coarsest first, ending with ``shape``.

        Raises:
            ShapeError: an axis has fewer points than the coarsest grid, or the spacings differ too much.
        """
        intervals = self.check(shape)
        depths = [_depth(n, base) for n, base in zip(intervals, self.coarsest, strict=True)]
        return tuple(
            tuple(
                axis.placement.num_points(n if level >= depth else base * 2**level)
                for axis, n, base, depth in zip(self.axes, intervals, self.coarsest, depths, strict=True)
            )
            for level in range(max(depths) + 1)
        )

    def nominal_shape(self, level: int) -> Shape:
        """The grid of a level wherever the field's own grid is finer.

        >>> Levels(Domain.periodic((1.0, 1.0)), (4, 4)).nominal_shape(1)
        (8, 8)
        """
        return self._points(2**level)

    def spacing(self, shape: Sequence[int]) -> float:
        """Geometric mean of the spacings of a grid over the axes."""
        product = math.prod([axis.spacing(n) for axis, n in zip(self.axes, shape, strict=True)])
        return product ** (1 / len(self.axes))

    def check(self, shape: Sequence[int]) -> Shape:
        """Intervals per axis, or an error that names sizes that work."""
        intervals = tuple(int(axis.placement.num_intervals(n)) for axis, n in zip(self.axes, shape, strict=True))
        good = ", ".join(str(self._points(2**level)) for level in range(2, 5))
        if any(n < base for n, base in zip(intervals, self.coarsest, strict=True)):
            raise ShapeError(
                f"expected at least {self._points(1)} points, the coarsest grid, got {tuple(shape)}; "
                f"take for example {good}, or a smaller `coarsest`"
            )
        stretches = [n / base for n, base in zip(intervals, self.coarsest, strict=True)]
        if max(stretches) > LARGEST_ANISOTROPY * min(stretches):
            raise ShapeError(
                f"expected spacings in the proportions of the coarsest grid {self.coarsest} up to a factor of "
                f"{LARGEST_ANISOTROPY:g}, got {tuple(shape)}; take for example {good}, or give `coarsest` per axis"
            )
        return intervals

    def _points(self, factor: int) -> Shape:
        return tuple(axis.placement.num_points(n * factor) for axis, n in zip(self.axes, self.coarsest, strict=True))


def coarsest_intervals(domain: Domain, shortest: int) -> Shape:
    """Intervals per axis in proportion to the sides, ``shortest`` along the shortest one.

    >>> coarsest_intervals(Domain.box((1.0, 2.5)), 4)
    (4, 10)
    """
    side = min(domain.lengths)
    return tuple(round(shortest * length / side) for length in domain.lengths)


def _depth(intervals: int, base: int) -> int:
    """The level whose place a grid takes."""
    level = 0
    while intervals > LARGEST_STRETCH * base * 2**level:
        level += 1
    return level
