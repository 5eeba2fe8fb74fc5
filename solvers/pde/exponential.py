"""Exponential Runge-Kutta methods for u' = L u + N(u) with diagonal L: the stiff linear part costs nothing."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

Nonlinearity = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, Nonlinearity], Tensor]

# Below this size of z the closed forms cancel digits; the series needs NUM_TERMS terms for double precision there.
SERIES_RADIUS = 1.0
NUM_TERMS = 20


def phi(order: int, z: Tensor) -> Tensor:
    """phi functions of exponential integrators, elementwise, to about 1e-15.

        phi_0(z) = exp(z),     phi_k(z) = (phi_(k-1)(z) - 1/(k-1)!) / z,     phi_k(0) = 1/k!

    Args:
        order: k, at least 0.
        z: real or complex, any shape; use double precision.

    Source: Hochbruck and Ostermann (2010), Acta Numerica 19, eq. 2.10.

    >>> phi(1, torch.tensor([0.0, 1.0], dtype=torch.float64))
    tensor([1.0000, 1.7183], dtype=torch.float64)
    """
    if order == 0:
        return torch.exp(z)
    small = z.abs() < SERIES_RADIUS
    near, far = torch.where(small, z, 0.0), torch.where(small, 1.0, z)
    series = torch.zeros_like(z)
    for n in reversed(range(NUM_TERMS)):
        series = series * near + 1 / math.factorial(n + order)
    closed = torch.exp(far)
    for k in range(order):
        closed = (closed - 1 / math.factorial(k)) / far
    return torch.where(small, series, closed)


class ExponentialMethod(ABC):
    """A one-step method that is exact for ``N = 0``; leaves have no state."""

    order: int

    @abstractmethod
    def prepare(self, linear: Tensor, dt: float, dtype: torch.dtype) -> Step:
        """The step ``(u_hat, nonlinear) -> u_hat`` for one symbol and one step size.

        Args:
            linear: L, float64 or complex128, broadcastable over ``(channel, *modes)``.
            dt: step size.
            dtype: real dtype of the fields; coefficients are computed in double precision and rounded to it.
        """


class ETDRK2(ExponentialMethod):
    """Second order, two evaluations: for rough fields, where higher order does not pay.

        a  = e^z u + dt phi_1(z) N(u)
        u' = a + dt phi_2(z) (N(a) - N(u)),          z = dt L

    Source: Cox and Matthews (2002), J. Comput. Phys. 176, eq. 22.
    """

    order = 2

    def prepare(self, linear: Tensor, dt: float, dtype: torch.dtype) -> Step:
        """Coefficients for one symbol and step size."""
        z = dt * linear
        decay, first, second = (_rounded(c, dtype) for c in (phi(0, z), dt * phi(1, z), dt * phi(2, z)))

        def step(u: Tensor, nonlinear: Nonlinearity) -> Tensor:
            start = nonlinear(u)
            middle = decay * u + first * start
            return middle + second * (nonlinear(middle) - start)

        return step


class ETDRK4(ExponentialMethod):
    """Fourth order, four evaluations; the default.

        a  = e^(z/2) u + dt/2 phi_1(z/2) N(u)
        b  = e^(z/2) u + dt/2 phi_1(z/2) N(a)
        c  = e^(z/2) a + dt/2 phi_1(z/2) (2 N(b) - N(u))
        u' = e^z u + dt [(phi_1 - 3 phi_2 + 4 phi_3) N(u) + (2 phi_2 - 4 phi_3) (N(a) + N(b)) + (4 phi_3 - phi_2) N(c)]

    Source: Cox and Matthews (2002), eq. 26-29. Kassam and Trefethen (2005) evaluate the same coefficients by contour
    integrals; series near zero and closed forms elsewhere are as accurate and need no contour points.
    """

    order = 4

    def prepare(self, linear: Tensor, dt: float, dtype: torch.dtype) -> Step:
        """Coefficients for one symbol and step size."""
        z = dt * linear
        one, two, three = phi(1, z), phi(2, z), phi(3, z)
        coefficients = (
            phi(0, z / 2),
            dt / 2 * phi(1, z / 2),
            phi(0, z),
            dt * (one - 3 * two + 4 * three),
            dt * (2 * two - 4 * three),
            dt * (4 * three - two),
        )
        half_decay, half, decay, first, middle, last = (_rounded(c, dtype) for c in coefficients)

        def step(u: Tensor, nonlinear: Nonlinearity) -> Tensor:
            at_start = nonlinear(u)
            halfway = half_decay * u
            a = halfway + half * at_start
            at_a = nonlinear(a)
            at_b = nonlinear(halfway + half * at_a)
            at_c = nonlinear(half_decay * a + half * (2 * at_b - at_start))
            return decay * u + first * at_start + middle * (at_a + at_b) + last * at_c

        return step


def _rounded(coefficient: Tensor, dtype: torch.dtype) -> Tensor:
    return coefficient.to(dtype.to_complex() if coefficient.is_complex() else dtype)
