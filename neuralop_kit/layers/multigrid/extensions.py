"""How a function goes on beyond the ends of an axis: the boundary condition, one ghost value per end."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Axis


class Extension(ABC):
    """A rule for the ghost value next to each end of an axis; leaves have no state."""

    # A ghost value of zero comes free with the padding of a convolution.
    is_zero = False
    # How many points at each end the ghost values depend on.
    depth = 1
    # The ghost value over the nearest one, if that is all it depends on; 0 if not.
    nearest = 0

    @abstractmethod
    def below(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """The value before the first point, from the first and the last ``depth`` points, each in rising order."""

    @abstractmethod
    def above(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """The value behind the last point."""

    def extend(self, u: Tensor, dim: int, *, before: bool = True, after: bool = True) -> Tensor:
        """``u`` with its ghost values along ``dim``."""
        if not (before or after):
            return u
        size, depth = u.shape[dim], self.depth
        if size >= 2 * depth:
            # Split once: the gradient of a slice would be a field of zeros for each.
            parts = list(u.split([1] * depth + [size - 2 * depth] + [1] * depth, dim))
            first, last = parts[:depth], parts[-depth:]
        else:
            parts = [u]
            first = [u.narrow(dim, min(i, size - 1), 1) for i in range(depth)]
            last = [u.narrow(dim, max(size - depth + i, 0), 1) for i in range(depth)]
        below = [self.below(first, last)] if before else []
        above = [self.above(first, last)] if after else []
        return torch.cat([*below, *parts, *above], dim)

    def __repr__(self) -> str:
        return type(self).__name__


class Periodic(Extension):
    """The other end follows."""

    def below(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """The last value."""
        return last[-1]

    def above(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """The first value."""
        return first[0]


class EvenAboutNode(Extension):
    """Zero slope at a wall that is a point: the second value again."""

    depth = 2

    def below(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """The second value."""
        return first[1]

    def above(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """The last but one."""
        return last[0]


class EvenAboutFace(Extension):
    """Zero slope at a wall half a spacing away: the first value again."""

    nearest = 1

    def below(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """The first value."""
        return first[0]

    def above(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """The last value."""
        return last[-1]


class OddAboutNode(Extension):
    """Zero at a wall one spacing away: the wall's own value."""

    is_zero = True

    def below(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """Zeros."""
        return torch.zeros_like(first[0])

    def above(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """Zeros."""
        return torch.zeros_like(last[-1])


class OddAboutFace(Extension):
    """Zero at a wall half a spacing away: minus the first value."""

    nearest = -1

    def below(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """Minus the first value."""
        return -first[0]

    def above(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """Minus the last value."""
        return -last[-1]


class Straight(Extension):
    """No condition: the line through the last two values, as exact as linear interpolation; constant from one point."""

    depth = 2

    def below(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """Extrapolated from the first two."""
        return 2 * first[0] - first[1]

    def above(self, first: Sequence[Tensor], last: Sequence[Tensor]) -> Tensor:
        """Extrapolated from the last two."""
        return 2 * last[-1] - last[0]


EXTENSIONS: dict[tuple[str, str], Extension] = {
    ("periodic", "left"): Periodic(),
    ("periodic", "cell"): Periodic(),
    ("dirichlet", "interior"): OddAboutNode(),
    ("dirichlet", "cell"): OddAboutFace(),
    ("neumann", "vertex"): EvenAboutNode(),
    ("neumann", "cell"): EvenAboutFace(),
}


def extension_of(axis: Axis) -> Extension:
    """The rule of an axis; Dirichlet axes with points on the walls are handled on their interior points."""
    return EXTENSIONS[axis.boundary, axis.nodes]


def free_extension_of(axis: Axis) -> Extension:
    """The rule for functions that obey no condition at walls."""
    return EXTENSIONS[axis.boundary, axis.nodes] if axis.is_periodic else Straight()
