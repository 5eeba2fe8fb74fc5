"""Homogeneous harmonic polynomials in one to three dimensions, with mean square one over all directions."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

MAX_DEGREE = 3


def num_harmonics(degree: int, num_dims: int) -> int:
    """How many there are of a degree.

    >>> [num_harmonics(2, d) for d in (1, 2, 3)]
    [0, 2, 5]
    """
    if degree == 0:
        return 1
    return {1: int(degree == 1), 2: 2, 3: 2 * degree + 1}[num_dims]


def solid_harmonics(degree: int, x: Array) -> list[Array]:
    """Values of all of one degree at points ``x`` of shape ``(num_dims, ...)``.

    Source: real spherical harmonics in Cartesian form, times sqrt(4 pi); cosines and sines of the angle, times sqrt(2).
    """
    if degree == 0:
        return [np.ones_like(x[0])]
    if len(x) == 1:
        return [x[0]]
    if len(x) == 2:
        power = math.sqrt(2) * (x[0] + 1j * x[1]) ** degree
        return [power.real, power.imag]
    return _IN_SPACE[degree](*x)


def _linear(x: Array, y: Array, z: Array) -> list[Array]:
    return [math.sqrt(3) * axis for axis in (x, y, z)]


def _quadratic(x: Array, y: Array, z: Array) -> list[Array]:
    mixed = [math.sqrt(15) * product for product in (x * y, y * z, z * x)]
    return [*mixed, math.sqrt(15) / 2 * (x**2 - y**2), math.sqrt(5) / 2 * (2 * z**2 - x**2 - y**2)]


def _cubic(x: Array, y: Array, z: Array) -> list[Array]:
    ring = 4 * z**2 - x**2 - y**2
    return [
        math.sqrt(7) / 2 * z * (2 * z**2 - 3 * x**2 - 3 * y**2),
        math.sqrt(42) / 4 * x * ring,
        math.sqrt(42) / 4 * y * ring,
        math.sqrt(105) / 2 * z * (x**2 - y**2),
        math.sqrt(105) * x * y * z,
        math.sqrt(70) / 4 * x * (x**2 - 3 * y**2),
        math.sqrt(70) / 4 * y * (3 * x**2 - y**2),
    ]


_IN_SPACE = {1: _linear, 2: _quadratic, 3: _cubic}
