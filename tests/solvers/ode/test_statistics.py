"""Error and stiffness estimates: exact where theory gives them, differentiable, counted like the peers count."""

import numpy as np
import pytest
import torch
import torchdiffeq

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode import (
    Dopri5,
    FixedStep,
    IController,
    PIController,
    PIDController,
    Tsit5,
    odeint,
)
from tests.solvers.ode.problems import F64, START, VanDerPol, several_starts, times


def one_step(field, y0, h, **options):
    """Estimates of a single step of length h."""
    return odeint(field, y0, times(0, h), controller=FixedStep(h), **options).stats


@pytest.mark.parametrize("rate", [1e-2, 1.0, 1e3])
@pytest.mark.parametrize("size", [0.05, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("method", [Tsit5(), Dopri5()], ids=["Tsit5", "Dopri5"])
def test_stiffness_of_a_linear_field_is_its_rate(rate, size, method):
    y0 = torch.tensor([[1.0, -2.0], [0.3, 0.1]], dtype=F64)
    for control in ("per_sample", "joint"):
        stats = one_step(lambda t, y: -rate * y, y0, size / rate, method=method, control=control)
        assert (stats.stiffness / rate - 1).abs().max() < 1e-10


@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_error_of_a_linear_field_is_the_companions_polynomial(control):
    """For y' = -y the defect of a pair is a polynomial in h times y, known from the tableau alone."""
    tableau, h = Tsit5.tableau, 0.7
    a = np.zeros((7, 7))
    for i, row in enumerate(tableau.a):
        a[i + 1, : len(row)] = row
    stages = np.linalg.solve(np.eye(7) + h * a, np.ones(7))
    after, defect = 1 - h * np.asarray(tableau.b) @ stages, -h * np.asarray(tableau.error) @ stages
    y0 = torch.tensor([[1.0, -2.0], [0.3, 0.1]], dtype=F64)
    rtol, atol = 1e-2, 1e-3
    expected = defect * y0 / (atol + rtol * y0.abs() * max(1.0, abs(after)))
    axes = 1 if control == "per_sample" else (0, 1)
    rms = expected.square().mean(dim=axes).sqrt().reshape(-1)
    stats = one_step(lambda t, y: -y, y0, h, rtol=rtol, atol=atol, control=control)
    assert stats.error.shape == (1, 2 if control == "per_sample" else 1)
    assert (stats.error[0] / rms - 1).abs().max() < 1e-11


def test_tolerances_may_differ_by_component():
    y0 = torch.tensor([[1.0, -2.0], [0.3, 0.1]], dtype=F64)
    atol = torch.tensor([1e-3, 1e9], dtype=F64)
    tight = one_step(lambda t, y: -y, y0, 0.7, rtol=1e-12, atol=atol).error[0]
    alone = one_step(lambda t, y: -y, y0[:, :1], 0.7, rtol=1e-12, atol=1e-3).error[0]
    # The second component counts in the mean and adds nothing to the sum.
    assert (tight / alone * 2**0.5 - 1).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["error", "stiffness"])
def test_derivatives_of_the_estimates(name):
    """Against central differences with the same step."""

    def value(mu):
        field = VanDerPol()
        field.mu = torch.nn.Parameter(mu)
        return getattr(one_step(field, START, 0.2, rtol=1e-2, atol=1e-2), name)[0, 0], field.mu

    mu = torch.tensor(2.0, dtype=F64)
    estimate, leaf = value(mu)
    (derivative,) = torch.autograd.grad(estimate, leaf)
    difference = (value(mu + 1e-5)[0] - value(mu - 1e-5)[0]) / 2e-5
    assert torch.isclose(derivative, difference, rtol=1e-6)


# ---- step-size control


def factor(controller, error, previous=1.0, *, accepted=True):
    log = np.log([error])
    return float(controller.factor(log, (np.log([previous]), np.zeros(1)), np.array([accepted]), 5)[0])


def test_factors():
    assert factor(PIController(), 1.0) == pytest.approx(0.9)
    assert factor(IController(), 2.0**-5) == pytest.approx(1.8)
    assert factor(IController(), 1e-30) == 10.0
    assert factor(IController(), np.inf, accepted=False) == 0.2
    assert factor(IController(shrinks_when_accepted=False), 1.0) == 1.0
    # SciML's for Tsit5, written as there.
    sciml = PIController(exponents=(0.7, 0.4, 0.0))
    assert factor(sciml, 0.3, 0.02) == pytest.approx(1 / (0.3**0.14 / 0.02**0.08 / 0.9))
    assert factor(sciml, 3.0, 0.02, accepted=False) == pytest.approx(0.9 / 3.0**0.14)
    for bad in ({"safety": 0.0}, {"min_factor": 2.0}, {"max_factor": 0.5}, {"first_error": 0.0}):
        with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
            PIDController(**bad)
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        FixedStep(0.0)


def torchdiffeq_trials(y0, ts, tolerance):
    calls, field = [0], VanDerPol().requires_grad_(False)

    def counted(t, y):
        calls[0] += 1
        return field(t, y)

    torchdiffeq.odeint(counted, y0, ts, method="dopri5", rtol=tolerance, atol=tolerance)
    return (calls[0] - 2) / 6


@pytest.mark.parametrize("controller", [PIController(), IController(), PIDController()], ids=["PI", "I", "PID"])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6])
def test_step_counts_agree_with_torchdiffeq(controller, tolerance):
    field, ts = VanDerPol().requires_grad_(False), times(0, 10)
    y0 = several_starts(6)
    stats = odeint(
        field, y0, ts, method="dopri5", control="joint", controller=controller, rtol=tolerance, atol=tolerance
    ).stats
    trials = (stats.num_accepted + stats.num_rejected)[0].item()
    theirs = torchdiffeq_trials(y0, ts, tolerance)
    # Feedback from more than one error rejects less at loose tolerance; it must not need more.
    assert trials <= 1.1 * theirs
    if isinstance(controller, IController):
        assert trials >= 0.9 * theirs


def test_compatible_controller_takes_the_steps_of_torchdiffeq():
    """All of them, but the last, which ends at the last time here and beyond it there."""
    field, ts = VanDerPol().requires_grad_(False), times(0, 10)
    theirs = []

    class Watched(VanDerPol):
        def callback_accept_step(self, t0, y0, dt):
            theirs.append(dt.item())

    torchdiffeq.odeint(Watched().requires_grad_(False), START, ts, method="dopri5", rtol=1e-6, atol=1e-6)
    controller = IController(shrinks_when_accepted=False)
    ours = odeint(field, START, ts, method="dopri5", control="joint", controller=controller).stats.step_size[:, 0]
    count = len(theirs) - 2
    assert (ours[:count] / torch.tensor(theirs[:count], dtype=F64) - 1).abs().max() < 1e-6
