"""Stiff methods: orders where f depends on time, stiff problems in few steps, linear solvers that agree, gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode import (
    AutoSwitch,
    DenseLU,
    Direct,
    FixedStep,
    KenCarp4,
    Krylov,
    Replay,
    Rodas5P,
    Rosenbrock23,
    Tsit5,
    kencarp_tableau,
    odeint,
)
from neuralop_kit.solvers.ode.linear import jacobian_of
from neuralop_kit.solvers.status import Status
from tests.solvers.ode.problems import F64, START, Network, VanDerPol, several_starts, times
from tests.solvers.ode.test_gradients import distance, gradients
from tests.solvers.ode.trees import residual

FIELD = VanDerPol(mu=5.0, force=1.0).requires_grad_(False)
INNER = torch.linspace(0, 1, 11, dtype=F64)
STIFF = {"rosenbrock23": Rosenbrock23, "rodas5p": Rodas5P, "kencarp4": KenCarp4}


@pytest.fixture(scope="module")
def exact():
    return odeint(FIELD, START, INNER, method="dopri8", controller=FixedStep(1 / 640)).ys


def solve(method, h):
    return odeint(FIELD, START, INNER, method=method, controller=FixedStep(1.001 * h), rtol=1e-300, atol=1.0)


def slopes(values):
    return [math.log2(a / b) for a, b in itertools.pairwise(values)]


@pytest.mark.parametrize(
    ("method", "order", "estimate"), [(Rosenbrock23(), 2, 3), (Rodas5P(), 5, 5), (KenCarp4(), 4, 4)], ids=STIFF
)
def test_orders(method, order, estimate, exact):
    solutions = [solve(method, h) for h in (1 / 40, 1 / 80)]
    assert slopes([(s.ys[-1] - exact[-1]).norm().item() for s in solutions])[0] >= order - 0.3
    assert slopes([(s.ys - exact).abs().mean().item() for s in solutions])[0] >= order - 0.3
    assert abs(slopes([s.stats.error.max().item() for s in solutions])[0] - estimate) < 0.35


@pytest.mark.parametrize(("factor", "order"), [("d", 3.0), ("one", 2.0)])
def test_time_derivative_of_rosenbrock23_carries_its_factor(factor, order):
    """One step of y' = sin(3t) - y: the estimate falls as h^3; a well-known code without the factor d gives h^2."""

    class Missing(Rosenbrock23):
        def step(self, field, t, y, slope, h):
            new = super().step(field, t, y, slope, h)
            d = self.gamma
            by_time = 3 * torch.cos(3 * t)
            # k3 of that code has h f_t where h d f_t belongs.
            k3_change = (1 - d) * h * by_time / (1 + h * d)
            return new._replace(defect=new.defect + h / 6 * k3_change)

    method = Rosenbrock23() if factor == "d" else Missing()
    y0 = torch.ones(1, 1, dtype=F64)
    estimates = [
        odeint(
            lambda t, y: torch.sin(3 * t) - y, y0, times(1.0, 1.0 + h), method=method, controller=FixedStep(h),
            rtol=1e-300, atol=1.0,
        ).stats.error.item()
        for h in (0.02, 0.01)
    ]  # fmt: skip
    assert abs(slopes(estimates)[0] - order) < 0.15


@pytest.mark.parametrize("method", [Rosenbrock23(), Rodas5P(), KenCarp4(), AutoSwitch()], ids=[*STIFF, "auto"])
def test_van_der_pol_in_few_steps(method):
    """mu = 100: an explicit method needs about a thousand steps and more for this part alone."""
    field, ts = VanDerPol(mu=100.0).requires_grad_(False), times(0, 60)
    y0 = torch.tensor([[2.0, 0.0]], dtype=F64)
    solution = odeint(field, y0, ts, method=method, rtol=1e-5, atol=1e-7)

    def plain(t, y):
        return [y[1], 100 * (1 - y[0] ** 2) * y[1] - y[0]]

    expected = solve_ivp(plain, (0, 60), [2.0, 0.0], method="Radau", rtol=1e-9, atol=1e-11).y[:, -1]
    assert (solution.ys[-1, 0] / torch.from_numpy(expected) - 1).abs().max() < 1e-3
    assert solution.stats.num_accepted.item() < 200
    explicit = odeint(field, y0, ts, rtol=1e-5, atol=1e-7).stats.num_accepted.item()
    assert explicit > 1000  # negative control


@pytest.mark.parametrize("method", ["rodas5p", "kencarp4"])
def test_robertson(method):
    """Reaction rates from 0.04 to 3e7; the value at t = 40 by scipy's Radau."""

    def plain(t, y):
        slow, fast, pair = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return [fast - slow, slow - fast - pair, pair]

    def field(t, y):
        return torch.stack(plain(t, y.unbind(dim=1)), dim=1)

    y0 = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    atol = torch.tensor([1e-8, 1e-12, 1e-8], dtype=F64)
    solution = odeint(field, y0, times(0, 40), method=method, rtol=1e-6, atol=atol)
    expected = solve_ivp(plain, (0, 40), [1.0, 0.0, 0.0], method="Radau", rtol=1e-10, atol=1e-14).y[:, -1]
    assert (solution.ys[-1, 0] / torch.from_numpy(expected) - 1).abs().max() < 1e-5
    assert solution.stats.num_accepted.item() < 100


def test_switch_fires_above_the_stability_limit_and_only_there():
    """y' = -L (y - cos t): steps follow cos t, so h L grows with L alone."""
    y0 = torch.ones(1, 1, dtype=F64)

    def evaluations(rate, method):
        field = lambda t, y: -rate * (y - torch.cos(t))  # noqa: E731
        return odeint(field, y0, times(0, 3), method=method, rtol=1e-5, atol=1e-5).stats.num_evaluations.item()

    assert evaluations(1e4, AutoSwitch()) < 0.05 * evaluations(1e4, Tsit5())
    assert evaluations(1.0, AutoSwitch()) == evaluations(1.0, Tsit5())


def test_switch_goes_back():
    """Stiff until t = 1 and harmless after: the last steps are those of the explicit method."""

    def field(t, y):
        return -torch.where(t < 1, 1e4, 1.0) * (y - torch.cos(t))

    auto = AutoSwitch()
    calls = []
    auto.stiff.step = lambda *inputs: calls.append(inputs[1].max().item()) or Rosenbrock23.step(auto.stiff, *inputs)
    solution = odeint(field, torch.ones(1, 1, dtype=F64), times(0, 3), method=auto, rtol=1e-4, atol=1e-4)
    assert solution.stats.converged.all()
    assert calls
    assert max(calls) < 2.0


def test_bad_switches_are_refused():
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        AutoSwitch(Rosenbrock23(), Tsit5())
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        AutoSwitch(stiff_steps=0)


def test_jacobian_is_that_of_every_sample():
    field, y = Network(), several_starts(3)
    t = torch.full((3, 1), 0.3, dtype=F64)
    for i, matrix in enumerate(jacobian_of(field, t, y)):
        expected = torch.autograd.functional.jacobian(lambda u, i=i: field(t[i : i + 1], u[None])[0], y[i])
        assert (matrix - expected).abs().max() < 1e-14


@pytest.mark.parametrize("method", STIFF.values(), ids=STIFF)
@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_matrix_free_is_dense(method, control):
    """A diffusion equation on a line with a reaction, by the method of lines; values and gradients."""
    n = 8
    rate = torch.tensor(1.0, dtype=F64, requires_grad=True)
    y0 = torch.sin(torch.linspace(0, 3, 2 * n, dtype=F64)).reshape(2, 1, n).requires_grad_()

    def field(t, u):
        return 50 * (u.roll(1, -1) - 2 * u + u.roll(-1, -1)) + rate * u * (1 - u)

    def run(linear):
        solution = odeint(field, y0, times(0, 0.2), method=method(linear=linear), control=control, rtol=1e-3, atol=1e-3)
        value = solution.ys[-1].square().sum() + solution.stats.error.sum()
        return solution.ys[-1], *torch.autograd.grad(value, [y0, rate])

    for ours, expected in zip(run(Krylov(rtol=1e-12)), run(DenseLU()), strict=True):
        assert ((ours - expected).abs().max() / expected.abs().max()) < 1e-8


def test_steps_whose_systems_are_not_solved_are_no_silent_error():
    """Two products are not enough where the field pulls hard on many components: no step to the end is accepted."""
    rates = torch.logspace(0, 5, 8, dtype=F64)

    def field(t, u):
        return -rates * (u - torch.cos(t))

    def status(max_iterations):
        method = Rodas5P(linear=Krylov(max_iterations=max_iterations))
        options = {"rtol": 1e-2, "atol": 1e-2, "max_steps": 3, "first_step": 1.0}
        return odeint(field, torch.ones(1, 8, dtype=F64), times(0, 1), method=method, **options).stats.status.item()

    assert status(30) == Status.CONVERGED
    assert status(2) == Status.MAX_ITERATIONS


def test_far_and_near_solutions():
    """Negative control: the same products are enough where the matrix is near the identity."""
    y, b = torch.randn(2, 16, dtype=F64), torch.randn(2, 16, dtype=F64)
    solve = Krylov(max_iterations=5).prepare(lambda t, u: u.roll(1, -1) - 2 * u, times(0), y, times(5.0, 1e-2)[:, None])
    x = solve(b)
    assert x[0].isnan().all()
    exact = DenseLU().prepare(lambda t, u: u.roll(1, -1) - 2 * u, times(0, 0)[:, None], y, times(5.0, 1e-2)[:, None])(b)
    assert (x[1] - exact[1]).abs().max() < 1e-6


def test_matrix_free_solves_in_single_precision():
    """The default residual of 1e-8 is below its rounding."""
    y, b = torch.randn(2, 16), torch.randn(2, 16)
    field, t, scale = lambda t, u: 30 * torch.sin(u.roll(1, -1)), torch.zeros(2, 1), torch.ones(2, 1)
    x, exact = (linear.prepare(field, t, y, scale)(b) for linear in (Krylov(), DenseLU()))
    assert ((x - exact).norm() / exact.norm()) < 1e-3


def test_matrix_free_says_that_it_has_no_forward_mode():
    with pytest.raises(ArgumentError, match="Krylov"):
        torch.func.jvp(lambda y: odeint(FIELD, y, times(0, 1), method=Rodas5P(linear=Krylov())).ys, (START,), (START,))


@pytest.mark.parametrize("method", [Rosenbrock23(), Rodas5P(), KenCarp4()], ids=STIFF)
def test_gradients_of_stiff_methods(method):
    """Against differences of a tight solve, and by replay."""
    field = VanDerPol(mu=5.0)
    options = {"method": method, "rtol": 1e-4, "atol": 1e-4}
    direct = gradients(field, Direct(), **options)
    assert distance(gradients(field, Replay(stride=3), **options), direct) < 1e-10
    y = odeint(field, START, times(0, 2), method=method, rtol=1e-5, atol=1e-5).ys[-1].sum()
    (by_mu,) = torch.autograd.grad(y, field.mu)
    high, low = (
        odeint(VanDerPol(5.0 + d), START, times(0, 2), method="dopri8", rtol=1e-11, atol=1e-11).ys[-1].sum()
        for d in (1e-4, -1e-4)
    )
    assert by_mu.item() == pytest.approx(((high - low) / 2e-4).item(), rel=5e-3)


def test_failures_stay_with_their_sample():
    def field(t, y):
        bad = torch.zeros_like(y)
        bad[1] = 1.0
        return -y * torch.where((bad > 0) & (t > 0.3), torch.nan, 1.0)

    solution = odeint(field, torch.ones(3, 2, dtype=F64), times(0, 1), method="rosenbrock23", rtol=1e-4, atol=1e-6)
    assert solution.stats.converged.tolist() == [True, False, True]
    assert (solution.ys[-1, [0, 2]] - math.exp(-1)).abs().max() < 1e-3


def test_tableau_of_kencarp4_has_order_four_and_its_companion_has_not():
    a = np.diag([0.0, *[kencarp_tableau.GAMMA] * 5])
    for i, row in enumerate(kencarp_tableau.A, start=1):
        a[i, :i] = row
    b, companion, c = np.asarray(kencarp_tableau.B), np.asarray(kencarp_tableau.COMPANION), a.sum(axis=1)
    assert max(residual(b, a, order) for order in (1, 2, 3, 4)) < 1e-14
    assert residual(b, a, 5) > 1e-3
    assert max(residual(companion, a, order) for order in (1, 2, 3)) < 1e-14
    assert residual(companion, a, 4) > 1e-3  # negative control
    # Places, stage order two, stiff accuracy, and what a step makes of an infinitely stiff component.
    assert np.abs(c[1:] - kencarp_tableau.TIMES).max() < 1e-14
    assert np.abs(a @ c - c**2 / 2)[1:].max() < 1e-14
    assert (a[-1] == b).all()
    assert abs(1 - 1e9 * b @ np.linalg.solve(np.eye(6) + 1e9 * a, np.ones(6))) < 1e-7


@pytest.mark.parametrize(("method", "order"), [(KenCarp4, 4), (Rodas5P, 2)], ids=["kencarp4", "rodas5p"])
def test_only_newton_forgives_a_wrong_matrix(method, order, exact):
    class Wrong(DenseLU):
        def prepare(self, field, t, y, scale):
            return super().prepare(field, t, y, 1.2 * scale)

    errors = [(solve(method(linear=Wrong()), h).ys[-1] - exact[-1]).norm().item() for h in (1 / 40, 1 / 80)]
    assert abs(slopes(errors)[0] - order) < 0.5


def test_estimate_of_kencarp4_knows_what_newton_left():
    """Van der Pol's equation in long steps: without its last term, steps pass on which Newton has not converged."""

    class Careless(KenCarp4):
        def step(self, field, t, y, slope, h):
            new = super().step(field, t, y, slope, h)
            solve = self.linear.prepare(field, t, y, h / 4)
            return new._replace(defect=new.defect - solve(h * (new.slope - new.stages[1]) / 4))

    field, y0, ts = VanDerPol(mu=100.0).requires_grad_(False), torch.tensor([[2.0, 0.0]], dtype=F64), times(0, 60)
    expected = odeint(field, y0, ts, method="rodas5p", rtol=1e-8, atol=1e-10).ys[-1]
    careful, careless = (
        (odeint(field, y0, ts, method=method, rtol=1e-5, atol=1e-7).ys[-1] / expected - 1).abs().max()
        for method in (KenCarp4(), Careless())
    )
    assert careful < 5e-5
    assert careless > 5e-4  # negative control


def test_kencarp4_without_iterations_is_refused():
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        KenCarp4(iterations=0)
