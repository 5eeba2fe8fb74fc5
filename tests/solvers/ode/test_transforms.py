"""Transforms of torch.func: all derivatives of a solve; vmap is refused, since a batch is the solver's own business."""

import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode import Backsolve, FixedStep, Interpolating, Replay, Rosenbrock23, odeint, odeint_event
from neuralop_kit.solvers.sde import BrownianTree, sdeint
from tests.solvers.ode.problems import F64, VanDerPol, several_starts, times

FIELD = VanDerPol(force=1.0).requires_grad_(False)


def solve(y0, **options):
    return odeint(FIELD, y0, times(0, 0.4, 1), **options).ys[1:]


def decay(rate):
    return odeint(lambda t, y: -rate * y, torch.ones(2, 1, dtype=F64), times(0, 0.5, 2), rtol=1e-10, atol=1e-10).ys


def noisy(y0, **options):
    return sdeint(FIELD, lambda t, y: 0.1 * y, y0, times(0, 1), controller=FixedStep(0.2), **options).ys[-1]


def by_rows(function, x):
    """Jacobian by one backward pass per number, without any transform."""
    x = x.clone().requires_grad_()
    y = function(x)
    rows = [torch.autograd.grad(number, x, retain_graph=True)[0] for number in y.flatten()]
    return torch.stack(rows).view(*y.shape, *x.shape)


@pytest.mark.parametrize("transform", [jacrev, jacfwd])
@pytest.mark.parametrize(
    "options",
    [{}, {"control": "joint"}, {"method": Rosenbrock23(), "controller": FixedStep(0.5)}],
    ids=["per sample", "joint", "stiff"],
)
def test_jacobians_by_the_initial_state(transform, options):
    y0 = several_starts(3)
    expected = by_rows(lambda y: solve(y, **options), y0)
    assert torch.allclose(transform(lambda y: solve(y, **options))(y0), expected, rtol=1e-11, atol=1e-11)
    assert expected[0, 0, :, 1:].abs().max() == 0 or options


@pytest.mark.parametrize("transform", [jacrev, jacfwd])
def test_jacobians_by_a_parameter(transform):
    rate = torch.tensor(1.5, dtype=F64)
    exact = -times(0, 0.5, 2) * torch.exp(-rate * times(0, 0.5, 2))
    assert (transform(decay)(rate)[:, :, 0] - exact[:, None]).abs().max() < 1e-8


def shrink(t):
    return odeint(lambda t, y: -y, torch.ones(1, 1, dtype=F64), t, rtol=1e-9, atol=1e-9).ys[-1, 0, 0]


def fall(start):
    """Time of the fall from a height of 5 with g = 10; it begins at ``start``."""
    t, y0 = torch.stack([start, torch.full_like(start, torch.inf)]), times(5, 0)[None]
    return odeint_event(lambda t, y: torch.stack([y[:, 1], 0 * y[:, 1] - 10], dim=1), y0, t, lambda t, y: y[:, 0]).t[0]


@pytest.mark.parametrize("transform", [jacrev, jacfwd])
def test_jacobians_by_times(transform):
    exact = times(1, -1) * torch.exp(times(-1))
    assert (transform(shrink)(times(0, 1)) - exact).abs().max() < 1e-8
    assert transform(fall)(times(2)[0]).item() == pytest.approx(1.0)
    assert jvp(shrink, (times(0, 1),), (times(1, 0),))[1].item() == pytest.approx(exact[0].item())


@pytest.mark.parametrize("transform", [jacrev, jacfwd])
def test_jacobians_of_dense_output_events_and_paths(transform):
    y0 = several_starts(3)

    def met(y):
        return odeint_event(FIELD, y, times(0, 5), lambda t, y: y[:, 0], rtol=1e-8).t

    def dense(y):
        return odeint(FIELD, y, times(0, 1), dense=True)(times(0.3)[0])

    def driven(y):
        return noisy(y, brownian=tree)

    tree = BrownianTree(0.0, 1.0, (3, 2), generator=torch.Generator().manual_seed(0), depth=12)
    for function in (met, dense, driven):
        assert torch.allclose(transform(function)(y0), by_rows(function, y0), rtol=1e-9, atol=1e-10)


def test_second_derivatives():
    rate = torch.tensor(1.5, dtype=F64)
    exact = 2 * 4 * torch.exp(-2 * rate)
    assert abs(hessian(lambda r: decay(r)[-1].sum())(rate) - exact) < 1e-7
    assert abs(grad(grad(lambda r: decay(r)[-1].sum()))(rate) - exact) < 1e-7
    assert abs(jvp(grad(lambda r: decay(r)[-1].sum()), (rate,), (torch.ones_like(rate),))[1] - exact) < 1e-7


@pytest.mark.parametrize(
    "mapped",
    [
        lambda x: solve(x),
        lambda x: solve(x, control="joint"),
        lambda x: solve(x, method="auto", adjoint=Replay()),
        lambda x: decay(x.sum()),  # hidden in the field, where only its values tell
        lambda x: odeint(FIELD, several_starts(3), x.sum() * times(0, 1)).ys,
        noisy,
        lambda x: odeint_event(FIELD, x, times(0, 5), lambda t, y: y[:, 0]).t,
        grad(lambda x: solve(x).sum()),
    ],
    ids=["state", "joint", "replay", "parameter", "times", "paths", "event", "gradient"],
)
def test_vmap_is_refused(mapped):
    with pytest.raises(ArgumentError, match=r"expected .*, got samples of torch.func.vmap; "):
        vmap(mapped)(several_starts(3).expand(4, 3, 2))


def test_what_vmap_is_wanted_for():
    """An ensemble of parameters: its axis is the batch, and only the field is mapped."""
    rates = times(0.5, 1.0, 2.0)
    field = vmap(lambda rate, y: -rate * y)
    ys = odeint(lambda t, y: field(rates, y), torch.ones(3, 1, dtype=F64), times(0, 1), rtol=1e-9, atol=1e-9).ys
    assert (ys[-1, :, 0] - torch.exp(-rates)).abs().max() < 1e-8


@pytest.mark.parametrize("adjoint", [Replay(), Interpolating(), Backsolve()], ids=lambda a: type(a).__name__)
def test_backward_passes_of_our_own_say_that_they_are_none_for_transforms(adjoint):
    for transform in (jacrev, jacfwd, grad):
        with pytest.raises(ArgumentError, match=r"expected Direct\(\) .*, got .*; "):
            transform(lambda y: solve(y, adjoint=adjoint).sum())(several_starts(3))
