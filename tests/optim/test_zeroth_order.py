"""Zeroth order: unbiased estimates with the variance of theory, and tests that would notice a bias."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from neuralop_kit.optim import SPSA, EvolutionStrategy, ForwardGradient, Gaussian
from neuralop_kit.optim.spsa import centred_ranks
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.optimizer import CountingBackend, OptimizerContract, Problem, assert_same_weights

NUM_WEIGHTS, NUM_DRAWS = 4, 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class ValueContract(OptimizerContract):
    step_kind = "value"
    num_descent = 150
    descent = 0.3
    moves_unused_weights = True
    # Whether what is compiled in the loss runs compiled, or as it was written.
    runs_compiled = True

    def test_a_loss_that_is_not_finite_is_refused(self):
        problem = Problem()
        optimizer = self.optimizer(problem)
        self.advance(optimizer, problem)
        assert optimizer.status == "moved"
        before = [p.detach().clone() for p in problem.parameters()]
        loss = optimizer.step(lambda: problem.loss() * math.nan)
        assert loss.isnan()
        assert optimizer.status == "refused"
        assert all(torch.equal(a, b) for a, b in zip(before, problem.parameters(), strict=True))

    def test_weights_may_be_frozen_and_thawed(self):
        # The first one among them, with which the seed is kept.
        problem = Problem()
        first = problem.real_weights()[0].requires_grad_(False)
        optimizer = self.optimizer(problem)
        before = first.clone()
        self.advance(optimizer, problem, 2)
        assert torch.equal(first, before)
        first.requires_grad_(True)
        self.advance(optimizer, problem, 2)
        assert not torch.equal(first, before)
        problem.requires_grad_(False)
        with pytest.raises(ArgumentError, match="requires_grad"):
            self.advance(optimizer, problem)

    def test_a_function_that_raises_leaves_the_weights(self):
        problem, other = Problem(), Problem()
        optimizer = self.optimizer(problem)
        for count in (0, 1):
            losses = [problem.loss] * count
            with pytest.raises(IndexError):
                optimizer.step(lambda losses=losses: losses.pop()())
            assert_same_weights(problem, other)

    def test_a_compiled_network_makes_no_difference(self):
        ends, graphs, x = [], CountingBackend(), torch.randn(5, 2, dtype=torch.float64)
        for is_compiled in (False, True):
            torch.manual_seed(0)
            network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
            optimizer = self.make(list(network.parameters()), self.lr)
            called = torch.compile(network, backend=graphs) if is_compiled else network
            for _ in range(3):
                optimizer.step(lambda called=called: (called(x).squeeze(1) - 1).square().mean())
            ends.append(network)
        assert_same_weights(*ends)
        assert (graphs.num_runs > 0) == self.runs_compiled

    def test_several_losses_are_refused(self):
        weight = nn.Parameter(torch.ones(3))
        with pytest.raises(ArgumentError, match="loss"):
            self.make([weight], self.lr).step(lambda: torch.stack([weight, weight]))

    def test_state_of_another_optimizer_is_refused(self):
        problem = Problem()
        with pytest.raises(ArgumentError, match="seed"):
            self.optimizer(problem).load_state_dict(torch.optim.Adam(self.groups(problem)).state_dict())

    def test_a_function_is_needed(self):
        with pytest.raises(ArgumentError, match="function that returns the loss"):
            self.optimizer(Problem()).step()


class TestSPSA(ValueContract):
    lr = 0.1

    def make(self, groups, lr, **options):
        return SPSA(groups, lr, radius=1e-3, num_samples=2, weight_decay=0.0, generator=generator(), **options)


class TestEvolutionStrategy(ValueContract):
    lr = 1e-2

    def make(self, groups, lr, **options):
        return EvolutionStrategy(groups, lr, num_samples=4, generator=generator(), **options)


class TestForwardGradient(ValueContract):
    lr = 0.1
    runs_compiled = False

    def make(self, groups, lr, **options):
        return ForwardGradient(groups, lr, num_samples=2, generator=generator(), **options)


class Quadratic:
    """0.5 w^T H w - b^T w at a point where the gradient has entries of all sizes."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        root = torch.randn(NUM_WEIGHTS, NUM_WEIGHTS, dtype=torch.float64)
        self.hessian = root @ root.T / NUM_WEIGHTS
        self.weight = nn.Parameter(torch.randn(NUM_WEIGHTS, dtype=torch.float64))
        self.gradient = self.hessian @ self.weight.detach() + 1.0

    def __call__(self) -> torch.Tensor:
        return 0.5 * self.weight @ self.hessian @ self.weight + self.weight.sum()


def draws(optimizer, function) -> torch.Tensor:
    return torch.stack([optimizer.estimate(function)[0] for _ in range(NUM_DRAWS)])


def worst_p_value(samples: torch.Tensor, gradient: torch.Tensor) -> float:
    """Smallest p-value, times the number of tests: each coordinate, and the part along the gradient."""
    along = (samples @ gradient / gradient.square().sum()).unsqueeze(1)
    tested = torch.cat([samples, along], dim=1)
    means = torch.cat([gradient, torch.ones(1, dtype=gradient.dtype)])
    return min(stats.ttest_1samp(tested.numpy(), means.numpy()).pvalue) * tested.shape[1]


def unranked(weight: nn.Parameter) -> EvolutionStrategy:
    return EvolutionStrategy([weight], num_samples=1, ranked=False, generator=generator())


ESTIMATORS = {
    # Name: how to make it, and E |g - grad|^2 / |grad|^2 on a quadratic with P weights.
    "spsa": (lambda w: SPSA([w], radius=0.1, generator=generator()), NUM_WEIGHTS - 1),
    "gaussian": (lambda w: SPSA([w], radius=0.1, noise=Gaussian(), generator=generator()), NUM_WEIGHTS + 1),
    "evolution": (unranked, NUM_WEIGHTS + 1),
    "forward": (lambda w: ForwardGradient([w], generator=generator()), NUM_WEIGHTS - 1),
}


@pytest.fixture(scope="module")
def samples():
    quadratic = Quadratic()
    return {name: draws(make(quadratic.weight), quadratic) for name, (make, _) in ESTIMATORS.items()}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimate_is_unbiased(samples, name):
    assert worst_p_value(samples[name], Quadratic().gradient) > 1e-3


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("factor", [0.9, 2.0])
def test_the_test_would_notice_a_bias(samples, name, factor):
    # Power: a scale that is 10 % off, and a forgotten factor 1/2.
    assert worst_p_value(factor * samples[name], Quadratic().gradient) < 1e-4


@pytest.mark.parametrize("name", ESTIMATORS)
def test_variance_is_that_of_theory(samples, name):
    gradient = Quadratic().gradient
    ratio = (samples[name] - gradient).square().sum(dim=1).mean() / gradient.square().sum()
    assert ratio.item() == pytest.approx(ESTIMATORS[name][1], rel=0.1)


def test_variance_falls_with_the_number_of_samples():
    quadratic = Quadratic()
    optimizer = SPSA([quadratic.weight], num_samples=25, generator=generator(1))
    estimates = torch.stack([optimizer.estimate(quadratic)[0] for _ in range(300)])
    ratio = (estimates - quadratic.gradient).square().sum(dim=1).mean() / quadratic.gradient.square().sum()
    assert ratio.item() == pytest.approx((NUM_WEIGHTS - 1) / 25, rel=0.2)


def test_bias_is_of_second_order_in_the_radius():
    # For the sum of sin(2 x) the relative bias along random signs is 1 - sin(2c)/(2c), the same for every draw.
    weight = nn.Parameter(torch.tensor([0.3], dtype=torch.float64))
    for radius in (0.3, 0.1, 0.03):
        (estimate,) = SPSA([weight], radius=radius).estimate(lambda: torch.sin(2 * weight).sum())
        expected = 2 * math.cos(0.6) * math.sin(2 * radius) / (2 * radius)
        assert estimate.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("make", [SPSA, ForwardGradient])
def test_step_is_the_estimate_times_the_rate(make):
    ends = []
    for _ in range(2):
        problem = Problem()
        optimizer = make(problem.parameters(), 0.1, num_samples=3, weight_decay=0.2, generator=generator(4))
        ends.append((problem, optimizer))
    (moved, optimizer), (still, other) = ends
    expected = [p - 0.1 * (g + 0.2 * p) for p, g in zip(still.parameters(), other.estimate(still.loss), strict=True)]
    optimizer.step(moved.loss)
    for p, value in zip(moved.parameters(), expected, strict=True):
        torch.testing.assert_close(p, value, rtol=1e-12, atol=1e-12)


def test_one_direction_costs_two_losses():
    calls = []
    weight = nn.Parameter(torch.ones(3))
    SPSA([weight], num_samples=5).step(lambda: calls.append(1) or weight.square().sum())
    assert len(calls) == 10


def test_probes_leave_the_weights():
    problem = Problem(dtype=torch.float32)
    before = [p.detach().clone() for p in problem.parameters()]
    SPSA(problem.parameters(), num_samples=20).estimate(problem.loss)
    assert all(torch.equal(a, b) for a, b in zip(before, problem.parameters(), strict=True))
    # Without a copy they drift, by rounding only.
    SPSA(problem.parameters(), num_samples=20, exact=False).estimate(problem.loss)
    drift = max((a - b).abs().max().item() for a, b in zip(before, problem.parameters(), strict=True))
    assert 0 < drift < 1e-6


def test_no_graph_is_built():
    weight = nn.Parameter(torch.ones(3))
    losses = []
    SPSA([weight]).step(lambda: losses.append(weight.square().sum()) or losses[-1])
    assert not losses[0].requires_grad
    assert weight.grad is None


def test_ranks_do_not_feel_outliers():
    values = torch.tensor([3.0, -1.0, 1e9, 0.5])
    torch.testing.assert_close(centred_ranks(values), torch.tensor([1 / 6, -0.5, 0.5, -1 / 6]))
    assert torch.equal(centred_ranks(torch.full((4,), 7.0)), torch.zeros(4))


def test_what_has_no_derivative_can_be_descended():
    # A staircase: every gradient is zero, the smoothed loss falls.
    weight = nn.Parameter(torch.full((4,), 2.0, dtype=torch.float64))
    optimizer = EvolutionStrategy([weight], 0.05, radius=0.3, generator=generator())
    losses = [optimizer.step(lambda: (4 * weight).round().abs().sum()).item() for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("make", [lambda p: SPSA(p, radius=0.0), lambda p: SPSA(p, num_samples=0)])
def test_bad_values_are_refused(make):
    with pytest.raises(ArgumentError, match="expected"):
        make([nn.Parameter(torch.ones(2))])
