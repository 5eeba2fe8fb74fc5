"""Pseudo-inverse of a tridiagonal matrix times a vector, from some twenty linear systems: no eigenvector is formed.

    T^+ b = 1/(2 pi i) int 1/z (z - T)^-1 b dz        around the eigenvalues that are kept

The midpoint rule on a circle through the gap between dropped and kept values, in the coordinate in which it converges
fastest, is exact up to rounding after a number of points that grows like the logarithm of values per gap.
"""

import numpy as np
from scipy.linalg import lapack
from scipy.special import ellipj, ellipk, ellipkm1

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
ComplexArray = np.ndarray[tuple[int, ...], np.dtype[np.complex128]]

# Share of the threshold to which the values next to it are found.
_CLOSENESS = 1e-3
# Error of the midpoint rule.
_ERROR = 1e-15


def cut_inverse(diagonal: Array, beside: Array, b: Array, *, above: float) -> tuple[Array, int] | None:
    """``T^+ b`` with the eigenvalues above that part of the largest one, and their number.

    Args:
        diagonal, beside: of T, positive semi-definite up to rounding.
        b: the vector.
        above: in (0, 1); 16 times as much as rounding makes of a value of zero.

    Returns:
        None where a value is so close to the threshold that it takes all its digits to tell on which side it is, and
        for zero.
    """
    size = len(diagonal)
    bound = float(np.abs(diagonal).max() + 2 * np.abs(beside).max())
    largest = float(_values(diagonal, beside, size, size, 0.1 * _CLOSENESS * bound)[0])
    if not largest > 0.0:
        return None
    threshold = above * largest
    # With a tolerance as wide as all values they are counted, and not looked for.
    rank = int(lapack.dstebz(diagonal, beside, 1, threshold, 2 * bound, 1, 1, 4 * bound, "E")[0])
    if rank == size:
        return lapack.dptsv(diagonal, beside, b)[2], rank
    tolerance = _CLOSENESS * threshold
    last, first = _values(diagonal, beside, size - rank, size - rank + 1, tolerance)
    if not last + tolerance < threshold < first - tolerance:
        return None
    # A circle no nearer to zero than the kept values need: what b has there may be far larger, and is rounded.
    # Values of zero may have become negative ones.
    high = first - tolerance
    points, weights = _midpoints(max(last + tolerance, high / 4), high, 2 * largest)
    # All systems as one, with nothing beside the diagonal from one to the next.
    off = np.zeros((len(points), size), dtype=np.complex128)
    off[:, :-1] = beside
    off = off.ravel()[:-1]
    shifted, right = np.subtract.outer(-points, -diagonal), np.multiply.outer(weights, b)
    *_, x, status = lapack.zgtsv(off, shifted.ravel(), off, right.ravel(), overwrite_d=1, overwrite_b=1)
    return None if status else (x.real.reshape(len(points), size).sum(axis=0), rank)


def _values(diagonal: Array, beside: Array, first: int, last: int, tolerance: float) -> Array:
    """Some eigenvalues by bisection, counted from 1, ascending."""
    count, values, *_ = lapack.dstebz(diagonal, beside, 2, 0.0, 0.0, first, last, tolerance, "E")
    return values[:count]


def _midpoints(low: float, high: float, top: float) -> tuple[ComplexArray, ComplexArray]:
    """Points p and weights w: the real part of ``sum w / (x - p)`` is 1/x on [high, top] and 0 on [-low, low].

    A Moebius transform takes the two intervals to [k, 1] and [-1, -k]. There with the elliptic functions of modulus
    ``sqrt(1 - k^2)``

        sign x = 2/pi int_0^K' x / (x^2 + y^2) dy,    y = k sn(u) / cn(u),    0 < u < K'

    whose integrand is periodic and analytic in u to a distance K from the axis: n midpoints err by
    ``exp(-2 pi n K / K')``. As ``y(K' - u) = k / y(u)``, half of them give the others, where ``cn`` has lost digits.
    Source: Hale, Higham and Trefethen (2008).
    """
    ratio = (high + low) * (top - low) / ((high - low) * (top + low))
    k = 1 / (2 * ratio - 1 + 2 * (ratio * (ratio - 1)) ** 0.5)
    quarter, other = ellipk(k**2), ellipkm1(k**2)
    half = int(np.ceil(-np.log(_ERROR) * other / (4 * np.pi * quarter)))
    step = other / (2 * half)
    sn, cn, dn, _ = ellipj((np.arange(half) + 0.5) * step, 1 - k**2)
    y, slope = k * sn / cn, k * dn / cn**2
    y, slope = 1j * np.concatenate([y, k / y]), np.concatenate([slope, k * slope / y**2])
    # The inverse of the transform: the point, and how fast it goes with y.
    scale = (top - high) * (1 + k) / ((high + low) * (1 - k))
    image = (1 + y) / (1 - y)
    points = (image * top - scale * low) / (image + scale)
    speed = 2 * scale * (top + low) / ((image + scale) * (1 - y)) ** 2
    # Divided by the point, and not by x, nothing is divided by values of zero.
    return points, step / np.pi * slope * speed / points
