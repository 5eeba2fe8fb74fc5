"""Gradients: exact for what the solver did, by every route; right for the equation where tolerances are tight."""

import pytest
import torch
from torch.autograd import gradcheck

from neuralop_kit.solvers.ode import Bosh3, Direct, FixedStep, Joint, PerSample, Replay, flight, odeint, trial
from neuralop_kit.solvers.status import Status
from tests.solvers.ode.problems import END_BY_MU, F64, START, Network, VanDerPol, several_starts, times

EXACT = {"replay": Replay(), "checkpointed": Replay(stride=4)}


def everything(solution):
    """A loss that uses states at all times, both estimates and the last state."""
    stats = solution.stats
    return (
        solution.ys.square().sum()
        + (stats.error * stats.step_size).sum()
        + 0.01 * stats.stiffness.square().sum()
        + solution.last_y.sum()
    )


def gradients(field, adjoint, *, loss=everything, control="per_sample", **options):
    y0 = several_starts(4).requires_grad_()
    value = loss(odeint(field, y0, times(0, 0.5, 0.6, 2), control=control, adjoint=adjoint, **options))
    return torch.autograd.grad(value, [y0, *field.parameters()])


def distance(some, others):
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("control", ["per_sample", "joint"])
@pytest.mark.parametrize("adjoint", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("field", [VanDerPol(force=1.0), Network()], ids=["oscillator", "network"])
def test_replay_is_direct(field, adjoint, control):
    """States, error and stiffness estimates; the solve rejects steps and, in per-sample control, mixes rows."""
    expected = gradients(field, Direct(), control=control)
    assert distance(gradients(field, adjoint, control=control), expected) < 1e-12


def test_replay_keeps_states_only():
    """Direct backpropagation keeps far more than a state per step; what is kept is counted where it is saved."""

    def kept(adjoint):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            odeint(VanDerPol(), several_starts(4), times(0, 2), adjoint=adjoint)
        return sum(sizes)

    assert kept(Replay()) < 0.05 * kept(Direct())


@pytest.mark.parametrize("adjoint", [Direct(), Replay()], ids=["direct", "replay"])
def test_a_tensor_of_a_plain_function_gets_its_gradient(adjoint):
    outer = torch.tensor(0.5, dtype=F64, requires_grad=True)
    rate = 2 * outer.exp()
    y0 = torch.ones(2, 1, dtype=F64)
    y = odeint(lambda t, y: -rate * y, y0, times(0, 1), rtol=1e-9, atol=1e-9, adjoint=adjoint).ys[-1]
    (gradient,) = torch.autograd.grad(y.sum(), outer)
    exact = -rate * torch.exp(-rate) * 2
    assert abs(gradient - exact) < 1e-7


@pytest.mark.parametrize("adjoint", [Direct(), *EXACT.values()], ids=["direct", *EXACT])
def test_gradient_of_a_linear_system_is_that_of_the_matrix_exponential(adjoint):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 3, generator=generator, dtype=F64, requires_grad=True)
    y0 = torch.randn(2, 3, generator=generator, dtype=F64, requires_grad=True)
    y = odeint(lambda t, y: y @ matrix.T, y0, times(0, 1), rtol=1e-11, atol=1e-11, adjoint=adjoint).ys[-1]
    exact = y0 @ torch.linalg.matrix_exp(matrix).T
    assert (y - exact).abs().max() < 1e-9
    weights = torch.randn(2, 3, generator=generator, dtype=F64)
    ours, theirs = (torch.autograd.grad((u * weights).sum(), [matrix, y0]) for u in (y, exact))
    assert distance(ours, theirs) < 1e-8


# The note's table for step sizes held constant, per tolerance.
@pytest.mark.parametrize(("tolerance", "bound"), [(1e-3, 0.6), (1e-5, 1.2e-3), (1e-7, 4e-6)])
def test_sensitivity_of_van_der_pol(tolerance, bound):
    field = VanDerPol()
    y = odeint(field, START, times(0, 10), method="dopri5", rtol=tolerance, atol=tolerance).ys[-1, 0]
    ours = torch.stack([torch.autograd.grad(component, field.mu, retain_graph=True)[0] for component in y])
    assert ((ours - END_BY_MU[0]).norm() / END_BY_MU.norm()) < bound


def test_gradcheck_on_a_fixed_grid():
    """With the steps fixed, the discrete solution is a smooth function and its gradient can be checked to rounding."""
    field = Network()
    y0 = several_starts(2).requires_grad_()

    def solve(y0, *parameters):
        def of(t, y):
            return torch.func.functional_call(field, dict(zip(names, parameters, strict=True)), (t, y))

        solution = odeint(of, y0, times(0, 0.3, 1), rtol=0.01, atol=0.01, controller=FixedStep(0.25))
        return solution.ys, solution.stats.error, solution.stats.stiffness

    names, parameters = zip(*field.named_parameters(), strict=True)
    assert gradcheck(solve, (y0, *parameters), check_forward_ad=True, eps=1e-5, atol=1e-6, rtol=1e-5)


def test_second_derivatives_go_through_direct():
    y0 = torch.full((1, 1), 0.7, dtype=F64, requires_grad=True)

    def solve(y0):
        return odeint(lambda t, y: -y * y, y0, times(0, 1), controller=FixedStep(0.2)).ys[-1]

    assert torch.autograd.gradgradcheck(solve, (y0,))


@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_forward_mode_is_reverse_mode(control):
    y0, tangent = several_starts(3), torch.ones(3, 2, dtype=F64)
    field = VanDerPol().requires_grad_(False)

    def solve(y0):
        return odeint(field, y0, times(0, 0.5, 1.5), control=control).ys

    ys, by_forward = torch.func.jvp(solve, (y0,), (tangent,))
    leaf = y0.clone().requires_grad_()
    ys_again = solve(leaf)
    assert torch.equal(ys, ys_again)
    weights = torch.cos(torch.arange(ys.numel(), dtype=F64)).view_as(ys)
    (by_reverse,) = torch.autograd.grad((ys_again * weights).sum(), leaf)
    assert torch.isclose((by_forward * weights).sum(), (by_reverse * tangent).sum(), rtol=1e-12)
    gradient = torch.func.grad(lambda y: (solve(y) * weights).sum())(y0)
    assert distance([gradient], [by_reverse]) < 1e-13


@pytest.mark.parametrize("adjoint", [Direct(), Replay()], ids=["direct", "replay"])
def test_times_are_differentiated(adjoint):
    ts = times(0.2, 0.7, 1.5).requires_grad_()
    y0 = torch.tensor([[1.0], [2.0]], dtype=F64)

    def solve(ts):
        return odeint(lambda t, y: -t * y, y0, ts, rtol=1e-11, atol=1e-11, adjoint=adjoint).ys[:, :, 0]

    exact = torch.exp((ts[0] ** 2 - ts**2) / 2)[:, None] * y0[:, 0]
    weights = torch.tensor([[0.4, 1.0], [2.0, -0.3], [1.0, 0.5]], dtype=F64)
    ours, theirs = (torch.autograd.grad((u * weights).sum(), ts)[0] for u in (solve(ts), exact))
    assert (ours - theirs).abs().max() < 1e-8


def test_step_sizes_are_constants():
    """The gradient through the controller would differ; ours is that of the same grid, taken with fixed steps."""
    y0 = START.clone().requires_grad_()
    field = VanDerPol()
    solution = odeint(field, y0, times(0, 1), rtol=1e-3, atol=1e-3, control="joint")
    (ours,) = torch.autograd.grad(solution.ys[-1].sum(), y0)
    y, t = y0, 0.0
    for h in solution.stats.step_size[:, 0].tolist():
        y = odeint(field, y, times(t, t + h), controller=FixedStep(2 * h)).ys[-1]
        t += h
    (same,) = torch.autograd.grad(y.sum(), y0)
    assert distance([ours], [same]) < 1e-12


# ---- nothing becomes NaN


@pytest.mark.parametrize("adjoint", [Direct(), Replay()], ids=["direct", "replay"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_no_nan_where_error_and_stiffness_vanish(adjoint, dtype):
    """A constant field makes every estimate exactly zero, at the root's worst place."""
    speed = torch.ones(1, dtype=dtype, requires_grad=True)
    y0 = torch.ones(3, 2, dtype=dtype, requires_grad=True)
    solution = odeint(lambda t, y: (0 * y + 1) * speed, y0, torch.tensor([0.0, 1.0]), adjoint=adjoint)
    # Not even rounding leaves anything: the error weights compare slopes, they do not sum them.
    assert solution.stats.error.max() == 0
    (solution.stats.error.sum() + solution.stats.stiffness.sum() + solution.ys[-1].sum()).backward()
    assert speed.grad.isfinite().all()
    assert y0.grad.isfinite().all()
    still = odeint(lambda t, y: 0 * y * speed, y0, torch.tensor([0.0, 1.0]), adjoint=adjoint)
    assert still.stats.error.max() == still.stats.stiffness.max() == 0
    by = torch.autograd.grad(still.stats.error.sum() + still.stats.stiffness.sum(), [speed, y0])
    assert all(gradient.isfinite().all() for gradient in by)


@pytest.mark.parametrize("adjoint", [Direct(), *EXACT.values()], ids=["direct", *EXACT])
@pytest.mark.parametrize("bad", ["start", "later", "trial"])
def test_a_failed_sample_does_not_spoil_shared_parameters(adjoint, bad):
    """NaN times a zero gradient is NaN: in the parameter that all samples share, if nobody takes care."""
    rate = torch.tensor(1.5, dtype=F64, requires_grad=True)

    def field(t, y):
        decay = -rate * y
        if bad == "later":
            return decay * torch.where((y > 5) & (t > 0.3), torch.nan, 1.0)
        # The root is NaN left of 0; steps that are too long go there.
        return decay if bad == "start" else -rate * y.sqrt()

    start = {"start": [1.0, float("nan"), 2.0], "later": [1.0, 9.0, 2.0], "trial": [1.0, 1e-3, 2.0]}[bad]
    y0 = torch.tensor(start, dtype=F64)[:, None].requires_grad_()
    solution = odeint(field, y0, times(0, 0.5), adjoint=adjoint, first_step=0.3)
    good = [0, 2]
    assert solution.stats.status[1] != Status.CONVERGED

    def loss(solution, picked):
        return solution.ys[-1, picked].sum() + solution.stats.error.sum() + solution.stats.stiffness.sum()

    value = loss(solution, good)
    by_rate, by_start = torch.autograd.grad(value, [rate, y0])
    assert by_rate.isfinite()
    assert by_start[good].isfinite().all()
    alone = odeint(field, y0[good], times(0, 0.5), first_step=0.3)
    (by_start_alone,) = torch.autograd.grad(loss(alone, slice(None)), y0)
    assert distance([by_start[good]], [by_start_alone[good]]) < 1e-12


def test_trial_steps_compile_as_one_graph(monkeypatch):
    """The same numbers and gradients; without the code generator, whose minutes belong to the benchmarks."""
    step = torch.compile(trial.take_step, fullgraph=True, backend="aot_eager")
    several = torch.compile(flight.fly, fullgraph=True, backend="aot_eager")
    monkeypatch.setattr(trial, "compiled", lambda function, kinds, control, y: step)
    monkeypatch.setattr(flight, "compiled", lambda function, kinds, control, y: several)
    field = Network()
    eager = gradients(field, Direct(), method=Bosh3())
    for adjoint in (Direct(), Replay()):
        assert distance(gradients(field, adjoint, method=Bosh3(compile=True)), eager) < 1e-12


@pytest.mark.parametrize(
    ("control", "shape", "one_by_one"),
    [(PerSample(), (5, 2), True), (PerSample(), (5, 2, 8), False), (Joint(), (5, 2), False)],
)
def test_rows_shorter_than_a_vector_are_compiled_number_by_number(control, shape, one_by_one, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **settings: settings["options"])
    options = trial.compiled(trial.take_step, (object(),), control, torch.zeros(shape))
    assert ("cpp.simdlen" in options) == one_by_one
