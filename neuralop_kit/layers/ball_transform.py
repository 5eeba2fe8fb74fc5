"""Fourier transforms of functions on a ball, to the last digits and at any wavenumbers: integrated, never sampled.

For a profile ``f`` and a harmonic ``P`` of degree ``m`` in ``d`` dimensions, with ``q = R xi`` (Bochner, Hecke),

    integral_{|y|<R} f(|y|/R) P(y/|y|) exp(-2 pi i xi.y) dy
        = R^d (-i)^m (2 pi)^(d/2) P(q/|q|) integral_0^1 f(s) B(2 pi |q| s) s^(d-1) ds

where ``B(z) = J_(m+d/2-1)(z) / z^(d/2-1)``. The remaining integral is a function of ``|q|`` alone: Gauss-Legendre rules
on each smooth piece give it at Chebyshev nodes, a polynomial through these elsewhere.
"""

import math
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import gamma, jv, spherical_jn

from neuralop_kit.layers.kernel_bases import KernelBasis, Term
from neuralop_kit.layers.solid_harmonics import solid_harmonics

Array = NDArray[np.floating[Any]]


def ball_transform(basis: KernelBasis, q: Array) -> NDArray[np.complex128]:
    """Transforms of all functions of a basis at ``q = R xi``: ``(num_dims, *shape) -> (size, *shape)``.

    Each function is divided by ``|B| * root mean square over the ball B``, whatever the radius: the integral of its
    modulus is then at most 1, so that convolving with it never enlarges a bounded field.
    """
    num_dims, length = len(q), np.sqrt((q**2).sum(axis=0))
    direction = q / np.maximum(length, np.finfo(float).tiny)
    transforms = []
    for term in basis.terms(num_dims):
        radial = _radial(term, basis.breaks, num_dims, length.max())(length)
        factor = (-1j) ** term.degree * (2 * math.pi) ** (num_dims / 2)
        transforms += [factor * radial * harmonic for harmonic in solid_harmonics(term.degree, direction)]
    return np.stack(transforms)


def _radial(term: Term, breaks: tuple[float, ...], num_dims: int, longest: float) -> Chebyshev:
    """The integral over ``s``, for ``|q|`` up to ``longest``, divided by volume times root mean square."""
    # On an interval of length 2, a wave exp(i w t) takes a little more than w/2 Gauss or w Chebyshev nodes.
    phase = 2 * math.pi * longest
    s, weights = _gauss(breaks, 24 + math.ceil(0.35 * phase))
    profile, volume = term.profile(s), s ** (num_dims - 1)
    surface = 2 * math.pi ** (num_dims / 2) / gamma(num_dims / 2)
    scale = surface * math.sqrt((weights * profile**2 * volume).sum() / num_dims)

    def integral(length: Array) -> Array:
        waves = _waves(num_dims, term.degree, 2 * math.pi * np.multiply.outer(length, s))
        return np.asarray(waves @ (weights * profile * volume) / scale)

    return Chebyshev.interpolate(integral, 32 + math.ceil(0.6 * phase), domain=[0.0, max(longest, 1e-3)])


def _gauss(breaks: tuple[float, ...], count: int) -> tuple[Array, Array]:
    """Nodes and weights of the rules on all pieces."""
    nodes, weights = leggauss(math.ceil(count / (len(breaks) - 1)) + 16)
    start, half = np.array(breaks[:-1])[:, None], np.diff(breaks)[:, None] / 2
    return (start + half * (1 + nodes)).ravel(), (half * weights).ravel()


def _waves(num_dims: int, degree: int, z: Array) -> Array:
    """``J_(m+d/2-1)(z) / z^(d/2-1)``."""
    if num_dims == 2:
        return np.asarray(jv(degree, z))
    if num_dims == 1:
        return math.sqrt(2 / math.pi) * (np.sin(z) if degree else np.cos(z))
    return np.asarray(math.sqrt(2 / math.pi) * spherical_jn(degree, z))
