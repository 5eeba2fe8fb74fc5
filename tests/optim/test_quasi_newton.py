"""Dense quasi-Newton: the update of the text books, its invariants, Rosenbrock."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from neuralop_kit.optim import BFGS, SSBFGS, SSBroyden
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.optimizer import OptimizerContract, Problem, assert_same_weights


class QuasiNewtonContract(OptimizerContract):
    step_kind = "closure"
    lr = 1.0
    num_descent = 15

    def groups(self, problem, **complex_options):
        return [{"params": list(problem.parameters())}]

    def test_a_group_with_rate_zero_stays(self):
        problem, other = Problem(), Problem()
        self.advance(self.make(list(problem.parameters()), 0.0), problem, 3)
        assert_same_weights(problem, other)

    def test_a_group_can_be_added_later(self):
        # It cannot: there is one inverse Hessian.
        problem = Problem()
        with pytest.raises(ArgumentError, match="one group"):
            self.optimizer(problem).add_param_group({"params": [nn.Parameter(torch.ones(2))]})

    def test_a_loss_that_is_not_finite_is_refused(self):
        problem, other = Problem(), Problem()
        optimizer = self.optimizer(problem)
        loss = optimizer.step(lambda: (problem.loss() * float("nan")).detach())
        assert loss.isnan()
        assert optimizer.status == "refused"
        assert_same_weights(problem, other)

    def test_a_closure_that_raises_leaves_the_weights(self):
        problem, other = Problem(), Problem()
        optimizer = self.optimizer(problem)
        losses = [problem.loss]

        def closure() -> torch.Tensor:
            loss = losses.pop()()
            loss.backward()
            return loss

        with pytest.raises(IndexError):
            optimizer.step(closure)
        assert_same_weights(problem, other)

    def test_a_closure_must_return_the_loss_of_weights_that_can_move(self):
        problem = Problem()
        optimizer = self.optimizer(problem)
        with pytest.raises(ArgumentError, match="return loss"):
            optimizer.step(lambda: problem.loss().backward())
        problem.requires_grad_(False)
        with pytest.raises(ArgumentError, match="requires_grad"):
            optimizer.step(problem.loss)


class TestBFGS(QuasiNewtonContract):
    def make(self, groups, lr, **options):
        return BFGS(groups, lr, **options)


class TestSSBFGS(QuasiNewtonContract):
    def make(self, groups, lr, **options):
        return SSBFGS(groups, lr, **options)


class TestSSBroyden(QuasiNewtonContract):
    def make(self, groups, lr, **options):
        return SSBroyden(groups, lr, **options)


def pair(seed: int, size: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A positive definite H, a step, a change of gradient with s.y > 0, and s.H^-1 s."""
    rng = np.random.default_rng(seed)
    root, bend = rng.normal(size=(2, size, size))
    inverse, s = root @ root.T / size + 0.1 * np.eye(size), rng.normal(size=size)
    y = (bend @ bend.T / size + 0.1 * np.eye(size)) @ s
    return inverse, s, y, float(s @ np.linalg.solve(inverse, s))


CLASSES = [BFGS, SSBFGS, SSBroyden]


def updated(optimizer_class, inverse, s, y, curvature):
    optimizer = optimizer_class([nn.Parameter(torch.ones(1))])
    new = inverse.copy()
    assert optimizer.update_inverse(new, s, y, curvature, is_first=False)
    return new


def test_bfgs_is_the_product_form_of_the_text_books():
    inverse, s, y, curvature = pair(0)
    left = np.eye(7) - np.outer(s, y) / (s @ y)
    expected = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
    np.testing.assert_allclose(updated(BFGS, inverse, s, y, curvature), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("optimizer_class", CLASSES)
@pytest.mark.parametrize("seed", range(20))
def test_secant_equation_holds_and_the_matrix_stays_positive(optimizer_class, seed):
    inverse, s, y, curvature = pair(seed)
    new = updated(optimizer_class, inverse, s, y, curvature)
    assert np.linalg.norm(new @ y - s) < 1e-12 * np.linalg.norm(s)
    np.testing.assert_allclose(new, new.T, rtol=0, atol=1e-13)
    assert np.linalg.eigvalsh(new).min() > 0


@pytest.mark.parametrize("seed", range(20))
def test_broyden_parameters_are_those_of_the_paper(seed):
    # The paper updates the Hessian B; here its formula for B+, inverted.
    inverse, s, y, curvature = pair(seed)
    b, h = curvature / (s @ y), (y @ inverse @ y) / (s @ y)
    a = b * h - 1
    c = np.sqrt(a / (a + 1))
    rho_minus = min(1, h * (1 - c))
    theta = max((rho_minus - 1) / a, min(1 / rho_minus, (1 - b) / b))
    sigma = 1 + theta * a
    q, rho_plus = abs(sigma) ** (1 / (1 - len(s))), min(1, 1 / b)
    tau = min(rho_plus * q, sigma) if theta <= 0 else rho_plus * min(q, 1 / theta)
    hessian = np.linalg.inv(inverse)
    image = hessian @ s
    w = y / (s @ y) - image / (s @ image)
    new_hessian = tau * (hessian - np.outer(image, image) / (s @ image) + theta * (s @ image) * np.outer(w, w))
    new_hessian += np.outer(y, y) / (s @ y)
    new = updated(SSBroyden, inverse, s, y, curvature)
    np.testing.assert_allclose(new @ new_hessian, np.eye(len(s)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("optimizer_class", CLASSES)
def test_a_step_that_is_already_explained_is_no_division_by_zero(optimizer_class):
    # y = H^-1 s: A = 0.
    inverse, s, _, curvature = pair(3)
    y = np.linalg.solve(inverse, s)
    np.testing.assert_allclose(updated(optimizer_class, inverse, s, y, curvature), inverse, rtol=0, atol=1e-9)


def test_negative_curvature_teaches_nothing():
    inverse, s, y, curvature = pair(0)
    new = inverse.copy()
    assert not BFGS([nn.Parameter(torch.ones(1))]).update_inverse(new, s, -y, curvature, is_first=False)
    assert (new == inverse).all()


def rosenbrock(weight: torch.Tensor) -> torch.Tensor:
    return (100 * (weight[1:] - weight[:-1] ** 2) ** 2 + (1 - weight[:-1]) ** 2).sum()


@pytest.mark.parametrize("optimizer_class", CLASSES)
def test_rosenbrock_in_ten_dimensions(optimizer_class):
    weight = nn.Parameter(torch.tensor([-1.2, 1.0] * 5, dtype=torch.float64))
    optimizer = optimizer_class([weight])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = rosenbrock(weight)
        loss.backward()
        return loss

    losses = []
    for _ in range(250):
        losses.append(optimizer.step(closure).item())
        assert np.linalg.eigvalsh(optimizer.state[weight]["inverse_hessian"].numpy()).min() > 0
        if losses[-1] < 1e-20:
            break
    assert all(after <= before for before, after in itertools.pairwise(losses))
    # Rosenbrock in ten dimensions has a second minimum, at 3.99; the starting point belongs to the first.
    assert losses[-1] < 1e-20


def test_bad_values_are_refused():
    with pytest.raises(ArgumentError, match="c1 < c2"):
        SSBroyden([nn.Parameter(torch.ones(1))], c1=0.5, c2=0.1)
    with pytest.raises(ArgumentError, match="closure"):
        SSBroyden([nn.Parameter(torch.ones(1))]).step()


def steps_of_a_slope(optimizer_class, loss_of, count: int) -> tuple[nn.Parameter, list[str]]:
    """Weight and statuses after steps on a loss of one weight that starts at zero."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = optimizer_class([weight], max_evaluations=5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(weight.sum())
        loss.backward()
        return loss

    statuses = []
    for _ in range(count):
        optimizer.step(closure)
        statuses.append(optimizer.status)
    return weight, statuses


@pytest.mark.parametrize("optimizer_class", [BFGS, SSBFGS, SSBroyden])
def test_a_search_without_end_is_told_by_the_status_and_not_by_a_warning(optimizer_class, recwarn):
    # The slope never flattens: there is no length with the second Wolfe condition.
    weight, statuses = steps_of_a_slope(optimizer_class, lambda x: -x, 1)
    assert statuses == ["moved"]
    assert weight.item() > 1.0
    # A kink: no length at all lowers the loss.
    kinked, statuses = steps_of_a_slope(optimizer_class, lambda x: -0.1 * x + 10 * x.abs() + x, 2)
    assert statuses[-1] == "stayed"
    assert kinked.item() == 0.0
    assert not [str(w.message) for w in recwarn if "line search" in str(w.message)]


def test_warnings_of_the_closure_are_not_swallowed():
    def loss_of(x: torch.Tensor) -> torch.Tensor:
        warnings.warn("of the user", RuntimeWarning, stacklevel=1)
        return (x - 1.0) ** 2

    with pytest.warns(RuntimeWarning, match="of the user"):
        steps_of_a_slope(BFGS, loss_of, 1)
