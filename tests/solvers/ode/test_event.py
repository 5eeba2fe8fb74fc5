"""Events: their times against formulas, gradients by everything, samples without one, what is refused."""

import math

import pytest
import torch

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode import odeint, odeint_event
from neuralop_kit.solvers.status import Status
from tests.solvers.ode.problems import F64, START, VanDerPol, times

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def turn(t, y):
    """x = cos(t + phase)."""
    return torch.stack([y[:, 1], -y[:, 0]], dim=1)


def height(t, y):
    return y[:, 0]


def at_phase(phase):
    return torch.stack([torch.cos(phase), -torch.sin(phase)], dim=1)


@pytest.mark.parametrize("method", ["tsit5", "dopri5", "rodas5p"])
def test_every_sample_finds_its_own_zero(method):
    phase = times(0.1, 0.5, 1.0, 3.0)
    options = {"method": method, "rtol": 1e-9, "atol": 1e-9}
    found = odeint_event(turn, at_phase(phase), times(0, math.inf), height, **options)
    zeros = torch.tensor([0.5, 0.5, 0.5, 1.5], dtype=F64) * math.pi - phase
    assert found.found.all()
    assert (found.t - zeros).abs().max() < 1e-6
    assert height(found.t, found.y).abs().max() < 1e-12
    assert (found.y[:, 1].abs() - 1).abs().max() < 1e-6


def test_direction_and_backward_time():
    y0 = at_phase(times(0.1))
    rising = odeint_event(turn, y0, times(0, 10), height, direction=1, **TIGHT).t
    assert rising.item() == pytest.approx(1.5 * math.pi - 0.1, abs=1e-7)
    back = odeint_event(turn, y0, times(0, -math.inf), height, **TIGHT).t
    assert back.item() == pytest.approx(-0.5 * math.pi - 0.1, abs=1e-7)


def test_condition_may_depend_on_time():
    """cos t = t, Dottie's number."""
    found = odeint_event(turn, at_phase(times(0.0)), times(0, 2), lambda t, y: y[:, :1] - t, **TIGHT)
    assert found.t.item() == pytest.approx(0.7390851332151607, abs=1e-8)


def test_joint_control_has_one_event():
    phase = times(0.1, 0.5)
    found = odeint_event(
        turn, at_phase(phase), times(0, math.inf), lambda t, y: y[:, 0].min(), control="joint", **TIGHT
    )
    assert found.t.shape == (1,)
    assert found.t.item() == pytest.approx(math.pi / 2 - 0.5, abs=1e-8)
    assert found.y[0, 0].item() == pytest.approx(math.cos(math.pi / 2 - 0.4), abs=1e-7)


def test_samples_without_an_event_are_told_apart():
    """The first meets it, the second reaches the end, the third blows up at t = 1, the fourth has a NaN field."""
    kind = torch.arange(4, dtype=F64)[:, None]

    def field(t, y):
        slope = torch.where(kind == 2, y * y, -torch.ones_like(y))
        return torch.where(kind == 3, torch.nan, torch.where(kind == 1, torch.zeros_like(y), slope))

    y0 = torch.ones(4, 1, dtype=F64, requires_grad=True)
    found = odeint_event(field, y0, times(0, 5), height)
    assert found.found.tolist() == [True, False, False, False]
    assert found.t[0].item() == pytest.approx(1.0, abs=1e-9)
    assert found.t[1:].isnan().all()
    assert found.y[1:].isnan().all()
    expected = [Status.CONVERGED, Status.CONVERGED, Status.STEP_UNDERFLOW, Status.NOT_FINITE]
    assert found.stats.status.tolist() == expected
    (by_y0,) = torch.autograd.grad(found.t[0], y0)
    assert by_y0.flatten().tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-9)


def test_blow_up_ends_an_open_interval():
    found = odeint_event(lambda t, y: y * y, torch.ones(1, 1, dtype=F64), times(0, math.inf), lambda t, y: y[:, 0] + 1)
    assert found.stats.status.tolist() == [Status.STEP_UNDERFLOW]


def meeting(mu, y0, begin):
    """When the oscillator crosses a line that moves, and where."""
    field = VanDerPol()
    found = odeint_event(
        lambda t, y: torch.func.functional_call(field, {"mu": mu}, (t, y)),
        y0,
        torch.stack([begin, begin + 20]),
        lambda t, y: y[:, :1] + 0.1 * t,
        method="dopri8",
        rtol=1e-11,
        atol=1e-11,
    )
    assert found.found.all()
    return found.t, found.y


def test_gradients_of_time_and_state():
    """By a parameter, by the initial state and by the first time, against differences."""
    inputs = (times(2.0)[0].requires_grad_(), START.clone().requires_grad_(), times(0.2)[0].requires_grad_())
    assert torch.autograd.gradcheck(meeting, inputs, eps=1e-5, atol=1e-5, rtol=1e-4)


def test_ball_bounces():
    """Heights fall by the square of the restitution; the event restarts on the ground."""
    y, t, bounces = torch.tensor([[5.0, 0.0]], dtype=F64), times(0.0), []

    def fall(t, y):
        return torch.stack([y[:, 1], torch.full_like(y[:, 1], -10.0)], dim=1)

    for _ in range(3):
        hit = odeint_event(fall, y, torch.cat([t, times(math.inf)]), height, direction=-1, **TIGHT)
        t, y = hit.t, torch.stack([torch.zeros_like(hit.t), -0.5 * hit.y[:, 1]], dim=1)
        bounces.append(t.item())
    assert bounces == pytest.approx([1.0, 2.0, 2.5], abs=1e-8)


def test_what_is_refused():
    y0 = at_phase(times(0.1))
    for ts, options in (
        (times(0, 1, 2), {}),
        (times(0, 1), {"direction": 2}),
        (times(math.inf, 1), {}),
        (times(0, math.nan), {}),
    ):
        with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
            odeint_event(turn, y0, ts, height, **options)
    with pytest.raises(ArgumentError, match="odeint_event"):
        odeint(turn, y0, times(0, math.inf))
