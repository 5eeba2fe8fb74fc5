"""Batched conjugate gradients: every item for itself, and every end of an iteration has its name."""

import pytest
import torch
from torch import Tensor

from neuralop_kit.solvers.conjugate_gradients import conjugate_gradients
from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError
from neuralop_kit.solvers.status import SolveInfo, Status


def systems(batch: int = 4, size: int = 12) -> tuple[Tensor, Tensor]:
    """Positive definite matrices of growing condition number, and right-hand sides."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(batch, size, size, generator=generator, dtype=torch.float64))[0]
    exponents = torch.linspace(0, 1, size, dtype=torch.float64) * torch.arange(batch).unsqueeze(-1)
    matrices = basis @ torch.diag_embed(10**exponents) @ basis.mT
    return (matrices + matrices.mT) / 2, torch.randn(batch, size, generator=generator, dtype=torch.float64)


def solve(matrices: Tensor, rhs: Tensor, **options) -> tuple[Tensor, SolveInfo]:
    diagonal = torch.diagonal(matrices, dim1=1, dim2=2)
    return conjugate_gradients(
        lambda v: (matrices @ v.unsqueeze(-1)).squeeze(-1), rhs, preconditioner=lambda r: r / diagonal, **options
    )


def test_solution_is_that_of_a_dense_solver():
    matrices, rhs = systems()
    x, info = solve(matrices, rhs, rtol=1e-13)
    torch.testing.assert_close(x, torch.linalg.solve(matrices, rhs), rtol=1e-9, atol=1e-9)
    assert info.converged.all()
    assert info.residual_norm.max() < 1e-10
    assert info.iterations[0] < info.iterations[-1], "the better conditioned item needs fewer iterations"


def test_items_stop_on_their_own():
    matrices, rhs = systems()
    x, info = solve(matrices, rhs)
    for i in range(4):
        alone, report = solve(matrices[i : i + 1], rhs[i : i + 1])
        assert report.iterations[0] == info.iterations[i]
        torch.testing.assert_close(alone[0], x[i], rtol=1e-12, atol=1e-12)


def test_looking_less_often_does_not_change_the_result():
    matrices, rhs = systems()
    x, info = solve(matrices, rhs, check_every=1)
    later, report = solve(matrices, rhs, check_every=7)
    assert torch.equal(x, later)
    assert torch.equal(info.iterations, report.iterations)


def test_energy_error_meets_the_tolerance_when_the_preconditioner_is_the_inverse():
    matrices, rhs = systems()
    inverse = torch.linalg.inv(matrices)
    noisy = inverse + 0.05 * torch.diag_embed(torch.diagonal(inverse, dim1=1, dim2=2))
    exact = torch.linalg.solve(matrices, rhs)
    for rtol in (1e-3, 1e-6):
        x, _ = conjugate_gradients(
            lambda v: (matrices @ v.unsqueeze(-1)).squeeze(-1),
            rhs,
            preconditioner=lambda r: (noisy @ r.unsqueeze(-1)).squeeze(-1),
            rtol=rtol,
        )
        error = x - exact
        energy = torch.einsum("bi,bij,bj->b", error, matrices, error) / torch.einsum("bi,bi->b", exact, rhs)
        assert (energy.sqrt() < 2 * rtol).all()


def test_zero_right_hand_side_needs_no_iteration():
    matrices, rhs = systems()
    rhs[1] = 0
    x, info = solve(matrices, rhs)
    assert x[1].abs().max() == 0
    assert info.iterations[1] == 0
    assert info.converged.all()
    assert info.residual_norm[1] == 0


def test_too_few_iterations_are_reported():
    matrices, rhs = systems()
    x, info = solve(matrices, rhs, max_iterations=3)
    assert info.status[-1] == Status.MAX_ITERATIONS
    assert info.iterations[-1] == 3
    assert x.isfinite().all()
    assert info.residual_norm[-1] > 1e-6
    with pytest.raises(ConvergenceError, match=r"expected all 4 items .*item 3: MAX_ITERATIONS"):
        info.raise_if_failed()


@pytest.mark.parametrize("kind", ["indefinite", "nan"])
def test_breakdown_is_reported_and_spares_the_neighbours(kind):
    matrices, rhs = systems()
    expected, _ = solve(matrices, rhs)
    bad = matrices.clone()
    bad[2] = -bad[2] if kind == "indefinite" else torch.nan
    diagonal = torch.diagonal(matrices, dim1=1, dim2=2)
    x, info = conjugate_gradients(
        lambda v: (bad @ v.unsqueeze(-1)).squeeze(-1), rhs, preconditioner=lambda r: r / diagonal
    )
    assert info.status.tolist() == [0, 0, Status.BREAKDOWN, 0]
    assert torch.equal(x[[0, 1, 3]], expected[[0, 1, 3]])


def test_converged_reports_raise_nothing():
    info = SolveInfo(torch.zeros(3, dtype=torch.int64), torch.ones(3), torch.zeros(3))
    info.raise_if_failed()
    assert info.converged.all()


@pytest.mark.parametrize("options", [{"rtol": 0.0}, {"rtol": float("nan")}, {"max_iterations": 0}])
def test_bad_arguments_are_refused(options):
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        solve(*systems(), **options)
