"""phi functions and exponential Runge-Kutta methods on scalar problems."""

import itertools
import math

import pytest
import torch

from neuralop_kit.solvers.pde import ETDRK2, ETDRK4
from neuralop_kit.solvers.pde.exponential import phi


def exact_phi(order: int, z: complex) -> complex:
    """Integral form, phi_k(z) = 1/(k-1)! integral of exp((1-s) z) s^(k-1) on (0, 1), by Gauss-Legendre quadrature."""
    if order == 0:
        return complex(torch.exp(torch.tensor(z, dtype=torch.complex128)))
    nodes, weights = (torch.tensor(a, dtype=torch.complex128) for a in gauss_legendre(80))
    s = (nodes + 1) / 2
    return complex((weights / 2 * torch.exp((1 - s) * z) * s ** (order - 1)).sum() / math.factorial(order - 1))


def gauss_legendre(count: int):
    import numpy as np

    return np.polynomial.legendre.leggauss(count)


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("z", [0, 1e-12, -1e-3, 0.5, -0.999, -1.001, 1.5j, -0.3 + 0.9j, -2 + 3j, -20.0, -30 + 5j, 3.0])
def test_phi_is_the_integral(order, z):
    value = complex(phi(order, torch.tensor(z, dtype=torch.complex128)))
    expected = exact_phi(order, complex(z))
    assert abs(value - expected) <= 4e-15 * max(abs(expected), 1e-1)


def test_closed_form_alone_would_lose_most_digits():
    # Negative control: near zero the closed form of phi_3 loses most of its digits.
    z = torch.tensor(1e-6, dtype=torch.float64)
    closed = ((torch.expm1(z) / z - 1) / z - 0.5) / z
    assert abs(closed.item() - 1 / 6) > 1e-5
    assert abs(phi(3, z).item() - 1 / 6 - 1e-6 / 24) < 1e-14


@pytest.mark.parametrize("method", [ETDRK2(), ETDRK4()])
def test_order_on_a_stiff_logistic_equation(method):
    # u' = -20 u + 20 u (2 - u): logistic growth with rate 20 after splitting; u = 1 / (1 + c exp(-20 t)).
    linear, start, end = torch.tensor(-20.0, dtype=torch.float64), 0.2, 0.3
    exact = 1 / (1 + (1 / start - 1) * math.exp(-20 * end))
    errors = []
    for count in (40, 80, 160, 320):
        step = method.prepare(linear, end / count, torch.float64)
        u = torch.tensor(start, dtype=torch.float64)
        for _ in range(count):
            u = step(u, lambda v: 20 * v * (2 - v))
        errors.append(abs(u.item() - exact))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders[-1] == pytest.approx(method.order, abs=0.15), (orders, errors)


@pytest.mark.parametrize("method", [ETDRK2(), ETDRK4()])
def test_constant_source_is_integrated_exactly(method):
    # u' = L u + 1 from 0: u = (exp(L t) - 1) / L, in one step of any length.
    linear = torch.tensor([-1000.0, -1.0, -1e-9, 2j], dtype=torch.complex128)
    step = method.prepare(linear, 0.7, torch.float64)
    u = step(torch.zeros(4, dtype=torch.complex128), torch.ones_like)
    expected = torch.tensor([exact_phi(1, 0.7 * complex(z)) * 0.7 for z in linear[1:]], dtype=torch.complex128)
    torch.testing.assert_close(u[1:], expected, rtol=1e-14, atol=1e-14)
    assert abs(u[0].item() - 1e-3) < 1e-15
