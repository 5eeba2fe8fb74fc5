"""Several trial steps per call: the same decisions, numbers and gradients as one by one."""

import math

import pytest
import torch

from neuralop_kit.solvers.ode import (
    Bosh3,
    Dopri8,
    FixedStep,
    IController,
    Joint,
    PerSample,
    PIController,
    PIDController,
    Rosenbrock23,
    Tsit5,
    flight,
    logbook,
    odeint,
    record,
    trial,
)
from neuralop_kit.solvers.status import Status
from tests.solvers.ode.problems import F64, VanDerPol, several_starts, times
from tests.solvers.ode.test_outputs import own_times

COUNTS = ("num_accepted", "num_rejected", "num_evaluations", "status", "accepted")
PER_STEP = ("error", "stiffness", "step_size", "step_start")


@pytest.fixture(autouse=True)
def calls(monkeypatch) -> list[int]:
    """The loop is what is tested, not the code generator; hears how many steps each call took."""
    heard = []

    def fly(stepper, route, aloft, count, *, keep):
        heard.append(count)
        return flight.fly(stepper, route, aloft, count, keep=keep)

    monkeypatch.setattr(flight, "compiled", lambda function, kinds, control, y: fly)
    monkeypatch.setattr(trial, "compiled", lambda function, kinds, control, y: function)
    return heard


def both_ways(field, y0, t, method, **options):
    return tuple(odeint(field, y0, t, method=method(compile=flag), **options) for flag in (False, True))


def assert_same(one, other, *, rtol: float = 1e-9):
    assert torch.allclose(one.ys, other.ys, rtol=rtol, atol=1e-12, equal_nan=True)
    assert torch.allclose(one.last_t, other.last_t, rtol=1e-12)
    assert torch.allclose(one.last_y, other.last_y, rtol=rtol, atol=1e-12)
    for name in COUNTS:
        assert torch.equal(getattr(one.stats, name), getattr(other.stats, name)), name
    for name in PER_STEP:
        a, b = getattr(one.stats, name), getattr(other.stats, name)
        assert a.dtype == b.dtype
        assert torch.allclose(a, b, rtol=max(1e-6, 10 * rtol), atol=1e-9), name


@pytest.mark.parametrize("control", [PerSample(), Joint()], ids=["per_sample", "joint"])
@pytest.mark.parametrize(
    "controller",
    [None, IController(shrinks_when_accepted=False), PIDController(), FixedStep(0.03)],
    ids=["pi", "i", "pid", "fixed"],
)
def test_same_steps_and_gradients(control, controller, calls):
    field, y0 = VanDerPol(2.0, force=1.0), several_starts(5).requires_grad_()
    found = both_ways(field, y0, times(0, 3), Tsit5, control=control, controller=controller, rtol=1e-5, atol=1e-5)
    assert_same(*found)
    assert set(calls) == {1, flight.BURST}
    one, other = (
        torch.autograd.grad(solution.ys[-1].sum() + solution.stats.error.sum(), [y0, field.mu]) for solution in found
    )
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(one, other, strict=True))


def test_backward_in_time_single_precision_and_no_way_to_go():
    y0 = several_starts(3).float()
    with torch.no_grad():
        assert_same(*both_ways(lambda t, y: t * y.sin(), y0, times(1, -1), Bosh3, rtol=1e-3, atol=1e-3), rtol=1e-4)
    own = torch.stack([times(0, 0, 0), times(1, 0, 2)])
    assert_same(*both_ways(VanDerPol(), several_starts(3), own, Tsit5))


@pytest.mark.parametrize("kept", [0, 300, record.KEPT], ids=["each", "several", "all"])
@pytest.mark.parametrize("control", [PerSample(), Joint()], ids=["per_sample", "joint"])
def test_inner_times_are_served_on_the_way(control, kept, calls, generator, monkeypatch):
    t = times(0, 0, 0.3, 0.30001, 1, 1)[:, None] if isinstance(control, Joint) else own_times(generator)
    t, field = (t[:, 0] if t.shape[1] == 1 else t), VanDerPol(5.0, force=1.0)
    y0 = several_starts(4).requires_grad_()
    expected = odeint(field, y0, t, method="dopri8", control=control)
    monkeypatch.setattr(logbook, "KEPT", kept)
    found = odeint(field, y0, t, method=Dopri8(compile=True), control=control)
    assert set(calls) == {1, flight.BURST}
    assert_same(expected, found)
    one, other = (torch.autograd.grad(s.ys.cos().sum(), [y0, field.mu]) for s in (expected, found))
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(one, other, strict=True))


def test_stiff_methods_fly_too():
    assert_same(*both_ways(VanDerPol(20.0), several_starts(2), times(0, 0.5, 1), Rosenbrock23, rtol=1e-4, atol=1e-4))


def later_nan(t, y):
    return -y * torch.where((y > 5) & (t > 0.3), torch.nan, 1.0)


@pytest.mark.parametrize(
    ("field", "options", "status"),
    [
        (lambda t, y: torch.where(y > 5, y**2, -y), {}, Status.STEP_UNDERFLOW),
        (later_nan, {}, Status.NOT_FINITE),
        (lambda t, y: -y, {"max_steps": 3}, Status.MAX_ITERATIONS),
        (later_nan, {"controller": FixedStep(0.1)}, Status.NOT_FINITE),
    ],
    ids=["blow-up", "nan", "max_steps", "nan at fixed steps"],
)
def test_failures_are_the_same(field, options, status):
    y0 = torch.tensor([[1.0], [9.0], [2.0]], dtype=F64)
    one, other = both_ways(field, y0, times(0, 0, 0.2, 0.4, 0.5), Tsit5, **options)
    assert other.stats.status[1] == status
    assert torch.equal(one.stats.status, other.stats.status)
    assert torch.allclose(one.ys, other.ys, rtol=1e-6, equal_nan=True)
    assert torch.allclose(one.last_y, other.last_y, rtol=1e-6)


def test_a_trial_state_without_a_slope_does_not_spoil_shared_parameters():
    """As in the loop: NaN times a zero gradient is NaN; the root is NaN left of zero, where long steps go."""
    rate = torch.tensor(1.5, dtype=F64, requires_grad=True)
    y0 = torch.tensor([[1.0], [1e-3], [2.0]], dtype=F64)
    gradients = []
    for solution in both_ways(lambda t, y: -rate * y.sqrt(), y0, times(0, 0.01, 0.5), Tsit5, first_step=0.3):
        value = solution.ys[1:, [0, 2]].sum() + solution.stats.error.sum()
        gradients += torch.autograd.grad(value, [rate])
    assert gradients[1].isfinite()
    assert torch.allclose(*gradients, rtol=1e-9)


def test_whoever_looks_at_single_steps_gets_them(calls):
    """Dense output, and rules for step sizes that tensors do not know."""

    class Own(PIController):
        def factor(self, log_error, history, accepted, order):
            return super().factor(log_error, history, accepted, order)

    y0 = several_starts(2)
    for t, options in (
        (times(0, 1), {"dense": True}),
        (times(0, 1), {"controller": Own()}),
    ):
        solution = odeint(VanDerPol(), y0, t, method=Tsit5(compile=True), **options)
        assert math.isfinite(solution.ys.sum().item())
    assert not calls
