"""Flexible GMRES against dense solves, with preconditioners that no other Krylov method may have."""

import pytest
import torch

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.flexible_gmres import flexible_gmres
from neuralop_kit.solvers.status import Status


def systems(batch: int = 3, n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Nonsymmetric, well-conditioned."""
    matrices = torch.eye(n, dtype=torch.float64) + 0.5 * torch.randn(batch, n, n, dtype=torch.float64) / n**0.5
    return matrices, torch.randn(batch, n, dtype=torch.float64)


def apply(matrices: torch.Tensor):
    return lambda v: (matrices @ v[..., None]).squeeze(-1)


def test_equals_the_dense_solution_after_at_most_n_steps():
    matrices, rhs = systems()
    x, info = flexible_gmres(apply(matrices), rhs, rtol=1e-12)
    assert torch.allclose(x, torch.linalg.solve(matrices, rhs), atol=1e-10)
    assert info.converged.all()
    assert info.iterations.max() <= 12
    assert torch.allclose(info.residual_norm, (rhs - apply(matrices)(x)).norm(dim=1) / rhs.norm(dim=1), atol=1e-15)


def test_minimises_the_residual_over_the_krylov_space():
    matrices, rhs = systems(batch=1)
    powers = torch.stack([torch.linalg.matrix_power(matrices[0], k) @ rhs[0] for k in range(5)], dim=1)
    best = torch.linalg.lstsq(matrices[0] @ powers, rhs[0, :, None]).solution
    expected = (rhs[0] - (matrices[0] @ powers @ best)[:, 0]).norm() / rhs[0].norm()
    _, info = flexible_gmres(apply(matrices), rhs, rtol=1e-14, max_iterations=5)
    assert info.residual_norm.item() == pytest.approx(expected.item(), rel=1e-10)
    assert info.status.tolist() == [Status.MAX_ITERATIONS]


def test_restarts_and_a_nonlinear_preconditioner():
    matrices, rhs = systems(batch=2, n=40)

    def inner(residual):
        # A few steps of another iteration: not a linear map of the residual.
        return flexible_gmres(apply(matrices), residual, rtol=1e-1, max_iterations=3)[0]

    x, info = flexible_gmres(apply(matrices), rhs, preconditioner=inner, rtol=1e-11, restart=4)
    assert info.converged.all()
    assert torch.allclose(x, torch.linalg.solve(matrices, rhs), atol=1e-9)
    plain = flexible_gmres(apply(matrices), rhs, rtol=1e-11, restart=4)[1]
    assert (info.iterations < plain.iterations).all()


def test_a_batch_is_a_loop_over_its_items_and_a_broken_item_harms_nobody():
    matrices, rhs = systems(batch=4)
    matrices[1] = torch.eye(12)  # done after one step
    rhs[2] = 0.0
    rhs[3, 5] = torch.nan
    x, info = flexible_gmres(apply(matrices), rhs, rtol=1e-10, restart=5)
    for i in range(3):
        alone, report = flexible_gmres(apply(matrices[i : i + 1]), rhs[i : i + 1], rtol=1e-10, restart=5)
        assert torch.allclose(x[i], alone[0], rtol=0, atol=1e-13)
        assert report.iterations.item() == info.iterations[i].item()
    assert info.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.CONVERGED, Status.BREAKDOWN]
    assert info.iterations.tolist()[1:3] == [1, 0]


def test_singular_systems_are_not_called_solved():
    matrix = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))[None]
    _, info = flexible_gmres(apply(matrix), torch.tensor([[1.0, 1.0]], dtype=torch.float64), max_iterations=10)
    assert not info.converged.any()


@pytest.mark.parametrize("options", [{"rtol": 0.0}, {"restart": 0}, {"max_iterations": 0}])
def test_bad_arguments(options):
    with pytest.raises(ArgumentError, match="expected"):
        flexible_gmres(lambda v: v, torch.ones(1, 2), **options)
