"""Spherical harmonics on latitude-longitude grids, as two dense products per order and an FFT."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.layers.constants import constant

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class SphereTransform:
    """Coefficients of orthonormal spherical harmonics, from a field on a grid and back.

        u(theta, phi) = sum_{|m| <= l < num_degrees} u_lm P_lm(cos theta) e^(i m phi)

    with ``u_{l,-m}`` the conjugate of ``u_lm``, no Condon-Shortley phase. On Gauss latitudes the quadrature is exact
    for all degrees. On equiangular ones, Clenshaw-Curtis weights would be exact for half of them only; what is
    integrated instead is the trigonometric interpolant along the meridians, even or odd at the poles as the order is.
    Both are exact for fields made of the degrees that the grid carries. The functions are our own: a table made by
    torch-harmonics, of which they are a copy up to round-off, would break tracing and compiling.

    Args:
        grid: ``"equiangular"`` or ``"gauss"``, as in :class:`SphereDomain`.
        shape: latitudes and longitudes.
        num_degrees: degrees kept, from 0 on; at most :func:`carried_degrees`.
    """

    grid: str
    shape: tuple[int, int]
    num_degrees: int

    @property
    def num_orders(self) -> int:
        """Orders kept, from 0 on; the Nyquist order of an even number of longitudes is left out."""
        return min(self.num_degrees, (self.shape[1] + 1) // 2)

    def to_modes(self, u: Tensor) -> Tensor:
        """``(batch, channel, *shape) -> (order, degree, 2, batch, channel)``: real and imaginary parts."""
        waves = torch.view_as_real(torch.fft.rfft(u, norm="forward")[..., : self.num_orders])
        columns = waves.permute(3, 2, 4, 0, 1)
        table = _analysis(self.grid, self.shape[0], self.num_degrees, self.num_orders, u.dtype, u.device)
        return torch.bmm(table, columns.flatten(2)).unflatten(2, columns.shape[2:])

    def to_points(self, modes: Tensor) -> Tensor:
        """``(order, degree, 2, batch, channel) -> (batch, channel, *shape)``, from any number of orders."""
        modes = modes[: self.num_orders]
        table = _synthesis(self.grid, self.shape[0], self.num_degrees, len(modes), modes.dtype, modes.device)
        columns = torch.bmm(table, modes.flatten(2)).unflatten(2, modes.shape[2:])
        waves = torch.view_as_complex(columns.permute(3, 4, 1, 0, 2).contiguous())
        return torch.fft.irfft(waves, n=self.shape[1], norm="forward")


def carried_degrees(grid: str, num_latitudes: int) -> int:
    """How many degrees a grid carries, from 0 on."""
    return num_latitudes if grid == "gauss" else max(num_latitudes - 1, 1)


def mix_degrees(modes: Tensor, weight: Tensor) -> Tensor:
    """One real matrix per degree: ``(order, degree, 2, batch, in)`` times ``(degree, in, out)``."""
    rows = modes.transpose(0, 1)
    return torch.bmm(rows.flatten(1, 3), weight).unflatten(1, rows.shape[1:4]).transpose(0, 1)


def legendre(cosines: Array, num_degrees: int, num_orders: int) -> Array:
    """Associated Legendre functions ``P_lm``, shape ``(order, degree, point)``; zero where ``m > l``.

        P_lm = a_l (x P_{l-1,m} - P_{l-2,m} / a_{l-1}),      a_l^2 = (4 l^2 - 1) / (l^2 - m^2)

    Normalised so that ``P_lm e^(i m phi)`` has norm one on the sphere.
    """
    sines = np.sqrt((1 - cosines) * (1 + cosines))
    table = np.zeros((num_orders, num_degrees, len(cosines)))
    highest = np.full(len(cosines), (4 * math.pi) ** -0.5)
    for degree in range(num_degrees):
        below = min(degree, num_orders)
        if degree:
            table[:below, degree] = _step(degree, below) * cosines * table[:below, degree - 1]
            highest = highest * sines * math.sqrt((2 * degree + 1) / (2 * degree))
        if degree > 1:
            before = min(degree - 1, num_orders)
            ratio = _step(degree, below)[:before] / _step(degree - 1, before)
            table[:before, degree] -= ratio * table[:before, degree - 2]
        if degree < num_orders:
            table[degree, degree] = highest
    return table


def _step(degree: int, num_orders: int) -> Array:
    """``a_l`` for orders below the degree, as a column."""
    orders = np.arange(num_orders, dtype=np.float64)
    return np.sqrt((4 * degree**2 - 1) / (degree**2 - orders**2))[:, None]


def _latitudes(grid: str, num_latitudes: int) -> Array:
    """Colatitudes, from the north pole."""
    if grid == "gauss":
        return np.arccos(np.polynomial.legendre.leggauss(num_latitudes)[0][::-1])
    return np.linspace(0, math.pi, num_latitudes)


@constant
def _synthesis(grid: str, num_latitudes: int, num_degrees: int, num_orders: int) -> Array:
    """``(order, latitude, degree)``."""
    return legendre(np.cos(_latitudes(grid, num_latitudes)), num_degrees, num_orders).transpose(0, 2, 1)


@constant
def _analysis(grid: str, num_latitudes: int, num_degrees: int, num_orders: int) -> Array:
    """``(order, degree, latitude)``: integrals over the meridian of ``2 pi P_lm`` times the cardinal functions."""
    num_nodes = num_latitudes if grid == "gauss" else 2 * num_latitudes
    cosines, weights = np.polynomial.legendre.leggauss(num_nodes)
    nodes = np.arccos(cosines[::-1])
    table = 2 * math.pi * weights[::-1] * legendre(cosines[::-1], num_degrees, num_orders)
    if grid == "gauss":
        return table
    folded = np.empty((num_orders, num_degrees, num_latitudes))
    theta = _latitudes(grid, num_latitudes)
    even = np.arange(num_latitudes)
    folded[::2] = table[::2] @ _interpolation(np.cos(np.outer(nodes, even)), np.cos(np.outer(theta, even)))
    # Odd orders vanish at the poles, and a sine series needs no value there.
    odd = np.arange(1, num_latitudes - 1)
    folded[1::2] = 0.0
    folded[1::2, :, 1:-1] = table[1::2] @ _interpolation(
        np.sin(np.outer(nodes, odd)), np.sin(np.outer(theta[1:-1], odd))
    )
    return folded


def _interpolation(at_nodes: Array, at_points: Array) -> Array:
    """Values at nodes from values at points, of a series given at both."""
    return np.linalg.solve(at_points.T, at_nodes.T).T
