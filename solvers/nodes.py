"""Where the points of a uniform grid sit in an interval, and how much of it each of them stands for."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import DomainError

Device = torch.device | str | None


class NodePlacement(ABC):
    """A rule that puts ``num_points`` equidistant points into an interval; leaves have no state and compare by class.

    Every rule is affine: point ``i`` sits at ``start + (i + offset) * spacing``.
    """

    name: str
    offset: float
    min_points: int = 1

    @abstractmethod
    def num_intervals(self, num_points: int) -> int:
        """Number of spacings that make up the whole interval."""

    @abstractmethod
    def num_points(self, num_intervals: int) -> int:
        """Inverse of :meth:`num_intervals`."""

    @abstractmethod
    def end_weights(self, num_points: int) -> tuple[float, float]:
        """Quadrature weight of the first and the last point, in spacings; every other point weighs 1."""

    def spacing(self, length: float, num_points: int) -> float:
        """Distance of neighbouring points."""
        self.check(num_points)
        return length / self.num_intervals(num_points)

    def positions(self, length: float, num_points: int, *, device: Device = None) -> Tensor:
        """Distances of the points from the start of the interval, float64, shape ``(num_points,)``."""
        step = self.spacing(length, num_points)
        return (torch.arange(num_points, dtype=torch.float64, device=device) + self.offset) * step

    def weights(self, length: float, num_points: int, *, device: Device = None) -> Tensor:
        """Quadrature weights, float64, shape ``(num_points,)``: they sum to ``length``, the error is O(spacing^2)."""
        step = self.spacing(length, num_points)
        weights = torch.full((num_points,), step, dtype=torch.float64, device=device)
        first, last = self.end_weights(num_points)
        if num_points == 1:
            return weights * first
        weights[0] *= first
        weights[-1] *= last
        return weights

    def refine(self, num_points: int, factor: int = 2) -> int:
        """Number of points of the grid with spacing ``h / factor``."""
        return self.num_points(self.num_intervals(num_points) * factor)

    def coarsen(self, num_points: int, factor: int = 2) -> int:
        """Number of points of the grid with spacing ``h * factor``; inverse of :meth:`refine`."""
        intervals = self.num_intervals(num_points)
        if intervals % factor or self.num_points(intervals // factor) < self.min_points:
            below = self.num_points(max(intervals // factor, 1) * factor)
            above = self.num_points((intervals // factor + 1) * factor)
            raise DomainError(
                f"expected a number of points that coarsens by {factor} on {self.name!r} nodes, "
                f"got {num_points}; take {below} or {above}"
            )
        return self.num_points(intervals // factor)

    def common_nodes(self, num_coarse: int, num_fine: int) -> slice:
        """The points of the fine grid that are points of the coarse one, as a slice of the fine axis."""
        factor, rest = divmod(self.num_intervals(num_fine), self.num_intervals(num_coarse))
        # Point i of the coarse grid sits at (i + offset) * factor - offset of the fine one.
        start = self.offset * (factor - 1)
        if rest or factor < 1 or start != int(start):
            raise DomainError(
                f"expected nested grids on {self.name!r} nodes, got {num_coarse} and {num_fine} points; "
                f"refine {num_coarse} by {'an odd' if self.offset == 0.5 else 'an integer'} factor, "
                f"for example to {self.refine(num_coarse, 3)}"
            )
        start = int(start)
        return slice(start, start + (num_coarse - 1) * factor + 1, factor)

    def check(self, num_points: int) -> None:
        """Raise a :class:`DomainError` when the grid would be empty or degenerate."""
        if num_points < self.min_points:
            raise DomainError(
                f"expected at least {self.min_points} points on {self.name!r} nodes, got {num_points}; "
                "give the axis more points"
            )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Left(NodePlacement):
    """``N`` points ``i h`` with ``h = L/N``: the right end is left out, as it is the left end again."""

    name = "left"
    offset = 0.0

    def num_intervals(self, num_points: int) -> int:
        """``N``."""
        return num_points

    def num_points(self, num_intervals: int) -> int:
        """``N``."""
        return num_intervals

    def end_weights(self, num_points: int) -> tuple[float, float]:
        """All points weigh the same: the trapezoidal rule on a circle, spectrally accurate there."""
        return 1.0, 1.0


class Vertex(NodePlacement):
    """``N`` points ``i h`` with ``h = L/(N-1)``: both ends are points."""

    name = "vertex"
    offset = 0.0
    min_points = 2

    def num_intervals(self, num_points: int) -> int:
        """``N - 1``."""
        return num_points - 1

    def num_points(self, num_intervals: int) -> int:
        """One more than intervals."""
        return num_intervals + 1

    def end_weights(self, num_points: int) -> tuple[float, float]:
        """Trapezoidal rule."""
        return 0.5, 0.5


class Interior(NodePlacement):
    """``N`` points ``(i+1) h`` with ``h = L/(N+1)``: neither end is a point, the value there is known."""

    name = "interior"
    offset = 1.0

    def num_intervals(self, num_points: int) -> int:
        """``N + 1``."""
        return num_points + 1

    def num_points(self, num_intervals: int) -> int:
        """One fewer than intervals."""
        return num_intervals - 1

    def end_weights(self, num_points: int) -> tuple[float, float]:
        """The outer points also stand for the half cell at the wall: exact for linear functions, second order."""
        return (2.0, 2.0) if num_points == 1 else (1.5, 1.5)


class Cell(NodePlacement):
    """``N`` points ``(i + 1/2) h`` with ``h = L/N``: the centres of equal cells."""

    name = "cell"
    offset = 0.5

    def num_intervals(self, num_points: int) -> int:
        """``N``."""
        return num_points

    def num_points(self, num_intervals: int) -> int:
        """``N``."""
        return num_intervals

    def end_weights(self, num_points: int) -> tuple[float, float]:
        """Midpoint rule."""
        return 1.0, 1.0


PLACEMENTS: dict[str, NodePlacement] = {rule.name: rule for rule in (Left(), Vertex(), Interior(), Cell())}
