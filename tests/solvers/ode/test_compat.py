"""torchdiffeq's signatures on torchdiffeq's kinds of problems, with formulas and with torchdiffeq beside."""

import math

import pytest
import torch
import torchdiffeq
from torch import nn

from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError
from neuralop_kit.solvers.ode import compat
from tests.solvers.ode.problems import F64, VanDerPol, times

TIMES = torch.linspace(1, 4, 5, dtype=F64)


class Constant:
    """Keeps to a straight line, however steep the field beside it."""

    @staticmethod
    def field(t, y):
        return 0.2 + (y - (0.2 * t + 3.0)) ** 5

    @staticmethod
    def exact(t):
        return 0.2 * t + 3.0


class Sine:
    """Not autonomous: y' = 2 y / t + t^4 sin 2t - t^2 + 4 t^3."""

    @staticmethod
    def field(t, y):
        return 2 * y / t + t**4 * torch.sin(2 * t) - t**2 + 4 * t**3

    @staticmethod
    def exact(t):
        waves = -0.5 * t**4 * torch.cos(2 * t) + 0.5 * t**3 * torch.sin(2 * t) + 0.25 * t**2 * torch.cos(2 * t)
        return waves - t**3 + 2 * t**4 + (math.pi - 0.25) * t**2


class Linear:
    """Ten components, coupled; the state is a plain vector."""

    matrix = torch.randn(10, 10, generator=torch.Generator().manual_seed(0), dtype=F64)
    matrix = 0.3 * (matrix - matrix.T) - 0.1 * torch.eye(10, dtype=F64)

    @classmethod
    def field(cls, t, y):
        return cls.matrix @ y

    @classmethod
    def exact(cls, t):
        return torch.linalg.matrix_exp(cls.matrix * t[:, None, None]) @ torch.ones(10, dtype=F64)


PROBLEMS = [Constant, Sine, Linear]


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


LOOSE = ("adaptive_heun", "bosh3", "rodas5p")


@pytest.mark.parametrize("method", [None, "dopri8", *LOOSE])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_known_solutions(problem, method):
    exact, tolerance = problem.exact(TIMES), 1e-5 if method in LOOSE else 1e-8
    y = compat.odeint(problem.field, exact[0], TIMES, method=method, rtol=tolerance, atol=tolerance)
    assert y.shape == exact.shape
    assert relative(y, exact) < 300 * tolerance


# The line of the first problem repels backward in time.
@pytest.mark.parametrize("problem", [Sine, Linear])
def test_backward_in_time(problem):
    ts = TIMES.flip(0)
    exact = problem.exact(ts)
    assert relative(compat.odeint(problem.field, exact[0], ts, method="tsit5", rtol=1e-8, atol=1e-8), exact) < 3e-6


@pytest.mark.parametrize("problem", PROBLEMS)
def test_as_many_evaluations_as_torchdiffeq(problem):
    """The same controller: the counts differ by the overshoot at the end alone."""

    def count(odeint):
        calls = [0]

        def field(t, y):
            calls[0] += 1
            return problem.field(t, y)

        y = odeint(field, problem.exact(TIMES)[0], TIMES, rtol=1e-7, atol=1e-7, method="dopri5")
        return calls[0], y

    ours, theirs = count(compat.odeint), count(torchdiffeq.odeint)
    assert abs(ours[0] - theirs[0]) <= 12
    assert relative(ours[1], theirs[1]) < 1e-5


@pytest.mark.parametrize(("method", "tolerance"), [("rk4", 2e-4), ("euler", 0.2)])
def test_fixed_steps(method, tolerance):
    exact = Sine.exact(TIMES)
    by_option = compat.odeint(Sine.field, exact[0], TIMES, method=method, options={"step_size": 0.05})
    assert relative(by_option, exact) < tolerance
    fine = torch.linspace(1, 4, 61, dtype=F64)
    by_times = compat.odeint(Sine.field, exact[0], fine, method=method)
    assert relative(by_times[::15], by_option) < 1e-10
    theirs = torchdiffeq.odeint(Sine.field, exact[0], fine, method=method)
    assert relative(by_times, theirs) < (1e-5 if method == "rk4" else 1e-12)


def test_tuples_and_complex_numbers():
    """A rotation as one complex number, as a pair, and as a pair of unlike shapes."""
    ts, y0 = times(0, 1, 2), torch.tensor([1.0 + 0.5j, -0.3j], dtype=torch.complex128)
    exact = torch.exp(2j * ts)[:, None] * y0
    options = {"rtol": 1e-9, "atol": 1e-9}
    assert (compat.odeint(lambda t, y: 2j * y, y0, ts, **options) - exact).abs().max() < 1e-6
    pair = compat.odeint(lambda t, y: (-2 * y[1], 2 * y[0]), (y0.real, y0.imag), ts, **options)
    assert (torch.complex(*pair) - exact).abs().max() < 1e-6
    unlike = (y0.reshape(1, 2), torch.tensor(1.0, dtype=F64))
    spun, decayed = compat.odeint(lambda t, y: (2j * y[0], -y[1]), unlike, ts, rtol=1e-9, atol=(1e-9, 1e-10))
    assert spun.shape == (3, 1, 2)
    assert (spun[:, 0] - exact).abs().max() < 1e-6
    assert (decayed - torch.exp(-ts)).abs().max() < 1e-7


class Module(nn.Module):
    """A field with parameters whose state is a pair."""

    def __init__(self):
        super().__init__()
        self.field = VanDerPol(0.5, force=1.0)

    def forward(self, t, y):
        return tuple(self.field(t, torch.cat(y).reshape(1, 2))[0].split(1))


def derivatives(odeint):
    field = Module()
    leaves = [times(0.7).requires_grad_(), times(-0.2).requires_grad_(), times(0, 0.5, 2).requires_grad_()]
    first, second = odeint(field, tuple(leaves[:2]), leaves[2], rtol=1e-9, atol=1e-9, method="dopri5")
    return torch.autograd.grad((first * second).sum() + first.square().sum(), [*leaves, field.field.mu])


def test_gradients_are_torchdiffeqs():
    """By the state, by the times and by parameters."""
    direct = derivatives(compat.odeint)
    for ours, replayed, theirs in zip(
        direct, derivatives(compat.odeint_adjoint), derivatives(torchdiffeq.odeint_adjoint), strict=True
    ):
        assert relative(replayed, ours) < 1e-10
        assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("reverse", [False, True])
def test_events(reverse):
    """A ball with two walls: which it meets first, and when, by the initial state and the first time."""

    def fall(t, y):
        speed = y[1]
        return speed, torch.full_like(speed, -10.0 if not reverse else 10.0)

    def walls(t, y):
        return torch.stack([y[0], 20.0 - y[0]])

    def landing(odeint_event):
        leaves = [times(5.0)[0].requires_grad_(), times(0.0)[0].requires_grad_(), times(0.3)[0].requires_grad_()]
        options = {"event_fn": walls, "reverse_time": reverse, "rtol": 1e-9, "atol": 1e-9}
        t, y = odeint_event(fall, tuple(leaves[:2]), leaves[2], **options)
        return t, y[1][-1], *torch.autograd.grad(t + y[1][-1], leaves[:2])

    ours = landing(compat.odeint_event)
    for value, theirs in zip(ours, landing(torchdiffeq.odeint_event), strict=True):
        assert value.item() == pytest.approx(theirs.item(), abs=1e-5)
    if not reverse:
        assert ours[0].item() == pytest.approx(1.3, abs=1e-8)


def test_what_is_refused():
    y0 = times(1.0)
    for options in ({"method": "midpoint"}, {"options": {"norm": max}}, {"rtol": -1.0}):
        with pytest.raises(ArgumentError, match=r"expected .*, got .*"):
            compat.odeint(lambda t, y: -y, y0, times(0, 1), **options)
    with pytest.raises(ConvergenceError):
        compat.odeint(lambda t, y: y**2, y0, times(0, 2))
    with pytest.raises(ConvergenceError):
        compat.odeint_event(lambda t, y: y**2, y0, times(0)[0], event_fn=lambda t, y: y + 1)
