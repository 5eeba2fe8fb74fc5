"""Solutions against theory and scipy; what is asked for and what is refused; failures that stay with their sample."""

import math

import pytest
import torch
import torchdiffeq
from scipy.integrate import solve_ivp

from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError, ShapeError
from neuralop_kit.solvers.ode import (
    FixedStep,
    IController,
    Interpolating,
    Joint,
    PerSample,
    PIController,
    Replay,
    Tsit5,
    compat,
    odeint,
    odeint_event,
)
from neuralop_kit.solvers.sde import sdeint
from neuralop_kit.solvers.status import Status
from tests.solvers.ode.problems import END, F64, START, VanDerPol, several_starts, times

ADAPTIVE = ["tsit5", "dopri5", "dopri8", "bosh3"]


def scipy_solution(field, y0, ts, **options):
    """Of one sample, at the times given."""

    def plain(t, y):
        with torch.no_grad():
            return field(torch.tensor(t, dtype=F64), torch.from_numpy(y)[None])[0].numpy()

    values = solve_ivp(plain, (ts[0], ts[-1]), y0, t_eval=ts, **options)
    return torch.from_numpy(values.y.T.copy())


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_reference_value(method, control):
    tolerance = 1e-6 if method == "bosh3" else 1e-9
    solution = odeint(VanDerPol(), START, times(0, 10), method=method, control=control, rtol=tolerance, atol=tolerance)
    assert (solution.ys[-1] - END).abs().max() < (1e-3 if method == "bosh3" else 1e-6)
    assert solution.stats.converged.all()


def test_agrees_with_scipy_at_tight_tolerance():
    field, y0, ts = VanDerPol(force=1.0), several_starts(3), [0.0, 0.7, 1.9, 4.0]
    solution = odeint(field, y0, times(*ts), method="dopri8", rtol=1e-11, atol=1e-11, dense=True)
    for i, start in enumerate(y0):
        expected = scipy_solution(field, start.numpy(), ts, method="DOP853", rtol=1e-12, atol=1e-12)
        assert (solution.ys[-1, i] - expected[-1]).abs().max() < 1e-8
        # The quartic of Dopri8 is less accurate than its steps.
        assert (solution.ys[:, i] - expected).abs().max() < 1e-4
    solution = odeint(field, y0, times(*ts), rtol=1e-11, atol=1e-11)
    assert (solution.ys[:, 2] - expected).abs().max() < 1e-8


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
def test_error_is_of_the_size_of_scipys(tolerance):
    field, ts = VanDerPol(), [0.0, 10.0]
    ours = odeint(field, START, times(*ts), method="dopri5", rtol=tolerance, atol=tolerance).ys[-1] - END
    scipys = scipy_solution(field, START[0].numpy(), ts, method="RK45", rtol=tolerance, atol=tolerance)[-1] - END
    assert ours.abs().max() < 10 * scipys.abs().max() + 1e-7


@pytest.mark.parametrize("tolerance", [1e-5, 1e-7])
def test_as_many_steps_as_torchdiffeq(tolerance):
    """With its controller as many but for the last one; with ours not more than a tenth more."""
    field, y0, calls = VanDerPol().requires_grad_(False), several_starts(4), [0]

    def counted(t, y):
        calls[0] += 1
        return field(t, y)

    torchdiffeq.odeint(counted, y0, times(0, 10), rtol=tolerance, atol=tolerance, method="dopri5")
    theirs = (calls[0] - 2) // 6

    def ours(controller):
        options = {"rtol": tolerance, "atol": tolerance, "control": "joint", "controller": controller}
        stats = odeint(field, y0, times(0, 10), method="dopri5", **options).stats
        return int(stats.num_accepted[0] + stats.num_rejected[0])

    assert abs(ours(IController(shrinks_when_accepted=False)) - theirs) <= 1
    assert ours(None) <= 1.1 * theirs


def test_backward_in_time_returns_to_the_start():
    field = VanDerPol(0.3, force=1.0)
    there = odeint(field, START, times(0, 2), rtol=1e-10, atol=1e-10)
    back = odeint(field, there.ys[-1], times(2, 0.5, 0), rtol=1e-10, atol=1e-10)
    assert (back.ys[-1] - START).abs().max() < 1e-8
    assert (back.ys[1] - odeint(field, START, times(0, 0.5), rtol=1e-10, atol=1e-10).ys[-1]).abs().max() < 1e-8


def test_a_sample_does_not_depend_on_its_neighbours():
    field, y0 = VanDerPol(), several_starts(5)
    together = odeint(field, y0, times(0, 1, 3))
    for i in range(5):
        alone = odeint(field, y0[i : i + 1], times(0, 1, 3))
        assert (together.ys[:, i] - alone.ys[:, 0]).abs().max() < 1e-13
        for name in ("num_accepted", "num_rejected", "num_evaluations"):
            assert getattr(together.stats, name)[i] == getattr(alone.stats, name)[0]
    joint = odeint(field, y0, times(0, 1, 3), control="joint")
    assert joint.stats.num_accepted.unique().numel() == 1
    assert together.stats.num_accepted.unique().numel() > 1  # negative control


@pytest.mark.parametrize("control", [PerSample(), Joint()])
def test_time_broadcasts_as_promised(control):
    seen = set()

    def field(t, y):
        seen.add(tuple(t.shape))
        assert t.dtype == y.dtype
        return -y * torch.cos(t)

    y0 = torch.ones(4, 3, 2)
    solution = odeint(field, y0, times(0, 2, 3), control=control)
    assert solution.ys.dtype == torch.float32
    assert seen == ({(4, 1, 1)} if isinstance(control, PerSample) else {()})
    assert (solution.ys[-1] - math.exp(-math.sin(3.0))).abs().max() < 1e-5


def test_times_of_every_sample():
    ts = torch.tensor([[0.0, 1.0, 0.0, 2.0], [0.5, 0.0, 1.0, 2.0], [1.0, -2.0, 1.0, 2.0]], dtype=F64)
    y0 = torch.ones(4, 1, dtype=F64)
    solution = odeint(lambda t, y: -2 * t * y, y0, ts, rtol=1e-9, atol=1e-9)
    exact = torch.exp(ts[:1] ** 2 - ts**2)
    assert (solution.ys[..., 0] - exact).abs().max() < 1e-7
    assert solution.last_t.tolist() == [1.0, -2.0, 1.0, 2.0]
    assert solution.stats.num_accepted[3] == 0


def test_dense_output_goes_through_the_times_asked_for():
    field, y0 = VanDerPol(), several_starts(3)
    solution = odeint(field, y0, times(0, 0.4, 2.5, 4), dense=True)
    for t, y in zip(solution.ts, solution.ys, strict=True):
        assert (solution(t) - y).abs().max() < 1e-12
    mixed = solution(times(0.4, 2.5, 4))
    assert (mixed - torch.stack([solution.ys[1, 0], solution.ys[2, 1], solution.ys[3, 2]])).abs().max() < 1e-12
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        solution(times(4.1)[0])


def test_evaluations_are_counted():
    calls = [0]

    def field(t, y):
        calls[0] += 1
        return -y

    stats = odeint(field, torch.ones(2, 1, dtype=F64), times(0, 5), control="joint").stats
    trials = int(stats.num_accepted[0] + stats.num_rejected[0])
    assert stats.num_evaluations.tolist() == [2 + 6 * trials] * 2 == [calls[0]] * 2


def test_rows_hold_what_was_accepted():
    stats = odeint(VanDerPol(), several_starts(4), times(0, 6)).stats
    assert torch.equal(stats.accepted.sum(dim=0), stats.num_accepted)
    assert stats.num_rejected.sum() > 0
    assert (stats.step_size.sum(dim=0) - 6).abs().max() < 1e-12
    for row in (stats.error, stats.stiffness, stats.step_size, stats.step_start):
        assert (row[~stats.accepted] == 0).all()
    assert ((stats.error <= 1) & (stats.error >= 0)).all()
    assert (stats.step_start[1:] + stats.step_size[1:] <= 6 + 1e-12).all()


@pytest.mark.parametrize("controller", [PIController, IController])
@pytest.mark.parametrize("safety", [0.9, 0.95, 1.0])
def test_a_rejected_last_step_becomes_shorter(controller, safety):
    """With a fixed stretch of 1.1 and a factor above 1 / 1.1, the step to the end would be tried again and again."""
    y0 = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rule = controller(safety=safety, min_factor=0.95 if safety == 0.95 else 0.2)
    stats = odeint(VanDerPol(force=1.0), y0, times(0, 3), controller=rule, rtol=1e-5, atol=1e-5, max_steps=500).stats
    assert stats.converged.all()


def test_last_step_is_not_tiny():
    for end in torch.linspace(3.0, 4.0, 8, dtype=F64):
        steps = odeint(VanDerPol(), START, torch.stack([0 * end, end])).stats.step_size
        assert steps[-1] > 0.09 * steps[-2]


# ---- bad input


def blow_up(t, y):
    """y' = y^2 in the second sample, which ends at t = 1; others decay."""
    grows = torch.zeros_like(y)
    grows[1] = 1.0
    return torch.where(grows > 0, y * y, -y)


def nan_later(t, y):
    """NaN in the second sample after t = 0.3."""
    bad = torch.zeros_like(y)
    bad[1] = 1.0
    return torch.where((bad > 0) & (t > 0.3), torch.nan, -y)


def always_nan(t, y):
    """NaN in the second sample everywhere."""
    scale = torch.ones_like(y)
    scale[1] = torch.nan
    return -y * scale


@pytest.mark.parametrize(
    ("field", "status"),
    [(blow_up, Status.STEP_UNDERFLOW), (nan_later, Status.NOT_FINITE), (always_nan, Status.NOT_FINITE)],
)
def test_failure_stays_with_its_sample(field, status):
    y0 = torch.ones(3, 1, dtype=F64)
    solution = odeint(field, y0, times(0, 0.2, 2, 3), max_steps=500)
    assert solution.stats.status.tolist() == [Status.CONVERGED, status, Status.CONVERGED]
    expected = torch.exp(-times(0, 0.2, 2, 3))
    assert (solution.ys[:, [0, 2], 0] - expected[:, None]).abs().max() < 1e-5
    assert solution.ys[2:, 1].isnan().all()
    assert solution.last_y.isfinite().all()
    with pytest.raises(ConvergenceError, match="sample 1"):
        odeint(field, y0, times(0, 3), raise_on_failure=True)


def test_nan_in_the_initial_state():
    y0 = torch.tensor([[1.0], [math.nan], [2.0]], dtype=F64)
    solution = odeint(lambda t, y: -y, y0, times(0, 0.5, 1))
    assert solution.stats.status.tolist() == [Status.CONVERGED, Status.NOT_FINITE, Status.CONVERGED]
    assert (solution.ys[-1, [0, 2]] - y0[[0, 2]] * math.exp(-1)).abs().max() < 1e-6
    assert solution.ys[:, 1].isnan().all()
    nothing = odeint(lambda t, y: -y, y0[1:2], times(0, 1))
    assert nothing.stats.status.tolist() == [Status.NOT_FINITE]


def test_too_many_steps():
    solution = odeint(VanDerPol(50.0), START.repeat(2, 1), times(0, 100), max_steps=30)
    assert solution.stats.status.tolist() == [Status.MAX_ITERATIONS] * 2
    assert (solution.stats.num_accepted + solution.stats.num_rejected).tolist() == [30, 30]
    assert solution.ys[-1].isnan().all()
    assert solution.last_y.isfinite().all()
    assert ((solution.last_t > 0) & (solution.last_t < 100)).all()


def test_fixed_steps_that_overflow_are_flagged():
    solution = odeint(
        lambda t, y: y**3, torch.full((1, 1), 10.0, dtype=F64), times(0, 10), method="rk4", controller=FixedStep(0.5)
    )
    assert solution.stats.status.tolist() == [Status.NOT_FINITE]


@pytest.mark.parametrize("ts", [times(0, 1, 0.5), times(0, math.nan), times(0, math.inf)])
def test_bad_times_are_refused(ts):
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        odeint(VanDerPol(), START, ts)


@pytest.mark.parametrize(
    "options",
    [{"rtol": 0.0}, {"atol": -1.0}, {"max_steps": 0}, {"first_step": 0.0}, {"method": "rk5"}, {"control": "all"},
     {"method": "rk4"}],
)  # fmt: skip
def test_bad_numbers_and_names_are_refused(options):
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        odeint(VanDerPol(), START, times(0, 1), **options)


def test_bad_shapes_are_refused():
    for y0, ts in ((START[0, 0], times(0, 1)), (START, torch.zeros(2, 3, dtype=F64))):
        with pytest.raises(ShapeError, match=r"expected .*, got .*; "):
            odeint(VanDerPol(), y0, ts)
    with pytest.raises(ShapeError, match=r"expected .*, got .*; "):
        odeint(lambda t, y: y[:, :1], START, times(0, 1))
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        odeint(VanDerPol(), START.long(), times(0, 1))


def test_method_may_be_an_object():
    a = odeint(VanDerPol(), START, times(0, 1), method=Tsit5())
    assert torch.equal(a.ys, odeint(VanDerPol(), START, times(0, 1)).ys)


@pytest.mark.parametrize("value", [None, (1.0, 2.0), START])
def test_what_is_no_slope_is_refused(value):
    with pytest.raises((ShapeError, ArgumentError), match=r"expected .*, got .*; "):
        odeint(lambda t, y: value, START[:, :1], times(0, 1))


@pytest.mark.parametrize("other", [F64, torch.int64, torch.complex64])
def test_the_state_keeps_its_dtype(other):
    """A float64 constant in a field must not make a float64 solve of a float32 state behind the user's back."""
    y0 = START.float()
    with pytest.raises(ArgumentError, match=r"expected .* torch.float32, .*, got .*; "):
        odeint(lambda t, y: -y.to(other), y0, times(0, 1))
    coarse = odeint(lambda t, y: -y.bfloat16(), y0, times(0, 0.5, 1), control="joint", rtol=1e-2, atol=1e-2)
    assert coarse.ys.dtype == coarse.stats.error.dtype == torch.float32
    assert (coarse.ys[1:] - y0 * torch.exp(-coarse.ts[1:, None, None])).abs().max() < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_solves_to_its_own_tolerance_only(dtype):
    y0, epsilon = START.to(dtype), torch.finfo(dtype).eps
    ys = odeint(lambda t, y: -y, y0, times(0, 0.5, 1), rtol=4 * epsilon, atol=4 * epsilon).ys
    assert ys.dtype == dtype
    assert (ys[-1].double() - START * math.exp(-1)).abs().max() < 10 * epsilon
    with pytest.raises(ArgumentError, match=r"expected rtol >= .*, got .*; "):
        odeint(lambda t, y: -y, y0, times(0, 1))


def test_times_may_be_integers():
    solution = odeint(lambda t, y: y**2, START, torch.tensor([0, 1, 2]), max_steps=3)
    assert 0 < solution.last_t.item() < 1


@pytest.mark.parametrize("control", ["per_sample", "joint"])
@pytest.mark.parametrize(
    "adjoint", [None, Replay(stride=2), Interpolating()], ids=["direct", "replay", "interpolating"]
)
def test_an_empty_batch_is_solved_at_once(adjoint, control):
    """The last batch of a filtered data set; gradients are zeros, as distributed training waits for them."""
    field, y0 = VanDerPol(), START[:0].clone().requires_grad_()
    solution = odeint(field, y0, times(0, 0.5, 1).requires_grad_(), adjoint=adjoint, control=control)
    assert solution.ys.shape == (3, 0, 2)
    assert solution.last_t.shape == solution.stats.status.shape == solution.stats.num_accepted.shape == (0,)
    assert solution.stats.error.shape == solution.stats.accepted.shape == (0, 0 if control == "per_sample" else 1)
    assert solution.last_y.shape == (0, 2)
    solution.stats.raise_if_failed()
    (solution.ys.sum() + solution.last_y.sum()).backward()
    assert field.mu.grad == 0
    assert y0.grad.shape == (0, 2)
    with pytest.raises(ShapeError, match=r"expected .*, got .*; "):
        odeint(lambda t, y: y[:, :1], y0, times(0, 1))


def test_states_without_components_and_other_empty_solves():
    y0 = torch.zeros(3, 0)
    solution = odeint(lambda t, y: -y, y0, torch.stack([torch.zeros(3), times(1, 2, 3)]), dense=True)
    assert solution.ys.shape == (2, 3, 0)
    assert solution.stats.converged.tolist() == [True] * 3
    assert solution(torch.tensor(0.5)).shape == (3, 0)
    assert odeint(VanDerPol(), START[:0], times(0, 1), dense=True)(times(0.5)[0]).shape == (0, 2)
    assert compat.odeint_adjoint(lambda t, y: -y, y0, torch.tensor([0.0, 1.0])).shape == (2, 3, 0)
    found = odeint_event(VanDerPol(), START[:0], times(0, 1), lambda t, y: y[:, 0])
    assert found.t.shape == found.found.shape == (0,)
    assert found.y.shape == (0, 2)


def test_lists_are_no_tensors():
    for solve in (odeint, lambda f, y, t: sdeint(f, f, y, t)):
        for y0, t in ((START, [0.0, 1.0]), (START.tolist(), times(0, 1))):
            with pytest.raises(ArgumentError, match=r"expected .* to be a tensor, got list; "):
                solve(VanDerPol(), y0, t)
