"""Functions on the unit ball of which local kernels are made: profiles along the radius times angular harmonics."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_jacobi

from neuralop_kit.layers.solid_harmonics import MAX_DEGREE, num_harmonics
from neuralop_kit.registry import register_component
from neuralop_kit.solvers.errors import ArgumentError

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Term:
    """One profile and all harmonics of one degree.

    Args:
        profile: function of the distance ``s`` from the centre, 0 to 1 at the rim.
        degree: of the harmonics; the profile vanishes at 0 unless this is 0.
    """

    profile: Callable[[Array], Array]
    degree: int


@dataclass(frozen=True)
class KernelBasis(ABC):
    """Functions ``f(|y|/R) P(y/|y|)`` on a ball of radius ``R``, with profiles ``f`` and angular harmonics ``P``.

    In one dimension the harmonics are 1 and the sign, in two cosines and sines, in three the spherical harmonics.
    Leaves are plain values, registered by ``register_component``; they know neither a radius nor a grid.
    """

    @abstractmethod
    def terms(self, num_dims: int) -> tuple[Term, ...]:
        """The profiles and their degrees."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Distances at which profiles have kinks, from 0 to 1."""
        return (0.0, 1.0)

    def size(self, num_dims: int) -> int:
        """Number of functions.

        >>> [PiecewiseLinear(3, 1).size(d) for d in (1, 2, 3)]
        [5, 7, 9]
        """
        return sum(num_harmonics(term.degree, num_dims) for term in self.terms(num_dims))

    def _check(self, degree: int, **counts: int) -> None:
        """Refuse what has no function or no harmonic."""
        if not 0 <= degree <= MAX_DEGREE or min(counts.values(), default=1) < 1:
            raise ArgumentError(
                f"expected positive counts and degrees from 0 to {MAX_DEGREE}, got {counts} and {degree}; "
                "three rings and degree 1 are a good start"
            )


def _highest(degree: int, num_dims: int) -> int:
    """A line has two directions only: even and odd functions."""
    return min(degree, 1) if num_dims == 1 else degree


@register_component("piecewise_linear_basis")
@dataclass(frozen=True)
class PiecewiseLinear(KernelBasis):
    """Rings of hats along the radius, zero at the rim, times the harmonics up to a degree; the centre has one hat.

        f_j(s) = max(0, 1 - |n s - j|),    j = 0..n-1

    Kernels are continuous; on a line they are all piecewise linear functions with ``2 n - 1`` inner nodes.

    Args:
        num_rings: ``n``, at least 1.
        degree: of the harmonics, 0 (isotropic) to 3.
    """

    num_rings: int = 3
    degree: int = 1

    def __post_init__(self) -> None:
        self._check(self.degree, num_rings=self.num_rings)

    @property
    def breaks(self) -> tuple[float, ...]:
        """The nodes of the hats."""
        return tuple(j / self.num_rings for j in range(self.num_rings + 1))

    def terms(self, num_dims: int) -> tuple[Term, ...]:
        """The centre, then the rings, each with all degrees."""
        degrees = range(_highest(self.degree, num_dims) + 1)
        rings = [Term(partial(_hat, self.num_rings, j), m) for j in range(1, self.num_rings) for m in degrees]
        return (Term(partial(_hat, self.num_rings, 0), 0), *rings)


@register_component("zernike_basis")
@dataclass(frozen=True)
class Zernike(KernelBasis):
    """Polynomials that are orthogonal on the ball, up to a total degree, times a power that vanishes at the rim.

        f_nm(s) = (1 - s^2)^q  s^m  P_k^(2q, m + d/2 - 1)(2 s^2 - 1),     n = m + 2 k

    with Jacobi polynomials ``P``. ``q = 0`` gives the Zernike polynomials on the disk and Legendre's on a line: they do
    not vanish at the rim, and kernels jump there.

    Args:
        degree: highest total degree ``n``, 0 to 3.
        rim: ``q``, 0 or larger.

    Source: Zernike (1934); Jacobi polynomials by scipy.
    """

    degree: int = 2
    rim: int = 1

    def __post_init__(self) -> None:
        self._check(self.degree, rim=self.rim + 1)

    def terms(self, num_dims: int) -> tuple[Term, ...]:
        """All pairs of total degree and harmonic degree of equal parity."""
        pairs = [(n, m) for n in range(self.degree + 1) for m in range(n % 2, n + 1, 2)]
        chosen = [(n, m) for n, m in pairs if m <= 1 or num_dims > 1]
        return tuple(Term(partial(_zernike, n, m, self.rim, num_dims), m) for n, m in chosen)


@register_component("morlet_basis")
@dataclass(frozen=True)
class Morlet(KernelBasis):
    """Waves along the radius under a smooth window, times the harmonics up to a degree.

        f_jm(s) = cos(pi s / 2)^2  s^m  cos(pi j s),    j = 0..num_waves-1

    The window has a continuous slope at the rim, so kernels hardly see anything beyond the grid's own wavenumbers.

    Args:
        num_waves: at least 1.
        degree: of the harmonics, 0 (isotropic) to 3.
    """

    num_waves: int = 2
    degree: int = 1

    def __post_init__(self) -> None:
        self._check(self.degree, num_waves=self.num_waves)

    def terms(self, num_dims: int) -> tuple[Term, ...]:
        """All waves with all degrees."""
        degrees = range(_highest(self.degree, num_dims) + 1)
        return tuple(Term(partial(_wave, j, m), m) for j in range(self.num_waves) for m in degrees)


def _hat(num_rings: int, j: int, s: Array) -> Array:
    return np.maximum(0.0, 1.0 - np.abs(num_rings * s - j))


def _zernike(n: int, m: int, rim: int, num_dims: int, s: Array) -> Array:
    jacobi = eval_jacobi((n - m) // 2, 2 * rim, m + num_dims / 2 - 1, 2 * s**2 - 1)
    return np.asarray((1 - s**2) ** rim * s**m * jacobi)


def _wave(j: int, m: int, s: Array) -> Array:
    return np.cos(math.pi * s / 2) ** 2 * s**m * np.cos(math.pi * j * s)
