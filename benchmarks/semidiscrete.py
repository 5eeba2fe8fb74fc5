"""Right-hand sides of differential equations on a grid, in numpy, for integrators of others: state to rate."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftfreq, fftn, ifftn

Array = NDArray[np.float64]
# Of a state (channel, *space).
Rate = Callable[[Array], Array]


class Periodic:
    """Derivatives by Fourier series, and products without the waves that do not fit (2/3 rule)."""

    def __init__(self, shape: Sequence[int], length: float) -> None:
        axes = [2 * math.pi / length * fftfreq(n, 1 / n) for n in shape]
        self.k = np.stack(np.meshgrid(*axes, indexing="ij"))
        self.laplacian = -(self.k**2).sum(axis=0)
        self._kept = np.all([abs(k) <= abs(k).max() * 2 / 3 for k in self.k], axis=0)

    def lap(self, u: Array) -> Array:
        """Laplacian of ``(*space)``."""
        return ifftn(self.laplacian * fftn(u)).real

    def d(self, u: Array, axis: int = 0) -> Array:
        """First derivative."""
        return ifftn(1j * self.k[axis] * fftn(u)).real

    def cut(self, u: Array) -> Array:
        """Without short waves."""
        return ifftn(self._kept * fftn(u)).real


def advection(shape: Sequence[int]) -> Rate:
    """``u_t = -u_x`` on (0, 1)."""
    grid = Periodic(shape, 1.0)
    return lambda u: -grid.d(u[0])[None]


def wave(shape: Sequence[int]) -> Rate:
    """``u_tt = u_xx`` on (0, 1)."""
    grid = Periodic(shape, 1.0)
    return lambda u: np.stack([u[1], grid.lap(u[0])])


def burgers(shape: Sequence[int]) -> Rate:
    """``u_t = 0.01 u_xx - (u^2/2)_x`` on (0, 1)."""
    grid = Periodic(shape, 1.0)
    return lambda u: (0.01 * grid.lap(u[0]) - grid.d(grid.cut(u[0] ** 2 / 2)))[None]


def kuramoto_sivashinsky(shape: Sequence[int]) -> Rate:
    """``u_t = -u_x^2/2 - u_xx - u_xxxx`` on (0, 60)."""
    grid = Periodic(shape, 60.0)
    return lambda u: (-grid.cut(grid.d(u[0]) ** 2) / 2 - grid.lap(u[0]) - grid.lap(grid.lap(u[0])))[None]


def allen_cahn(shape: Sequence[int]) -> Rate:
    """``u_t = 0.005 Lap u + u - u^3`` on (0, 2 pi)^2."""
    grid = Periodic(shape, 2 * math.pi)
    return lambda u: (0.005 * grid.lap(u[0]) + u[0] - grid.cut(u[0] ** 3))[None]


def fisher(shape: Sequence[int]) -> Rate:
    """``u_t = 0.5 u_xx + u (1 - u)`` on (0, 1)."""
    grid = Periodic(shape, 1.0)
    return lambda u: (0.5 * grid.lap(u[0]) + u[0] - grid.cut(u[0] ** 2))[None]


def navier_stokes(shape: Sequence[int]) -> Rate:
    """The FNO paper's forced vorticity, viscosity 1e-3, on the unit torus."""
    grid = Periodic(shape, 1.0)
    inverse = np.where(grid.laplacian < 0, -1 / np.where(grid.laplacian < 0, grid.laplacian, 1), 0.0)
    x, y = np.meshgrid(*[np.arange(n) / n for n in shape], indexing="ij")
    force = 0.1 * (np.sin(2 * math.pi * (x + y)) + np.cos(2 * math.pi * (x + y)))

    def rate(w: Array) -> Array:
        stream = ifftn(inverse * fftn(w[0])).real
        transport = grid.d(stream, 1) * grid.d(w[0], 0) - grid.d(stream, 0) * grid.d(w[0], 1)
        return (1e-3 * grid.lap(w[0]) - grid.cut(transport) + force)[None]

    return rate


def diffusion_sorption(shape: Sequence[int]) -> Rate:
    """``R(c) c_t = 5e-4 c_xx`` on (0, 1): c = 1 at the left wall, ``c + 5e-4 c_x = 0`` at the right one."""
    h, d = 1 / shape[0], 5e-4
    strength = (1 - 0.29) / 0.29 * 2880.0 * 3.5e-4 * 0.874

    def rate(u: Array) -> Array:
        c = u[0]
        padded = np.concatenate([[2 - c[0]], c, [(2 * d - h) / (2 * d + h) * c[-1]]])
        retardation = 1 + strength * (np.maximum(c, 0) + 1e-6) ** (0.874 - 1)
        return (d * np.diff(padded, n=2) / h**2 / retardation)[None]

    return rate
