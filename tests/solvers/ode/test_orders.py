"""Orders on a nonlinear problem that depends on time, by fixed steps; and a wrong pair that fails."""

import itertools
import math

import pytest
import torch

from neuralop_kit.solvers.ode import RK4 as ClassicalRK4
from neuralop_kit.solvers.ode import Bosh3, Dopri5, Dopri8, Euler, FixedStep, Heun, Tsit5, odeint
from tests.solvers.ode.problems import START, VanDerPol, times

FIELD = VanDerPol(mu=1.0, force=1.0).requires_grad_(False)
INNER = torch.linspace(0, 2, 41, dtype=torch.float64)


@pytest.fixture(scope="module")
def exact():
    """At all inner times, by the pair of order eight at 1e-13; scipy confirms that solver elsewhere."""
    ends = [START]
    for begin, end in itertools.pairwise(INNER):
        ends.append(odeint(FIELD, ends[-1], torch.stack([begin, end]), method="dopri8", rtol=1e-13, atol=1e-13).ys[-1])
    return torch.stack(ends)


def solve(method, h):
    """Fixed steps; the estimates are not divided by a tolerance, so that they are errors."""
    return odeint(FIELD, START, INNER, method=method, controller=FixedStep(h), rtol=1e-300, atol=1.0)


def slopes(values):
    return [math.log2(a / b) for a, b in itertools.pairwise(values)]


def end_errors(method, exact, steps):
    return [(solve(method, h).ys[-1] - exact[-1]).norm().item() for h in steps]


@pytest.mark.parametrize(
    "method", [Tsit5(), Dopri5(), Bosh3(), Heun(), ClassicalRK4(), Euler()], ids=lambda m: type(m).__name__
)
def test_order_is_at_least_what_is_promised(method, exact):
    """A correct pair of order 5 exceeds it before rounding, for its error constant is small: one side only."""
    errors = end_errors(method, exact, [1 / 8, 1 / 16, 1 / 32, 1 / 64])
    for slope, error in zip(slopes(errors)[1:], errors[2:], strict=True):
        assert slope >= method.order - 0.3 or error < 1e-12


def test_order_eight(exact):
    errors = end_errors(Dopri8(), exact, [1 / 4, 1 / 8])
    assert slopes(errors)[0] > 7.7


@pytest.mark.parametrize(("method", "order"), [(Bosh3(), 3), (Heun(), 2), (Euler(), 1)], ids=["Bosh3", "Heun", "Euler"])
def test_low_orders_are_not_exceeded(method, order, exact):
    errors = end_errors(method, exact, [1 / 128, 1 / 256])
    assert abs(slopes(errors)[0] - order) < 0.2


def test_swapped_weights_are_of_order_four_only(exact):
    """The embedded weights taken for the solution, as a peer does: the test above tells them from correct ones."""
    tableau = Tsit5.tableau
    companion = tuple(b + e for b, e in zip(tableau.b, tableau.error, strict=True))

    class Swapped(Tsit5):
        def step(self, field, t, y, slope, h):
            new = super().step(field, t, y, slope, h)
            state = y + h * sum(w * k for w, k in zip(companion, new.stages, strict=True))
            return new._replace(y=state, slope=field(t + h, state))

    errors = end_errors(Swapped(), exact, [1 / 16, 1 / 32, 1 / 64])
    assert max(slopes(errors)) < 4.3


ESTIMATING = pytest.mark.parametrize(
    ("method", "order"), [(Tsit5(), 5), (Dopri5(), 5), (Bosh3(), 3)], ids=["Tsit5", "Dopri5", "Bosh3"]
)


@ESTIMATING
def test_error_estimate_has_the_local_order_of_the_companion(method, order):
    estimates = [solve(method, h).stats.error.max().item() for h in (1 / 32, 1 / 64, 1 / 128)]
    assert all(abs(slope - order) < 0.1 for slope in slopes(estimates))


@ESTIMATING
def test_dense_output_has_its_order(method, order, exact):
    """The quartics have a local error h^5, as the steps have at the end; the cubic of Bosh3 h^4, its steps h^3."""
    # Steps such that no time asked for is the end of one; the mean, for the largest error depends on where times fall.
    shifted = [1.001 * h for h in (1 / 16, 1 / 32, 1 / 64)]
    errors = [(solve(method, h).ys - exact).abs().mean().item() for h in shifted]
    assert all(abs(slope - order) < 0.25 for slope in slopes(errors))


def test_times_are_met_from_both_sides():
    forward = odeint(FIELD, START, times(0, 1), controller=FixedStep(0.3)).stats.step_size[:, 0]
    assert (forward - times(0.3, 0.3, 0.3, 0.1)).abs().max() < 1e-12
