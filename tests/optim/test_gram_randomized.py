"""The randomised engine: exact on low ranks, near the truncated step on falling spectra, a few passes only."""

import pytest
import torch
from torch import nn

from neuralop_kit.optim import BatchedVJP, Randomized, Sven
from neuralop_kit.optim.gram.control import FixedStep
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.optimizer import OptimizerContract, Problem
from tests.optim.test_gram_memory import Once


class TestSvenWithRandomized(OptimizerContract):
    step_kind = "residual"
    lr = 1.0

    def make(self, groups, lr, **options):
        return Sven(groups, lr, max_rank=10, engine=Randomized(10), **options)


def falling_spectrum(num_rows: int, num_columns: int, decay: float) -> torch.Tensor:
    u, v = (torch.linalg.qr(torch.randn(n, 12, dtype=torch.float64)).Q for n in (num_rows, num_columns))
    return u @ torch.diag(decay ** torch.arange(12, dtype=torch.float64)) @ v.T


def step(matrix: torch.Tensor, engine, max_rank: int) -> tuple[torch.Tensor, Sven]:
    weight = nn.Parameter(torch.zeros(matrix.shape[1], dtype=torch.float64))
    target = torch.ones(len(matrix), dtype=torch.float64)
    optimizer = Sven([weight], lr=1.0, rtol=1e-9, max_rank=max_rank, engine=engine, control=FixedStep())
    optimizer.step(lambda: matrix @ weight - target)
    return weight.detach(), optimizer


@pytest.mark.parametrize("shape", [(40, 25), (25, 40)])
def test_exact_when_the_jacobian_has_low_rank(shape):
    matrix = falling_spectrum(*shape, decay=0.5)
    weight, optimizer = step(matrix, Randomized(12), 12)
    expected = torch.linalg.pinv(matrix, rtol=1e-9) @ torch.ones(shape[0], dtype=torch.float64)
    torch.testing.assert_close(weight, expected, rtol=1e-9, atol=1e-9)
    assert optimizer.info.rank == 12


def test_near_the_truncated_step_and_power_iterations_help():
    matrix = falling_spectrum(60, 80, decay=0.5)
    exact, _ = step(matrix, BatchedVJP(), 4)
    errors = []
    for power_iterations in (0, 1, 2):
        engine = Randomized(4, oversampling=2, power_iterations=power_iterations)
        errors.append((step(matrix, engine, 4)[0] - exact).norm() / exact.norm())
    assert errors[2] < 1e-2
    assert errors[2] < 0.3 * errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize(("engine", "expected"), [
    (Randomized(3, oversampling=2, power_iterations=1), {20: 21, 200: 21}),  # one to make J^T w, then 2 * 2 * 5
    (BatchedVJP(), {20: 20, 200: 31}),  # as many as rows, or as columns
])  # fmt: skip
def test_passes_do_not_grow_with_the_rows(monkeypatch, engine, expected):
    passes = 0
    grad = torch.autograd.grad

    def counted(outputs, inputs, grad_outputs, *, is_grads_batched=False, **options):
        nonlocal passes
        passes += len(grad_outputs) if is_grads_batched else 1
        return grad(outputs, inputs, grad_outputs, is_grads_batched=is_grads_batched, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    for num_rows, count in expected.items():
        passes = 0
        matrix = torch.randn(num_rows, 30, dtype=torch.float64)
        weight = nn.Parameter(torch.zeros(30, dtype=torch.float64))
        engine.linearize(lambda m=matrix, w=weight: m @ w - 1.0, [weight], None)
        assert passes == count


def test_complex_weights_and_unused_ones():
    problem = Problem()
    unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    phases = nn.Parameter(torch.randn(4, dtype=torch.complex128))

    def residual():
        return problem.residual() + (phases.abs().sum() - 1)

    parameters = [*problem.parameters(), unused, phases]
    r, low_rank = Randomized(12).linearize(residual, parameters, None)
    _, full = BatchedVJP().linearize(residual, parameters, None)
    torch.testing.assert_close(low_rank.dense(), full.dense(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(low_rank.transposed_times(r), full.transposed_times(r), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(low_rank.normal(), full.normal(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 2, "oversampling": -1}, {"rank": 2, "power_iterations": -1}])
def test_bad_arguments(options):
    with pytest.raises(ArgumentError, match="expected rank"):
        Randomized(**options)


def test_what_cannot_be_differentiated_twice_is_refused():
    # Autograd would leave its columns out and not say so.
    weight = nn.Parameter(torch.ones(4, dtype=torch.float64))
    matrix = torch.randn(9, 4, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="differentiated twice"):
        Randomized(2).linearize(lambda: Once.apply(matrix @ weight), [weight], None)
    Randomized(2).linearize(lambda: torch.sin(matrix @ weight), [weight], None)
