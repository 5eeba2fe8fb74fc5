"""From coordinates in a file to an axis of a domain: which interval they fill, and where in it they sit."""

import math

import numpy as np

from neuralop_kit.datasets.readers.contents import Numbers
from neuralop_kit.solvers.domain import BOUNDARIES, Axis, Domain
from neuralop_kit.solvers.errors import DataError

# Coordinates are often float32 sums of a step.
TOLERANCE = 2e-3
PRECISION = 2e-5


def axis_from(coordinates: Numbers, *, boundary: str, nodes: str | None = None) -> Axis:
    """The interval of which ``coordinates`` are the nodes.

    Args:
        coordinates: equidistant, rising, at least two.
        boundary: as for :class:`Axis`.
        nodes: where they sit; when not known, the placement whose ends are the roundest numbers.

    Raises:
        DataError: the coordinates are not equidistant.

    >>> axis_from((np.arange(8) + 0.5) / 8, boundary="periodic")
    Axis(start=0.0, stop=1.0, boundary='periodic', nodes='cell')
    >>> axis_from(np.linspace(0, 1, 9), boundary="dirichlet")
    Axis(start=0.0, stop=1.0, boundary='dirichlet', nodes='vertex')
    """
    x = np.ravel(np.asarray(coordinates, dtype=np.float64))
    if len(x) < 2 or not np.isfinite(x).all():
        raise DataError(f"expected at least two finite coordinates, got {x[:8].tolist()}; state the domain")
    h = (x[-1] - x[0]) / (len(x) - 1)
    if not h > 0 or np.abs(np.diff(x) - h).max() > TOLERANCE * h + 1e-6 * np.abs(x).max():
        raise DataError(f"expected equidistant, rising coordinates, got {x[:4].tolist()} ...; state the domain")
    ends = {"cell": (x[0] - h / 2, x[-1] + h / 2), "left": (x[0], x[-1] + h), "vertex": (x[0], x[-1])}
    ends["interior"] = (x[0] - h, x[-1] + h)
    allowed = [nodes] if nodes else list(BOUNDARIES[boundary])
    best = min(allowed, key=lambda name: sum(_digits(end, ends[name][1] - ends[name][0]) for end in ends[name]))
    start, stop = (_rounded(end, ends[best][1] - ends[best][0]) for end in ends[best])
    return Axis(start, stop, boundary, best)


def unit_box(num_dims: int, *, boundary: str, nodes: str) -> Domain:
    """A box with sides of length one, for files that say nothing about space."""
    return Domain.box((1.0,) * num_dims, boundary=boundary, nodes=nodes)


def _digits(value: float, length: float) -> int:
    """Decimals that a number, or its multiple of pi, needs; up to seven."""
    return min(_decimals(value, length), _decimals(value / math.pi, length / math.pi))


def _decimals(value: float, length: float) -> int:
    for digits in range(7):
        if abs(value - round(value, digits)) <= PRECISION * length:
            return digits
    return 7


def _rounded(value: float, length: float) -> float:
    """The round number that a coordinate stands for, if it is one."""
    plain, in_pi = _decimals(value, length), _decimals(value / math.pi, length / math.pi)
    if min(plain, in_pi) > 4:
        return value
    return round(value, plain) if plain <= in_pi else math.pi * round(value / math.pi, in_pi)
