"""What steps of the Gram family must not depend on, what they are at the ends of the family, and two small problems."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.optim import HIG, SPRING, FixedStep, GaussNewton, GramOptimizer, Sven
from neuralop_kit.optim.gram.filters import Truncate
from neuralop_kit.optim.gram.jacobian import DenseJacobian
from neuralop_kit.optim.gram.systems import factorize

DOUBLE = {"dtype": torch.float64}


def equations(num_rows: int, num_weights: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A start, and residuals that are smooth in the weights."""
    generator = torch.Generator().manual_seed(num_rows)
    rows, targets = (torch.randn(num_rows, n, generator=generator, **DOUBLE) for n in (num_weights, 1))
    start = torch.randn(num_weights, generator=generator, **DOUBLE)
    return start, lambda w: torch.tanh(rows @ w / num_weights**0.5) - targets.squeeze(1)


def step(make: Callable[[list[nn.Parameter]], GramOptimizer], start: Tensor, residual: Callable[[Tensor], Tensor]):
    weight = nn.Parameter(start.clone())
    make([weight]).step(lambda: residual(weight))
    return weight.detach() - start


WHOLE = {
    "sven": lambda p: Sven(p, rtol=1e-6, control=FixedStep()),
    "gauss_newton": lambda p: GaussNewton(p, control=FixedStep()),
    "hig": lambda p: HIG(p, control=FixedStep()),
}


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)], ids=["wide", "tall"])
@pytest.mark.parametrize("max_rank", [None, 1, 4, 9])
def test_truncated_steps_are_those_of_a_singular_value_decomposition(shape, max_rank):
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape, **DOUBLE), full_matrices=False)
    s = torch.logspace(0, -4, 12, **DOUBLE)
    jacobian = DenseJacobian((u * s) @ vh, memory_budget=2**30)
    r = torch.randn(shape[0], **DOUBLE)
    # Away from singular values; the last one asks for a QR factorisation.
    for rtol in (0.6, 0.04, 1.5e-3, 1e-9):
        kept = min(int((s > rtol).sum()), max_rank or 12)
        found = factorize(jacobian, rtol).solve(r, Truncate(rtol=rtol, max_rank=max_rank))
        expected = vh[:kept].T @ ((u.T @ r)[:kept] / s[:kept])
        assert (found - expected).norm() < 1e-9 * expected.norm()


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_the_order_of_rows_does_not_matter(make):
    start, residual = equations(12, 20)
    order = torch.randperm(12)
    torch.testing.assert_close(
        step(make, start, lambda w: residual(w)[order]), step(make, start, residual), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_steps_have_no_part_that_no_row_sees(make):
    start, residual = equations(12, 20)
    jacobian = torch.func.jacrev(residual)(start)
    null = torch.linalg.svd(jacobian).Vh[12:]
    change = step(make, start, residual)
    assert (null @ change).norm() < 1e-10 * change.norm()


def test_least_squares_steps_do_not_depend_on_the_coordinates_of_the_weights():
    start, residual = equations(30, 6)
    torch.manual_seed(1)
    matrix = torch.eye(6, **DOUBLE) + 0.3 * torch.randn(6, 6, **DOUBLE)
    inside = torch.linalg.solve(matrix, start)
    for name, make in WHOLE.items():
        undamped = (lambda p: GaussNewton(p, damping=0.0, control=FixedStep())) if name == "gauss_newton" else make
        plain, changed = (
            step(undamped, start, residual),
            matrix @ step(undamped, inside, lambda w: residual(matrix @ w)),
        )
        # Half-inverse steps do: they are no Newton steps.
        assert ((plain - changed).norm() < 1e-9 * plain.norm()) == (name != "hig")


def test_powers_lead_from_gradient_descent_to_the_pseudo_inverse():
    start, residual = equations(12, 20)
    jacobian = torch.func.jacrev(residual)(start)
    for exponent, expected in ((1.0, -jacobian.T @ residual(start)), (-1.0, step(WHOLE["sven"], start, residual))):
        found = step(lambda p, e=exponent: HIG(p, exponent=e, control=FixedStep()), start, residual)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_without_momentum_the_family_has_one_damped_member():
    start, residual = equations(12, 20)
    torch.testing.assert_close(
        step(lambda p: SPRING(p, momentum=0.0, damping=1e-3, control=FixedStep()), start, residual),
        step(lambda p: GaussNewton(p, rtol=0.0, damping=1e-3, control=FixedStep()), start, residual), rtol=0, atol=0,
    )  # fmt: skip


@pytest.mark.parametrize("make", [GaussNewton, lambda p: Sven(p, rtol=1e-8)], ids=["gauss_newton", "sven"])
def test_beale(make):
    # Three residuals in two weights with a valley and flat arms; the minimum is at (3, 1/2).
    weight = nn.Parameter(torch.tensor([1.0, 1.0], **DOUBLE))
    targets, powers = torch.tensor([1.5, 2.25, 2.625], **DOUBLE), torch.tensor([1, 2, 3])
    optimizer = make([weight])
    for _ in range(40):
        optimizer.step(lambda: targets - weight[0] * (1 - weight[1] ** powers))
    torch.testing.assert_close(weight.detach(), torch.tensor([3.0, 0.5], **DOUBLE), rtol=0, atol=1e-10)


def regression_error(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> float:
    """Of exp(-10 x^2) sin(2 x), standardised, after 300 batches of 32: the toy problem of the literature on Sven."""
    torch.manual_seed(0)
    x = torch.rand(10_000, 1, **DOUBLE) * 2 - 1
    y = torch.exp(-10 * x**2) * torch.sin(2 * x)
    y = (y - y.mean()) / y.std()
    layers = [nn.Linear(1, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 1)]
    model = nn.Sequential(*layers).double()
    optimizer = make(list(model.parameters()))
    for _ in range(300):
        batch = torch.randint(len(x), (32,))

        def residual(batch=batch) -> Tensor:
            return (model(x[batch]) - y[batch]).squeeze(1)

        if isinstance(optimizer, GramOptimizer):
            optimizer.step(residual)
        else:
            optimizer.zero_grad()
            residual().square().mean().backward()
            optimizer.step()
    with torch.no_grad():
        return (model(x) - y).square().mean().item()


def test_mini_batches_of_a_curve():
    assert regression_error(lambda p: Sven(p, lr=0.1, rtol=1e-4, control=FixedStep())) < 1e-5
    # Negative control: as many steps of the usual optimizer, near its best rate.
    assert min(regression_error(lambda p, lr=lr: torch.optim.Adam(p, lr)) for lr in (1e-2, 2e-2)) > 5e-5
