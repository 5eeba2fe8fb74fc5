"""Tridiagonal systems against LAPACK, with gradients."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck

from neuralop_kit.solvers.tridiagonal import solve_tridiagonal


def system(n: int, batch: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n)
    lower, upper, rest, rhs = torch.rand(4, batch, n, dtype=torch.float64, generator=generator)
    # Barely dominant, as the Laplacian is.
    return -1e3 * lower, 1e3 * (lower + upper) + rest, -1e3 * upper, rhs


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 101])
def test_agrees_with_lapack(n):
    lower, diagonal, upper, rhs = system(n)
    x = solve_tridiagonal(lower, diagonal, upper, rhs)
    for i in range(3):
        bands = np.zeros((3, n))
        bands[0, 1:], bands[1], bands[2, :-1] = upper[i, :-1], diagonal[i], lower[i, 1:]
        expected = scipy.linalg.solve_banded((1, 1), bands, rhs[i].numpy())
        np.testing.assert_allclose(x[i].numpy(), expected, rtol=1e-10)


def test_gradients():
    inputs = tuple(u.requires_grad_() for u in system(5, batch=2))
    assert gradcheck(solve_tridiagonal, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(solve_tridiagonal, inputs, fast_mode=True)


def test_one_matrix_serves_many_right_hand_sides():
    lower, diagonal, upper, rhs = system(9)
    x = solve_tridiagonal(lower[0], diagonal[0], upper[0], rhs)
    assert torch.equal(x[1], solve_tridiagonal(lower[0], diagonal[0], upper[0], rhs[1]))
