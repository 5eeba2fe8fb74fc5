"""Sven, GaussNewton, SPRING and HIG: the contract, the closed forms, the refusals."""

import copy
import itertools
import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.optim import (
    HIG,
    SPRING,
    AdaptiveHalving,
    Armijo,
    Automatic,
    BatchedVJP,
    FixedStep,
    GaussNewton,
    GridSearch,
    Halving,
    LevenbergMarquardt,
    Sven,
)
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from tests.contracts.optimizer import OptimizerContract, Problem


class GramContract(OptimizerContract):
    """The contract for optimizers that take residuals; their rule sees all weights at once."""

    step_kind = "residual"
    lr = 1.0
    num_descent = 5
    # Options with which the step is compared to the rule.
    rule_options: ClassVar[dict[str, Any]] = {}

    def pseudo_inverse(self, matrix: np.ndarray) -> np.ndarray:
        """J^+ of the rule, from a plain SVD."""
        raise NotImplementedError

    def test_rule_is_the_published_one(self):
        # Fixed steps, 20 of them, two groups with rates and decays of their own.
        problem = Problem(num_rows=7)
        groups = self.groups(problem)
        groups[0].update(lr=0.3, weight_decay=0.1)
        groups[1].update(lr=0.1, weight_decay=0.0)
        optimizer = self.make(groups, 1.0, control=FixedStep(), **self.rule_options)
        parameters = [p for group in groups for p in group["params"]]
        rates = np.concatenate([np.full(p.numel(), group["lr"]) for group in groups for p in group["params"]])
        decays = np.concatenate(
            [np.full(p.numel(), group["weight_decay"]) for group in groups for p in group["params"]]
        )
        theta, increment = flat(parameters), np.zeros(len(rates))
        for _ in range(20):
            r, jacobian = explicit(problem, parameters)
            increment = self.next_increment(increment, jacobian, r)
            theta = theta - rates * (increment + decays * theta)
            optimizer.step(problem.residual)
            np.testing.assert_allclose(flat(parameters), theta, rtol=0, atol=1e-12)

    def next_increment(self, increment: np.ndarray, jacobian: np.ndarray, r: np.ndarray) -> np.ndarray:
        return self.pseudo_inverse(jacobian) @ r

    def test_residuals_that_are_not_finite_are_refused(self):
        problem = Problem()
        optimizer = self.optimizer(problem)
        self.advance(optimizer, problem, 2)
        before = flat(list(problem.parameters()))

        def broken() -> Tensor:
            return problem.residual() * torch.tensor([1.0] * 11 + [math.nan])

        loss = optimizer.step(broken)
        assert loss.isnan()
        assert optimizer.info.status == "refused"
        assert "1 of 12 rows" in optimizer.info.reason
        assert (flat(list(problem.parameters())) == before).all()
        # And the next step goes on.
        self.advance(optimizer, problem)
        assert optimizer.info.status == "moved"

    def test_a_step_into_nowhere_is_not_taken(self):
        # The logarithm is not defined where a whole step would lead.
        weight = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
        optimizer = self.make([weight], 8.0)
        for _ in range(3):
            optimizer.step(lambda: weight.log() + 1)
            assert weight.item() > 0


def flat(parameters: list[Tensor]) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in parameters]).numpy().copy()


def explicit(problem: Problem, parameters: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Residual and Jacobian, one backward pass per row."""
    r = problem.residual()
    rows = [torch.autograd.grad(value, parameters, retain_graph=True) for value in r]
    return r.detach().numpy(), np.stack([np.concatenate([g.flatten().numpy() for g in row]) for row in rows])


class TestSven(GramContract):
    rule_options: ClassVar[dict[str, Any]] = {"rtol": 0.82}

    def make(self, groups, lr, **options):
        return Sven(groups, lr, **options)

    def pseudo_inverse(self, matrix):
        u, s, vh = np.linalg.svd(matrix, full_matrices=False)
        keep = s > 0.82 * s[0]
        assert 2 <= keep.sum() < len(s)
        return vh[keep].T / s[keep] @ u[:, keep].T


class TestSvenOfRankThree(TestSven):
    rule_options: ClassVar[dict[str, Any]] = {"rtol": 1e-9, "max_rank": 3}

    def pseudo_inverse(self, matrix):
        u, s, vh = np.linalg.svd(matrix, full_matrices=False)
        return vh[:3].T / s[:3] @ u[:, :3].T


class TestGaussNewton(GramContract):
    def make(self, groups, lr, **options):
        return GaussNewton(groups, lr, **{"damping": 1e-2, "rtol": 1e-9, **options})

    def pseudo_inverse(self, matrix):
        u, s, vh = np.linalg.svd(matrix, full_matrices=False)
        return vh.T * (s / (s**2 + 1e-2 * s[0] ** 2)) @ u.T


class TestLevenbergMarquardt(GramContract):
    num_before_save = 4
    num_descent = 15

    def make(self, groups, lr, **options):
        return GaussNewton(groups, lr, **{"damping": 1e-2, "rtol": 0.0, "control": LevenbergMarquardt(), **options})

    def pseudo_inverse(self, matrix):
        # The damping of the Cholesky path is relative to an estimate of the largest eigenvalue, here a converged one.
        s = np.linalg.svd(matrix, compute_uv=False)
        largest = matrix @ matrix[np.argmax((matrix**2).sum(axis=1))]
        v = np.stack([largest, np.cos(np.arange(1.0, len(matrix) + 1))], axis=1)
        for _ in range(10):
            v = matrix @ (matrix.T @ (v / np.linalg.norm(v, axis=0)))
        estimate = np.linalg.norm(v, axis=0).max()
        assert 0.9 < estimate / s[0] ** 2 <= 1 + 1e-12
        shift = 1e-2 * estimate
        return matrix.T @ np.linalg.inv(matrix @ matrix.T + shift * np.eye(len(matrix)))


class TestSPRING(GramContract):
    num_descent = 20

    def make(self, groups, lr, **options):
        return SPRING(groups, lr, damping=1e-2, momentum=0.7, rtol=1e-9, **options)

    def next_increment(self, increment, jacobian, r):
        # argmin |J phi - r|^2 + damping |phi - mu phi_old|^2 by its normal equations.
        damping = 1e-2 * np.linalg.norm(jacobian, 2) ** 2
        matrix = jacobian.T @ jacobian + damping * np.eye(jacobian.shape[1])
        return np.linalg.solve(matrix, jacobian.T @ r + damping * 0.7 * increment)


class TestHIG(GramContract):
    num_descent = 20

    def make(self, groups, lr, **options):
        return HIG(groups, lr, rtol=1e-9, **options)

    def pseudo_inverse(self, matrix):
        u, s, vh = np.linalg.svd(matrix, full_matrices=False)
        return vh.T * s**-0.5 @ u.T


# ---- exact answers in one step


def undamped(params: Any, rtol: float) -> GaussNewton:
    return GaussNewton(params, lr=1.0, damping=0.0, rtol=rtol, control=Halving())


def sven(params: Any, rtol: float) -> Sven:
    return Sven(params, lr=1.0, rtol=rtol)


@pytest.mark.parametrize("make", [sven, undamped])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_over_parametrised_step_is_the_solution_of_least_change(make, start):
    torch.manual_seed(0)
    a, b = torch.randn(8, 30, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    weight = nn.Parameter(start * torch.randn(30, dtype=torch.float64))
    expected = weight.detach() + torch.linalg.pinv(a) @ (b - a @ weight.detach())
    make([weight], 1e-9).step(lambda: a @ weight - b)
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rtol", [1e-3, 1e-9])
@pytest.mark.parametrize("make", [sven, undamped])
def test_under_parametrised_step_is_least_squares(make, rtol):
    torch.manual_seed(0)
    a, b = torch.randn(40, 10, dtype=torch.float64), torch.randn(40, dtype=torch.float64)
    weight = nn.Parameter(torch.randn(10, dtype=torch.float64))
    optimizer = make([weight], rtol)
    optimizer.step(lambda: a @ weight - b)
    torch.testing.assert_close(weight.detach(), torch.linalg.lstsq(a, b).solution, rtol=0, atol=1e-10)
    assert optimizer.info.rank == 10


def test_rank_deficient_rows_do_not_blow_up():
    # 40 rows of rank 10 in 60 weights: without a floor the noise of the Gram matrix would count as singular values.
    torch.manual_seed(0)
    a = torch.randn(40, 10, dtype=torch.float64) @ torch.randn(10, 60, dtype=torch.float64)
    b = a @ torch.randn(60, dtype=torch.float64)
    for rtol in (1e-3, 1e-9, 1e-15):
        weight = nn.Parameter(torch.zeros(60, dtype=torch.float64))
        optimizer = Sven([weight], lr=1.0, rtol=rtol)
        optimizer.step(lambda weight=weight: a @ weight - b)
        assert optimizer.info.rank == 10
        torch.testing.assert_close(weight.detach(), torch.linalg.pinv(a, rtol=1e-10) @ b, rtol=0, atol=1e-10)


def test_repeated_rows_do_not_change_the_step():
    steps = []
    for repeat in (1, 3):
        problem = Problem()
        Sven(problem.parameters(), rtol=1e-3).step(lambda p=problem, n=repeat: p.residual().repeat(n))
        steps.append(flat(list(problem.parameters())))
    np.testing.assert_allclose(*steps, rtol=0, atol=1e-12)


def test_mixed_rows_do_not_change_the_step():
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q
    steps = []
    for matrix in (torch.eye(12, dtype=torch.float64), rotation):
        problem = Problem()
        Sven(problem.parameters(), rtol=1e-3).step(lambda p=problem, m=matrix: m @ p.residual())
        steps.append(flat(list(problem.parameters())))
    np.testing.assert_allclose(*steps, rtol=0, atol=1e-11)


def test_squared_rows_give_half_the_step():
    # The paper's rows are l = r^2: J_l delta = -l is half of J delta = -r.
    steps = []
    for power in (1, 2):
        problem = Problem()
        before = flat(list(problem.parameters()))
        Sven(problem.parameters(), rtol=1e-9, control=FixedStep()).step(lambda p=problem, n=power: p.residual() ** n)
        steps.append(flat(list(problem.parameters())) - before)
    np.testing.assert_allclose(steps[1], 0.5 * steps[0], rtol=0, atol=1e-11)


# ---- named blocks


def test_blocks_are_weighted_means():
    torch.manual_seed(0)
    a, b = torch.randn(30, 4, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    c, d = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = Sven([weight], rtol=1e-9, weights={"pde": 1.0, "boundary": 50.0})
    loss = optimizer.step(lambda: {"pde": a @ weight - b, "boundary": c @ weight - d})
    assert loss.item() == pytest.approx(0.5 * (b.square().mean() + 50 * d.square().mean()).item(), rel=1e-12)
    matrix = torch.cat([a / 30**0.5, c * (50 / 6) ** 0.5])
    target = torch.cat([b / 30**0.5, d * (50 / 6) ** 0.5])
    torch.testing.assert_close(weight.detach(), torch.linalg.lstsq(matrix, target).solution, rtol=0, atol=1e-10)


# ---- step control


def valley(weight: Tensor) -> Tensor:
    """Rosenbrock: a curved valley in which a whole Gauss-Newton step first goes uphill."""
    return torch.stack([10 * (weight[1] - weight[0] ** 2), 1 - weight[0]])


def name_of(control: Any) -> str:
    return type(control).__name__ + (" on parabolas" if getattr(control, "geodesic_acceleration", False) else "")


CONTROLS = [
    AdaptiveHalving(), Halving(), GridSearch(), Armijo(), LevenbergMarquardt(),
    AdaptiveHalving(geodesic_acceleration=False), Halving(geodesic_acceleration=True),
    LevenbergMarquardt(geodesic_acceleration=True),
]  # fmt: skip


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_loss_never_rises_and_the_valley_is_left(control):
    weight = nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer = GaussNewton([weight], damping=1e-3, rtol=0.0, control=control)
    losses = [optimizer.step(lambda: valley(weight)).item() for _ in range(60)]
    assert all(after <= before for before, after in itertools.pairwise(losses))
    assert losses[-1] < 1e-15
    assert optimizer.info.loss == losses[-1]


def test_a_fixed_step_goes_uphill_there():
    # Negative control for the test above.
    weight = nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))
    optimizer = GaussNewton([weight], damping=1e-12, rtol=0.0, control=FixedStep())
    losses = [optimizer.step(lambda: valley(weight)).item() for _ in range(2)]
    assert losses[1] > 10 * losses[0]


def fit(control: Any, *, damping: float) -> float:
    """Mean square after fitting |x| on 32 points with 25 weights; 30 steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = torch.linspace(-1, 1, 32, dtype=torch.float64).unsqueeze(1)
    optimizer = GaussNewton(model.parameters(), damping=damping, control=control)
    for _ in range(30):
        optimizer.step(lambda: {"fit": (model(x) - x.abs()).squeeze(1)})
    return 2 * optimizer.info.new_loss


def test_damping_that_adapts_leads_where_a_small_fixed_one_is_stuck():
    assert fit(AdaptiveHalving(), damping=1e-3) < 1e-3
    assert fit(Halving(), damping=1e-18) > 1e-1


def test_predicted_decrease_is_that_of_the_damped_model():
    # For a linear residual the model is exact: after one damped step 0.5 damping^2 |w|^2 with w = (G + damping)^-1 r.
    torch.manual_seed(0)
    a, b = torch.randn(6, 9, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(9, dtype=torch.float64))
    optimizer = GaussNewton([weight], damping=0.1, rtol=1e-9, control=Halving())
    optimizer.step(lambda: a @ weight - b)
    damping = 0.1 * torch.linalg.matrix_norm(a, 2) ** 2
    w = torch.linalg.solve(a @ a.T + damping * torch.eye(6, dtype=torch.float64), b)
    assert optimizer.info.new_loss == pytest.approx(0.5 * (damping * w).square().sum().item(), rel=1e-12)


# ---- steps that cannot improve


def regression(num_points: int, dtype: torch.dtype = torch.float64):
    """|x| by 25 weights, and a count of the calls of its residual function."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    x = torch.linspace(-1, 1, num_points, dtype=dtype).unsqueeze(1)
    calls = []
    return model, calls, lambda: calls.append(1) or (model(x) - x.abs()).squeeze(1)


def least_squares():
    """A linear residual with more rows than weights: the loss is far from zero where its gradient is."""
    torch.manual_seed(0)
    a, b = torch.randn(40, 10, dtype=torch.float64), torch.randn(40, dtype=torch.float64)
    model = nn.Linear(10, 1, bias=False).double()
    calls = []
    return model, calls, lambda: calls.append(1) or model(a).squeeze(1) - b


@pytest.mark.parametrize(
    "problem",
    [least_squares, lambda: regression(8), lambda: regression(8, torch.float32)],
    ids=["least squares", "interpolation", "float32"],
)
@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_steps_at_rounding_try_nothing_and_say_so(problem, control):
    model, calls, residual = problem()
    # One that adapts the damping starts from far more.
    damping = 1e-3 if isinstance(control, AdaptiveHalving) else 1e-9
    optimizer = GaussNewton(model.parameters(), rtol=0.0, damping=damping, control=control)
    for _ in range(300):
        optimizer.step(residual)
        if optimizer.info.status == "stayed":
            break
    before = copy.deepcopy(model.state_dict())
    calls.clear()
    optimizer.step(residual)
    assert (optimizer.info.status, optimizer.info.num_trials, len(calls)) == ("stayed", 0, 1)
    assert "less than the rounding of the loss" in optimizer.info.reason
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # It was not stopped before: nothing that a solver finds is better by more than rounding.
    loss = optimizer.info.loss
    assert loss < (1e-13 if residual().dtype == torch.float32 else 1e-29) or isinstance(model, nn.Linear)


def test_least_squares_at_rounding_are_those_of_lapack():
    model, _, residual = least_squares()
    optimizer = GaussNewton(model.parameters())
    for _ in range(20):
        optimizer.step(residual)
    torch.manual_seed(0)
    a, b = torch.randn(40, 10, dtype=torch.float64), torch.randn(40, dtype=torch.float64)
    torch.testing.assert_close(model.weight[0].detach(), torch.linalg.lstsq(a, b).solution, rtol=0, atol=1e-8)


def test_what_promises_more_than_rounding_is_tried():
    # Negative control: up the wall of the valley no step is better, and the reason is another one.
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = GaussNewton([weight], control=Halving(max_halvings=3))
    optimizer.step(lambda: torch.where(weight == 1.0, weight, 2.0 + weight))
    assert (optimizer.info.status, optimizer.info.num_trials) == ("stayed", 4)
    assert optimizer.info.reason == "no step that was tried lowers the loss"


def test_a_filter_too_soft_is_made_harder_and_not_taken_for_the_end():
    # Damping of all there is, and a residual that stays: a step of 1e-12 promises nothing, Newton's all there is.
    scales = torch.tensor([1.0, 1e-6, 0.0], dtype=torch.float64)
    weight = nn.Parameter(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    optimizer = GaussNewton([weight], rtol=1e-12)
    optimizer.state[weight]["softness"] = 1.0
    for _ in range(5):
        optimizer.step(lambda: scales * weight + torch.tensor([0.0, 1e-6, 1.0], dtype=torch.float64))
        # Two of them ask whether the residual is curved.
        assert optimizer.info.num_trials <= 4
    assert weight[1].item() == pytest.approx(-1.0, abs=1e-3)


def test_only_a_damping_can_be_adapted_to_the_decrease():
    problem = Problem()
    with pytest.raises(ArgumentError, match="damped filter"):
        Sven(problem.parameters(), control=LevenbergMarquardt()).step(problem.residual)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("num_calls", [1, 2, 3])
def test_a_residual_that_fails_leaves_the_weights_as_they_were(error: type[BaseException], num_calls: int):
    problem, calls = Problem(), []
    optimizer = GaussNewton(problem.parameters(), engine=BatchedVJP(), control=GridSearch(), momentum=0.5)
    optimizer.step(problem.residual)
    before = flat(list(problem.parameters()))

    def failing() -> Tensor:
        calls.append(0)
        if len(calls) == num_calls:
            raise error("no solution")
        return problem.residual()

    with pytest.raises(error, match="no solution"):
        optimizer.step(failing)
    assert (flat(list(problem.parameters())) == before).all()
    optimizer.step(problem.residual)
    assert optimizer.info.status == "moved"


def test_no_gradient_is_no_step():
    weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
    for optimizer in (Sven([weight]), GaussNewton([weight], rtol=0.0), HIG([weight])):
        optimizer.step(lambda: weight * 0 + 1)
        assert optimizer.info.status == "stayed"
        assert torch.equal(weight.detach(), torch.ones(3, dtype=torch.float64))


# ---- refusals


def test_scalar_loss_is_refused():
    problem = Problem()
    with pytest.raises(ShapeError, match=r"residual vector.*not their sum of squares"):
        Sven(problem.parameters()).step(problem.loss)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (None, "expected a residual function"),
        (lambda: [1.0], "tensor or a dict"),
        (lambda: torch.ones(3, dtype=torch.int64), "real floating"),
        (lambda: torch.ones(3, dtype=torch.complex64), "view_as_real"),
        (lambda: torch.ones(3), "without a graph"),
        (lambda: {"pde": torch.ones(3)}, "weights"),
    ],
)
def test_what_is_no_residual_is_refused(function: Any, message: str):
    weights = {"boundary": 1.0} if message == "weights" else None
    with pytest.raises((ArgumentError, ShapeError), match=message):
        Sven(Problem().parameters(), weights=weights).step(function)


def test_a_function_that_changes_is_refused():
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    points = torch.rand(20, 2, dtype=torch.float64)
    with pytest.raises(ArgumentError, match=r"same residual from two calls.*dropout"):
        Sven(model.parameters()).step(lambda: model(points).squeeze(1))


@pytest.mark.parametrize("engine", [Automatic, BatchedVJP])
def test_dropout_is_found_out_later_as_well(engine):
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    points = torch.rand(20, 2, dtype=torch.float64)
    optimizer = Sven(model.eval().parameters(), engine=engine())

    def residual() -> Tensor:
        return model(points).squeeze(1) - 1

    optimizer.step(residual)
    assert optimizer.info.status == "moved"
    model.train()
    before = flat(list(model.parameters()))
    with pytest.raises(ArgumentError, match=r"same residual from two calls.*model.eval"):
        optimizer.step(residual)
    assert (flat(list(model.parameters())) == before).all()


def test_random_numbers_with_a_seed_of_their_own_are_no_change():
    problem = Problem()
    optimizer = Sven(problem.parameters(), engine=BatchedVJP())

    def residual() -> Tensor:
        torch.manual_seed(0)
        return problem.residual() * (1 + torch.rand(12, dtype=torch.float64))

    for _ in range(2):
        torch.rand(1)
        optimizer.step(residual)
        assert optimizer.info.status == "moved"


@pytest.mark.parametrize(
    "make",
    [
        lambda p: Sven(p, rtol=1.0),
        lambda p: Sven(p, max_rank=0),
        lambda p: GaussNewton(p, damping=-1.0),
        lambda p: GaussNewton(p, momentum=1.0),
        lambda p: Sven(p, weights={"pde": 0.0}),
        lambda p: Sven(p, engine=Automatic(memory_budget=0)),
        lambda p: Sven(p, control=Armijo(c=2.0)),
        lambda p: GaussNewton(p, control=AdaptiveHalving(factor=0.5)),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(ArgumentError, match="expected"):
        make([nn.Parameter(torch.ones(2))])


def test_complex_weights_are_pairs():
    torch.manual_seed(0)
    a, b = torch.randn(6, 9, dtype=torch.complex128), torch.randn(6, dtype=torch.complex128)
    native = nn.Parameter(torch.zeros(9, dtype=torch.complex128))
    Sven([native], rtol=1e-9, engine=BatchedVJP()).step(lambda: torch.view_as_real(a @ native - b).flatten())
    torch.testing.assert_close(native.detach(), torch.linalg.pinv(a) @ b, rtol=0, atol=1e-12)
