"""Continuous adjoints: right to the tolerance and no more; solving backward fails where backward is unstable."""

import pytest
import torch

from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError
from neuralop_kit.solvers.ode import Backsolve, Direct, Interpolating, Replay, odeint
from tests.solvers.ode.problems import F64, START, Network, VanDerPol, times
from tests.solvers.ode.test_gradients import distance, gradients

BOTH = pytest.mark.parametrize("adjoint", [Backsolve(), Interpolating()], ids=["backsolve", "interpolating"])


def of_states(solution):
    return solution.ys.square().sum()


@BOTH
@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_agrees_with_direct_to_the_tolerance_only(adjoint, control):
    errors = []
    for tolerance in (1e-4, 1e-7):
        options = {"loss": of_states, "rtol": tolerance, "atol": tolerance, "control": control}
        expected = gradients(Network(), Direct(), **options)
        assert distance(gradients(Network(), Replay(), **options), expected) < 1e-12
        errors.append(distance(gradients(Network(), adjoint, **options), expected))
        assert 1e-4 * tolerance < errors[-1] < 50 * tolerance
    assert errors[1] < 0.05 * errors[0]


def test_backsolve_fails_where_backward_is_unstable():
    """x' = 30 (cos t - x), z' = rate x: what decays forward grows backward, errors and all, and rate hears of it."""

    def by_rate(adjoint):
        rate = torch.tensor(2.0, dtype=F64, requires_grad=True)

        def field(t, y):
            return torch.cat([30 * (torch.cos(t) - y[:, :1]), rate * y[:, :1]], dim=1)

        y0 = torch.ones(1, 2, dtype=F64)
        y = odeint(field, y0, times(0, 2), rtol=1e-8, atol=1e-8, max_steps=3000, adjoint=adjoint).ys[-1, 0, 1]
        return torch.autograd.grad(y, rate)[0].item()

    expected = by_rate(Direct())
    assert by_rate(Replay()) == pytest.approx(expected, rel=1e-12)
    assert by_rate(Interpolating()) == pytest.approx(expected, rel=1e-6)
    assert abs(by_rate(Backsolve()) / expected - 1) > 10  # negative control


def test_backsolve_of_van_der_pol_does_not_come_back():
    """Its states leave for infinity in finite time; the failure is an error, not a wrong number."""
    field = VanDerPol()
    options = {"rtol": 1e-3, "atol": 1e-3}
    y = odeint(field, START, times(0, 10), adjoint=Backsolve(), **options).ys[-1].sum()
    with pytest.raises(ConvergenceError, match=r"expected .*, got .*; "):
        y.backward()
    y = odeint(field, START, times(0, 10), adjoint=Replay(), **options).ys[-1].sum()
    assert torch.autograd.grad(y, field.mu)[0].isfinite()


@BOTH
def test_a_tensor_behind_a_graph_and_the_times_get_their_gradients(adjoint):
    outer, t = torch.tensor(0.5, dtype=F64, requires_grad=True), times(1, 0).requires_grad_()
    rate = 2 * outer.exp()
    y0 = torch.ones(2, 1, dtype=F64)
    y = odeint(lambda t, y: -rate * y, y0, t, rtol=1e-8, atol=1e-8, adjoint=adjoint).ys[-1].sum()
    by_outer, by_t = torch.autograd.grad(y, [outer, t])
    value = 2 * torch.exp(rate)
    assert by_outer.item() == pytest.approx((rate * value).item(), rel=1e-6)
    assert (by_t - rate * torch.stack([value, -value])).abs().max() < 1e-5 * value


@BOTH
@pytest.mark.parametrize(
    "options", [{"method": "rodas5p"}, {"dense": True}, {"t": times(0, 1)[:, None] * times(1, 2)}], ids=str
)
def test_what_it_is_not_written_for_is_refused(adjoint, options):
    options = {"t": times(0, 1), **options}
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        odeint(lambda t, y: -y, torch.ones(2, 1, dtype=F64, requires_grad=True), adjoint=adjoint, **options)
