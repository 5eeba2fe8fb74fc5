"""Legendre transforms of functions on a spherical cap: integrated, never sampled."""

import math
from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss, legvander
from numpy.typing import NDArray

from neuralop_kit.layers.kernel_bases import KernelBasis

Array = NDArray[np.floating[Any]]


def cap_transform(basis: KernelBasis, angle: float, num_degrees: int) -> Array:
    """What convolving with each profile of a basis does to each degree, ``(size, num_degrees)``.

        k_l = 2 pi integral_0^R f(theta / R) P_l(cos theta) sin(theta) d theta

    divided by area times root mean square over the cap: convolving never enlarges a bounded field (Funk, Hecke).

    Args:
        basis: of isotropic functions only.
        angle: ``R``, from the centre of the cap to its rim, in radians, at most pi.
        num_degrees: ``l < num_degrees``.
    """
    # P_l oscillates like cos(l theta): a little more than half a node per radian, on each piece.
    nodes, weights = leggauss(24 + math.ceil(0.6 * angle * num_degrees))
    ends = np.array(basis.breaks) * angle
    half = np.diff(ends)[:, None] / 2
    theta = (ends[:-1, None] + half * (1 + nodes)).ravel()
    area = (half * weights).ravel() * np.sin(theta) * 2 * math.pi
    profiles = np.stack([term.profile(theta / angle) for term in basis.terms(2)])
    scale = np.sqrt((profiles**2 @ area) * area.sum())
    return np.asarray((profiles * area) @ legvander(np.cos(theta), num_degrees - 1) / scale[:, None])
