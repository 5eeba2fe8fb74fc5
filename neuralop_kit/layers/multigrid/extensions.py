"""How a function goes on beyond the ends of an axis: the boundary condition, one ghost value per end."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Axis


class Extension(ABC):
    """A rule for the ghost value next to each end of an axis; leaves have no state."""

    # A ghost value of zero comes free with the padding of a convolution.
    is_zero = False

    @abstractmethod
    def below(self, u: Tensor, dim: int) -> Tensor:
        """Values one spacing before the first point, size 1 along ``dim``."""

    @abstractmethod
    def above(self, u: Tensor, dim: int) -> Tensor:
        """Values one spacing behind the last point, size 1 along ``dim``."""

    def extend(self, u: Tensor, dim: int, *, before: bool = True, after: bool = True) -> Tensor:
        """``u`` with its ghost values."""
        parts = [self.below(u, dim)] if before else []
        parts.append(u)
        if after:
            parts.append(self.above(u, dim))
        return torch.cat(parts, dim) if len(parts) > 1 else u

    def __repr__(self) -> str:
        return type(self).__name__


class Periodic(Extension):
    """The other end follows."""

    def below(self, u: Tensor, dim: int) -> Tensor:
        """The last value."""
        return u.narrow(dim, u.shape[dim] - 1, 1)

    def above(self, u: Tensor, dim: int) -> Tensor:
        """The first value."""
        return u.narrow(dim, 0, 1)


class EvenAboutNode(Extension):
    """Zero slope at a wall that is a point: the second value again."""

    def below(self, u: Tensor, dim: int) -> Tensor:
        """The second value."""
        return u.narrow(dim, 1, 1)

    def above(self, u: Tensor, dim: int) -> Tensor:
        """The last but one."""
        return u.narrow(dim, u.shape[dim] - 2, 1)


class EvenAboutFace(Extension):
    """Zero slope at a wall half a spacing away: the first value again."""

    def below(self, u: Tensor, dim: int) -> Tensor:
        """The first value."""
        return u.narrow(dim, 0, 1)

    def above(self, u: Tensor, dim: int) -> Tensor:
        """The last value."""
        return u.narrow(dim, u.shape[dim] - 1, 1)


class OddAboutNode(Extension):
    """Zero at a wall one spacing away: the wall's own value."""

    is_zero = True

    def below(self, u: Tensor, dim: int) -> Tensor:
        """Zeros."""
        return torch.zeros_like(u.narrow(dim, 0, 1))

    def above(self, u: Tensor, dim: int) -> Tensor:
        """Zeros."""
        return torch.zeros_like(u.narrow(dim, 0, 1))


class OddAboutFace(Extension):
    """Zero at a wall half a spacing away: minus the first value."""

    def below(self, u: Tensor, dim: int) -> Tensor:
        """Minus the first value."""
        return -u.narrow(dim, 0, 1)

    def above(self, u: Tensor, dim: int) -> Tensor:
        """Minus the last value."""
        return -u.narrow(dim, u.shape[dim] - 1, 1)


class Straight(Extension):
    """No boundary condition: the straight line through the last two values, as exact as linear interpolation is."""

    def below(self, u: Tensor, dim: int) -> Tensor:
        """Extrapolated from the first two; a single point is continued as a constant."""
        first = u.narrow(dim, 0, 1)
        return 2 * first - u.narrow(dim, 1, 1) if u.shape[dim] > 1 else first

    def above(self, u: Tensor, dim: int) -> Tensor:
        """Extrapolated from the last two."""
        last = u.narrow(dim, u.shape[dim] - 1, 1)
        return 2 * last - u.narrow(dim, u.shape[dim] - 2, 1) if u.shape[dim] > 1 else last


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
    """The rule for right-hand sides, which obey no condition at walls."""
    return EXTENSIONS[axis.boundary, axis.nodes] if axis.is_periodic else Straight()
