"""Order conditions of Runge-Kutta methods by rooted trees, from theory and without a table."""

import itertools
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

Tree = tuple["Tree", ...]


@cache
def trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with that many nodes; a tree is the sorted tuple of its branches."""
    if order == 1:
        return ((),)
    found = set()
    for sizes in partitions(order - 1):
        for branches in itertools.product(*[trees(size) for size in sizes]):
            found.add(tuple(sorted(branches)))
    return tuple(sorted(found))


def partitions(total: int, largest: int | None = None) -> list[tuple[int, ...]]:
    """Ways to write a number as a sum of falling terms."""
    if total == 0:
        return [()]
    top = min(total, largest or total)
    return [(first, *rest) for first in range(top, 0, -1) for rest in partitions(total - first, first)]


def size(tree: Tree) -> int:
    return 1 + sum(map(size, tree))


def density(tree: Tree) -> int:
    """gamma of the tree: the condition reads b . Phi(tree) = 1 / gamma(tree)."""
    return size(tree) * math.prod(map(density, tree))


def weights(tree: Tree, a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Phi of the tree, one number per stage."""
    value = np.ones(len(a))
    for branch in tree:
        value = value * (a @ weights(branch, a))
    return value


def residual(b: NDArray[np.float64], a: NDArray[np.float64], order: int, *, theta: float = 1.0) -> float:
    """The largest violation of the conditions with exactly that many nodes, for a solution at ``theta``."""
    return max(abs(b @ weights(tree, a) - theta**order / density(tree)) for tree in trees(order))
