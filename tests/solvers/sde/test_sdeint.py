"""sdeint: orders, laws, paths, gradients, failures."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError, ShapeError
from neuralop_kit.solvers.ode import FixedStep, PIController, odeint
from neuralop_kit.solvers.sde import (
    SOSRI,
    SOSRI2,
    BrownianPoint,
    BrownianTree,
    EulerMaruyama,
    HeunStratonovich,
    Milstein,
    sdeint,
    travel,
)
from neuralop_kit.solvers.status import Status
from tests.conftest import SEED

UNIT = torch.tensor([0.0, 1.0])
METHODS = [EulerMaruyama(), Milstein(), HeunStratonovich(), SOSRI(), SOSRI2()]


def tree(paths: int, *, seed: int = SEED, depth: int = 12) -> BrownianTree:
    return BrownianTree(0.0, 1.0, (paths, 1), generator=torch.Generator().manual_seed(seed), depth=depth)


def start(paths: int, value: float = 1.0) -> Tensor:
    return torch.full((paths, 1), value, dtype=torch.float64)


def cosh(y: Tensor) -> Tensor:
    """cosh(arsinh(y))."""
    return (1 + y**2).sqrt()


def hyperbolic_errors(method, path: BrownianTree, steps: list[int]) -> Tensor:
    """Signed errors at t = 1 of a nonlinear equation that depends on time; ``(len(steps), paths)``.

    y = sinh(arsinh(y0) + t^2 + W) solves dy = (2 t cosh + y/2) dt + cosh dW in the sense of Ito, cosh = sqrt(1 + y^2);
    in the sense of Stratonovich without y/2.
    """
    correction = 0.5 if method.calculus == "ito" else 0.0
    y0 = start(path.size[0], 0.3)
    exact = torch.sinh(torch.asinh(y0) + 1 + path.at(1.0).value)
    rows = []
    for n in steps:
        solution = sdeint(
            lambda t, y: 2 * t * cosh(y) + correction * y, lambda t, y: cosh(y), y0, UNIT,
            method=method, controller=FixedStep(1 / n), control="joint", brownian=path,
        )  # fmt: skip
        rows.append((solution.ys[-1] - exact).flatten())
    return torch.stack(rows)


def slopes(errors: Tensor) -> tuple[float, float]:
    """Regression of log2(error) on halvings over ten groups of paths: mean slope and half a 99 % interval of it.

    ``errors``: non-negative, ``(halvings, paths)``.
    """
    means = errors.view(len(errors), 10, -1).mean(dim=-1)
    each = np.polyfit(np.arange(len(errors)), -means.log2().numpy(), 1)[0]
    return each.mean(), stats.t.ppf(0.995, 9) * each.std(ddof=1) / math.sqrt(10)


class TestOrder:
    # From 32 steps on: the errors of coarse steps fall more slowly, see the note on SOSRI (1.3 between 8 and 16).
    steps = [32, 64, 128]  # noqa: RUF012

    @pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
    def test_strong_order(self, method):
        errors = hyperbolic_errors(method, tree(1000), self.steps)
        slope, half = slopes(errors.abs())
        assert slope - half > method.strong_order - 0.15
        assert slope + half < method.strong_order + 0.35

    def test_where_drift_and_noise_do_not_commute_the_area_makes_the_difference(self):
        """Above, W alone determines the solution. Here the integral of W enters; the last row is a negative control."""

        class WithoutArea(SOSRI):
            def step(self, drift, diffusion, t, y, h, noise):
                return super().step(drift, diffusion, t, y, h, noise._replace(area=torch.zeros_like(noise.area)))

        def end(method, num_steps: int) -> Tensor:
            solution = sdeint(
                lambda t, y: torch.sin(3 * t) - 2 * y, lambda t, y: 1 + 0.5 * torch.cos(y), start(500, 0.3), UNIT,
                method=method, controller=FixedStep(1 / num_steps), control="joint", brownian=path,
            )  # fmt: skip
            return solution.ys[-1].flatten()

        path = tree(500)
        exact = end(SOSRI2(), 640)
        for method, low, high in ((SOSRI(), 1.35, 1.75), (SOSRI2(), 1.35, 1.75), (WithoutArea(), 0.85, 1.15)):
            errors = torch.stack([(end(method, n) - exact).abs() for n in (16, 32, 64)])
            slope, half = slopes(errors)
            assert slope + half > low
            assert slope - half < high
            assert half < 0.2

    @pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
    def test_weak_order(self, method):
        """Of E[y]: the exact path's value as a control variate takes most of the variance away."""
        path = tree(20_000)
        drift = 1.5 if method.calculus == "ito" else 1.0
        exact = torch.exp(1.0 + path.at(1.0).value)
        means, spreads = [], []
        for n in (2, 4, 8) if method.weak_order > 1 else (4, 8, 16):
            solution = sdeint(
                lambda t, y: drift * y, lambda t, y: y, start(20_000), UNIT,
                method=method, controller=FixedStep(1 / n), control="joint", brownian=path,
            )  # fmt: skip
            difference = (solution.ys[-1] - exact).flatten()
            means.append(abs(difference.mean().item()))
            spreads.append(difference.std().item() / math.sqrt(20_000))
        logs = np.log2(means)
        half = 2.6 * np.hypot(spreads[0] / means[0], spreads[-1] / means[-1]) / math.log(2) / 2
        slope = (logs[0] - logs[-1]) / 2
        assert slope + half > method.weak_order - 0.2
        assert half < 0.4

    def test_without_noise_it_is_an_ordinary_equation(self):
        def drift(t: Tensor, y: Tensor) -> Tensor:
            return torch.sin(3 * t) - y**2

        y0 = start(2, 0.7)
        exact = odeint(drift, y0, UNIT, rtol=1e-10, atol=1e-10).ys[-1]
        found = sdeint(drift, lambda t, y: 0 * y, y0, UNIT, method="heun", controller=FixedStep(1 / 64)).ys[-1]
        assert (found - exact).abs().max() < 1e-4


class Redrawn:
    """Noise that forgets: a rejected step sees fresh numbers at its next try, as a naive solver does."""

    def __init__(self, paths: int) -> None:
        self.generator = torch.Generator().manual_seed(SEED)
        zero = torch.zeros(paths, 1, dtype=torch.float64)
        self.base = self.last = (zero, zero, zero)

    def at(self, t) -> BrownianPoint:
        t = torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1).expand_as(self.last[0])
        # A trial beyond the last one means that the last one was taken.
        self.base = tuple(torch.where(t > self.last[0], b, a) for a, b in zip(self.base, self.last, strict=True))
        h = t - self.base[0]
        x, y = torch.randn(2, *t.shape, generator=self.generator, dtype=torch.float64)
        w, area = h.sqrt() * x, (h / 12).sqrt() * y
        self.last = (t, self.base[1] + w, self.base[2] + h * (self.base[1] + w / 2 + area))
        return BrownianPoint(self.last[1], self.last[2])


class TestAdaptiveLaw:
    paths = 2000

    def terminal(self, path):
        """log y(1) of geometric motion, exactly standard normal, with many rejections on the way."""
        solution = sdeint(
            lambda t, y: 0.5 * y, lambda t, y: y, start(self.paths), UNIT, method=SOSRI(delta=0.0), rtol=1e-3,
            atol=1e-3, controller=PIController(exponents=(0.7, 0.4, 0.0), max_factor=3.0, safety=0.95),
            brownian=path, first_step=1.0,
        )  # fmt: skip
        assert solution.stats.num_rejected.double().mean() > 10
        return solution.ys[-1].log().flatten().numpy()

    def test_rejections_do_not_bend_the_law(self):
        assert stats.kstest(self.terminal(tree(self.paths, depth=18)), "norm").pvalue > 1e-3

    def test_fresh_noise_after_a_rejection_would(self):  # negative control
        assert stats.kstest(self.terminal(Redrawn(self.paths)), "norm").pvalue < 1e-10


@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_mean_and_variance_of_geometric_motion(control):
    mu, sigma, paths = 0.5, 0.4, 5000
    t = torch.tensor([0.0, 0.3, 1.0])
    solution = sdeint(
        lambda t, y: mu * y, lambda t, y: sigma * y, start(paths), t, rtol=0.05, atol=0.05, control=control,
        brownian=tree(paths),
    )  # fmt: skip
    for time, y in zip(t[1:].tolist(), solution.ys[1:, :, 0], strict=True):
        mean, growth = math.exp(mu * time), math.exp(sigma**2 * time)
        variance = mean**2 * (growth - 1)
        assert abs(y.mean() - mean) < 5 * math.sqrt(variance / paths)
        # Fourth central moment of a log-normal law over its variance squared, for the spread of the sample variance.
        kurtosis = growth**4 + 2 * growth**3 + 3 * growth**2 - 3
        assert abs(y.var() - variance) < 5 * variance * math.sqrt((kurtosis - 1) / paths)


def test_one_tree_is_one_path_at_any_tolerance():
    path, exact = tree(100, depth=18), torch.exp(tree(100, depth=18).at(1.0).value)
    errors, steps = [], []
    for tolerance in (0.3, 0.03, 0.003):
        solution = sdeint(
            lambda t, y: 0.5 * y, lambda t, y: y, start(100), UNIT, method=SOSRI2(delta=0.1),
            rtol=tolerance, atol=tolerance, brownian=path,
        )  # fmt: skip
        errors.append((solution.ys[-1] - exact).abs().mean().item())
        steps.append(solution.stats.num_accepted.double().mean().item())
    assert errors[0] < 0.1
    assert errors[2] < errors[1] < errors[0]
    assert steps[0] < steps[1] < steps[2]


def test_a_sample_does_not_depend_on_its_neighbours():
    y0 = torch.tensor([[1.0], [50.0], [0.1]], dtype=torch.float64)
    options = {"method": SOSRI(delta=0.1), "rtol": 1e-2, "atol": 1e-2}
    whole = sdeint(lambda t, y: -y, lambda t, y: 0.3 * y, y0, UNIT, brownian=tree(3), **options)
    alone = sdeint(lambda t, y: -y, lambda t, y: 0.3 * y, y0[:1], UNIT, brownian=tree(1), **options)
    assert torch.allclose(whole.ys[:, :1], alone.ys, rtol=0, atol=1e-13)
    assert len(whole.stats.num_accepted.unique()) > 1


@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_shapes_and_statistics(control):
    y0, t = torch.randn(3, 2, 4), torch.linspace(0, 1, 5)
    solution = sdeint(lambda t, y: -y * t, lambda t, y: 0.1 + 0 * y, y0, t, method="sosri2", control=control)
    stats_ = solution.stats
    rows = 3 if control == "per_sample" else 1
    assert solution.ys.shape == (5, 3, 2, 4)
    assert solution.ys.dtype == torch.float32
    assert torch.equal(solution.ys[0], y0)
    assert stats_.error.shape == stats_.stiffness.shape == stats_.step_size.shape == stats_.accepted.shape
    assert stats_.error.shape[1] == rows
    assert torch.allclose(stats_.step_size.sum(dim=0), torch.ones(rows))
    assert (stats_.error[~stats_.accepted] == 0).all()
    assert (stats_.error <= 1).all()
    assert torch.equal(stats_.accepted.sum(dim=0).expand(3), stats_.num_accepted)
    assert torch.equal(stats_.num_evaluations, 1 + 4 * (stats_.num_accepted + stats_.num_rejected))
    stats_.raise_if_failed()


def test_stiffness_of_a_linear_drift_is_its_rate():
    rates = torch.tensor([[0.5], [3.0], [20.0]], dtype=torch.float64)
    solution = sdeint(lambda t, y: -rates * y, lambda t, y: 0 * y, start(3), UNIT, method="sosri2")
    found = torch.where(solution.stats.accepted, solution.stats.stiffness, rates.T)
    assert torch.allclose(found, rates.T.expand_as(found), rtol=1e-7)
    assert (sdeint(lambda t, y: -y, lambda t, y: 0 * y, start(3), UNIT).stats.stiffness == 0).all()


def test_gradients_of_states_and_estimates():
    """With fixed steps, where nothing but the tape is differentiated."""
    path = tree(2)

    def solve(rate: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        solution = sdeint(
            lambda t, y: -rate * y**2 + torch.sin(t), lambda t, y: size * torch.cos(y), start(2, 0.5), UNIT,
            method="sosri2", controller=FixedStep(0.25), brownian=path,
        )  # fmt: skip
        return solution.ys, solution.stats.error, solution.stats.stiffness

    inputs = tuple(torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (1.3, 0.4))
    assert torch.autograd.gradcheck(solve, inputs)


def test_the_gradient_is_finite_where_the_error_is_zero():
    size = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    solution = sdeint(lambda t, y: 0 * y, lambda t, y: size * y, start(2), UNIT, method="sosri2")
    (solution.stats.error.sum() + solution.stats.stiffness.sum()).backward()
    assert solution.stats.error.max() == 0
    assert torch.isfinite(size.grad).all()


class TestFailure:
    def test_a_failing_sample_is_flagged_and_harms_nobody(self):
        y0 = torch.tensor([[1.0], [math.nan], [4.0]], dtype=torch.float64)
        weight = torch.ones((), dtype=torch.float64, requires_grad=True)
        explodes = lambda t, y: weight * torch.where(y > 3, y**8, -y)  # noqa: E731
        solution = sdeint(explodes, lambda t, y: 0.1 * y, y0, UNIT, brownian=tree(3), max_steps=300)
        assert solution.stats.status.tolist() == [Status.CONVERGED, Status.NOT_FINITE, solution.stats.status[2]]
        assert solution.stats.status[2] != Status.CONVERGED
        assert solution.ys[-1, 1:].isnan().all()
        alone = sdeint(explodes, lambda t, y: 0.1 * y, y0[:1], UNIT, brownian=tree(1))
        assert torch.allclose(solution.ys[-1, 0], alone.ys[-1, 0], rtol=0, atol=1e-13)
        solution.ys[-1, 0].sum().backward()
        assert torch.isfinite(weight.grad)
        with pytest.raises(ConvergenceError, match="sample 1: NOT_FINITE"):
            solution.stats.raise_if_failed()

    def test_too_many_steps(self):
        solution = sdeint(lambda t, y: -y, lambda t, y: y, start(2), UNIT, max_steps=3)
        assert (solution.stats.status == Status.MAX_ITERATIONS).all()
        assert ((solution.last_t > 0) & (solution.last_t < 1)).all()

    def test_a_step_that_does_not_shrink_when_it_is_stretched_ends(self):
        """E just above 1 near the goal: a shorter step must not be stretched back to the same length."""
        solution = sdeint(
            lambda t, y: 0.5 * y, lambda t, y: y, start(500), UNIT, method=SOSRI(delta=0.0), brownian=tree(500),
            controller=PIController(safety=0.99), first_step=1.0, max_steps=500,
        )  # fmt: skip
        solution.stats.raise_if_failed()

    @pytest.mark.parametrize("times", [[0.0], [1.0, 0.0], [0.0, 0.5, 0.5], [0.0, math.nan]], ids=str)
    def test_bad_times(self, times):
        with pytest.raises(ArgumentError, match="increasing"):
            sdeint(lambda t, y: y, lambda t, y: y, start(2), torch.tensor(times))

    def test_bad_arguments(self):
        with pytest.raises(ArgumentError, match="FixedStep"):
            sdeint(lambda t, y: y, lambda t, y: y, start(2), UNIT, method="milstein")
        with pytest.raises(ArgumentError, match="method"):
            sdeint(lambda t, y: y, lambda t, y: y, start(2), UNIT, method="euler")
        with pytest.raises(ShapeError, match="diffusion"):
            sdeint(lambda t, y: y, lambda t, y: y[..., None], start(2), UNIT)
        with pytest.raises(ShapeError, match="Brownian"):
            sdeint(lambda t, y: y, lambda t, y: y, start(2), UNIT, brownian=tree(3))


@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_an_empty_batch_is_solved_at_once(control):
    rate = torch.tensor(2.0, requires_grad=True)
    t = torch.tensor([0.0, 0.5, 1.0])
    solution = sdeint(lambda t, y: -rate * y, lambda t, y: y, torch.zeros(0, 3), t, control=control)
    assert solution.ys.shape == (3, 0, 3)
    assert solution.stats.status.shape == solution.last_t.shape == (0,)
    solution.ys.sum().backward()
    assert rate.grad == 0
    with pytest.raises(ShapeError, match=r"expected diffusion.*, got .*; "):
        sdeint(lambda t, y: -y, lambda t, y: y[:, :1], torch.zeros(0, 3), t)


def test_the_state_keeps_its_dtype():
    y0 = start(4).float()
    with pytest.raises(ArgumentError, match=r"expected drift.* torch.float32, .*, got .*; "):
        sdeint(lambda t, y: -y.double(), lambda t, y: y, y0, UNIT)
    for dtype in (torch.float16, torch.bfloat16):
        assert sdeint(lambda t, y: -y, lambda t, y: 0.1 * y, y0.to(dtype), UNIT).ys.dtype == dtype


def test_trial_steps_compile_as_one_graph(monkeypatch):
    """The same numbers and gradients; without the code generator, whose time belongs to the benchmarks."""
    graph = torch.compile(travel.attempt, fullgraph=True, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda function, **options: graph)
    rate, found = torch.tensor(1.3, dtype=torch.float64, requires_grad=True), []
    for compile in (False, True):
        solution = sdeint(
            lambda t, y: -rate * y**2, lambda t, y: 0.3 * torch.cos(y), start(3), UNIT,
            method=SOSRI2(compile=compile), rtol=0.1, atol=0.1, brownian=tree(3),
        )  # fmt: skip
        value = solution.ys.sum() + solution.stats.error.sum() + solution.stats.stiffness.sum()
        found.append(torch.stack([value, *torch.autograd.grad(value, [rate])]))
    assert torch.allclose(*found, rtol=1e-12)
