"""Coefficients of explicit Runge-Kutta pairs, in the form in which every one of them is first-same-as-last."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Row = tuple[float, ...]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class ExplicitTableau:
    """An explicit pair whose last stage is the slope at the end of the step.

        g_1 = y,  g_i = y + h * sum_{j<i} a_ij k_j,  k_i = f(t + c_i h, g_i)       i = 1 .. s
        y1 = g_s,  defect = h * sum_i error_i k_i,  y(theta) = y + h * sum_i sum_d dense_di theta^d k_i

    A method that is not first-same-as-last by nature gets the extra stage: it is the next step's first one, so that it
    costs nothing where steps are accepted, and it makes the stiffness estimate meaningful for every method.

    Args:
        order: of ``y1``.
        a: rows ``2 .. s``; the last one holds the weights ``b``.
        error: weights of the companion minus ``b``, one per stage; ``None`` for a method without a companion.
        dense: row ``d`` holds the coefficients of ``theta**(d + 1)``.
        stability_size: the largest ``h L`` for which ``y' = -L y`` decays.
    """

    order: int
    a: tuple[Row, ...]
    error: Row | None
    dense: tuple[Row, ...]
    stability_size: float

    @property
    def num_stages(self) -> int:
        """The number of stages, with the one that is the next step's first."""
        return len(self.a) + 1

    @property
    def b(self) -> Row:
        """Weights of ``y1``, one per stage."""
        return (*self.a[-1], 0.0)

    @property
    def c(self) -> Row:
        """Places of the stages in the step."""
        # A row that ends the step does so exactly: its slope is the next step's first.
        sums = [sum(row) for row in self.a]
        return (0.0, *(1.0 if abs(c - 1.0) < 1e-14 else c for c in sums))


def dense_from_slopes(b: Sequence[float]) -> tuple[Row, ...]:
    """The cubic through both ends of the step with the slopes there (Hermite), as a ``dense`` table; error ``h^4``.

    >>> dense_from_slopes((1.0, 0.0))
    ((1.0, 0.0), (1.0, -1.0), (-1.0, 1.0))
    """
    weights, first, last = _units(b)
    return _rows(first, 3 * weights - 2 * first - last, first + last - 2 * weights)


def dense_from_middle(b: Sequence[float], middle: Sequence[float]) -> tuple[Row, ...]:
    """The quartic through both ends with the slopes there and through ``y(1/2) = y + h * sum_i middle_i k_i``.

    Source: Shampine (1986), Math. Comp. 46, for the pair of Dormand and Prince.
    """
    weights, first, last = _units(b)
    m = np.asarray(middle)
    return _rows(
        first,
        last - 4 * first - 5 * weights + 16 * m,
        5 * first - 3 * last + 14 * weights - 32 * m,
        2 * (last - first) - 8 * weights + 16 * m,
    )


def _units(b: Sequence[float]) -> tuple[Matrix, Matrix, Matrix]:
    """``b`` and the weights that pick the first and the last slope."""
    eye = np.eye(len(b))
    return np.asarray(b), eye[0], eye[-1]


def _rows(*rows: Matrix) -> tuple[Row, ...]:
    return tuple(tuple(row.tolist()) for row in rows)
