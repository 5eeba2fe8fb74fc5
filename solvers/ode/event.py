"""Events: solve until a function of time and state changes its sign; the time of that can be differentiated."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.checks import is_differentiated
from neuralop_kit.solvers.ode.control import StepControl
from neuralop_kit.solvers.ode.controllers import Flags, StepController
from neuralop_kit.solvers.ode.empty import NoSteps
from neuralop_kit.solvers.ode.host import read, send, send_flags
from neuralop_kit.solvers.ode.march import Problem, Step, march
from neuralop_kit.solvers.ode.method import Field, Method
from neuralop_kit.solvers.ode.pose import pose
from neuralop_kit.solvers.ode.record import in_dtype_of
from neuralop_kit.solvers.ode.solution import Statistics
from neuralop_kit.solvers.ode.time_gradient import drift
from neuralop_kit.solvers.ode.trial import Tolerance

Condition = Callable[[Tensor, Tensor], Tensor]

# Halvings of a step, down to the spacing of float64.
HALVINGS = 53


@dataclass(frozen=True, eq=False)
class EventSolution:
    """Where every row met its event; a row is a sample, in joint control the batch.

    Args:
        t: time of the event, ``(rows,)``; NaN where there was none.
        y: state there, ``(batch, ...)``; NaN likewise.
        found: whether there was one, bool, ``(rows,)``; where not, ``stats.status`` says whether the end was reached.
        stats: what it cost.
    """

    t: Tensor
    y: Tensor
    found: Tensor
    stats: Statistics


def odeint_event(
    field: Field,
    y0: Tensor,
    t: Tensor,
    condition: Condition,
    *,
    direction: int = 0,
    method: str | Method = "tsit5",
    rtol: Tolerance = 1e-6,
    atol: Tolerance = 1e-6,
    control: str | StepControl = "per_sample",
    controller: StepController | None = None,
    first_step: float | None = None,
    max_steps: int = 10_000,
) -> EventSolution:
    """Solve ``dy/dt = field(t, y)`` from ``t[0]`` until ``condition(t, y) = 0``, every sample to its own event.

        g(t*, y(t*)) = 0,    dt* = -(g_y dy) / (g_t + g_y f),    dy* = dy + f dt*

    The sign is looked at once per step, so that two zeros within one step are missed; the zero is located on the dense
    output by bisection and refined by a step up to it; gradients are those of the implicit function, by backpropagation
    through the steps. A
    condition that is zero at the start is no event. Costs one more look at the device per step.

    Args:
        field, y0: see :func:`~neuralop_kit.solvers.ode.odeint`.
        t: ``(2,)``: where to begin, and where to give up, which may be infinite. Gradients reach ``t[0]``.
        condition: gets ``t`` and ``y`` as the field does; returns one number per sample, ``(batch,)``; in joint control
            a single one.
        direction: 0 for any zero, 1 for rising conditions only, -1 for falling ones only, as the solve goes.
        method, rtol, atol, control, controller, first_step, max_steps: see :func:`~neuralop_kit.solvers.ode.odeint`.

    Returns:
        An :class:`EventSolution`.

    Raises:
        ShapeError: ``y0``, ``t`` or the field's value have the wrong shape.
        ArgumentError: a name is unknown or a number is out of range.

    A stone falls from a height of 5 with g = 10:

    >>> y0 = torch.tensor([[5.0, 0.0]], dtype=torch.float64, requires_grad=True)
    >>> fall = lambda t, y: torch.stack([y[:, 1], torch.full_like(y[:, 1], -10.0)], dim=1)
    >>> landing = odeint_event(fall, y0, torch.tensor([0.0, torch.inf]), lambda t, y: y[:, 0])
    >>> round(landing.t.item(), 6), [round(v, 4) for v in torch.autograd.grad(landing.t.sum(), y0)[0][0].tolist()]
    (1.0, [0.1, 0.1])
    """
    if direction not in (-1, 0, 1) or t.shape != (2,):
        raise ArgumentError(
            f"expected a direction of -1, 0 or 1 and times of shape (2,), got {direction} and {tuple(t.shape)}; "
            "give the first and the last time"
        )
    problem = pose(
        field, y0, t, method=method, rtol=rtol, atol=atol, control=control, controller=controller,
        first_step=first_step, max_steps=max_steps, min_step=0.0,
    )  # fmt: skip
    start = y0 - drift(problem.stepper, t[0], y0) if is_differentiated(t) else y0
    search = _Search(problem, start, condition, direction)
    solution = march(problem, start, search.watch) if y0.numel() else NoSteps().solve(problem, start, dense=False)
    return EventSolution(search.t, search.y, search.found, solution.stats)


class _Search:
    """Watches a solve, ends rows that have met their event, and keeps time and state of it."""

    def __init__(self, problem: Problem, y: Tensor, condition: Condition, direction: int) -> None:
        self.stepper, self.condition, self.direction = problem.stepper, condition, direction
        self.before = self._value(send(problem.times[0], y), y.detach()).detach()
        self.found = torch.zeros_like(self.before, dtype=torch.bool)
        self.t, self.y = torch.full_like(self.before, torch.nan), torch.full_like(y, torch.nan)

    def watch(self, step: Step) -> Flags | None:
        """Look for a change of sign; returns the rows that are done."""
        accepted = send_flags(step.move.accepted, step.y)
        after = self._value(send(step.move.stop, step.y), step.trial.y.detach()).detach()
        met = accepted & ((self.before * after < 0) | ((after == 0) & (self.before != 0)))
        if self.direction:
            met &= self.before * self.direction < 0
        flags: Flags = read(met) > 0
        if flags.any():
            self._locate(step, met)
        self.before = torch.where(accepted, after, self.before)
        return flags if flags.any() else None

    def _locate(self, step: Step, met: Tensor) -> None:
        """Bisection without a tape, then one step of Newton's method with one: its derivative is the implicit one."""
        start, h = send(step.move.start, step.y), send(step.move.h, step.y)
        # Of the powers of theta, ``(degree, batch, ...)``.
        stages = torch.stack(in_dtype_of(step.y, step.trial.stages))
        powers = torch.tensordot(send_table(step), stages, dims=1)
        low, high = torch.zeros_like(h), torch.ones_like(h)
        with torch.no_grad():
            for _ in range(HALVINGS):
                middle = 0.5 * (low + high)
                value = self._value(start + middle * h, self._state(step.y, powers, middle, h))
                is_before = value * self.before > 0
                low, high = torch.where(is_before, middle, low), torch.where(is_before, high, middle)
        # A step of that length is more accurate than the dense output.
        h = torch.where(met, high * h, 0.0)
        t, y = start + h, self._step(start, step.y, h)
        slope, rate = self._rate(t, y.detach())
        shift = torch.where(met, -self._value(t, y) / torch.where(met & (rate != 0), rate, 1.0), 0.0)
        spread = self.stepper.control.spread
        self.t = torch.where(met, t + shift, self.t)
        self.y = torch.where(spread(met, y.ndim), y + slope * spread(shift, y.ndim), self.y)
        self.found = self.found | met

    @torch.no_grad()
    def _rate(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The field, and the rate at which the condition changes along it."""
        slope = self.stepper.field(self.stepper.control.spread(t, y.ndim), y)
        rate = torch.func.jvp(self._value, (t, y), (torch.ones_like(t), slope))[1]
        return slope, rate

    def _step(self, t: Tensor, y: Tensor, h: Tensor) -> Tensor:
        slope = self.stepper.field(self.stepper.control.spread(t, y.ndim), y)
        return self.stepper.take(t, y, slope, h).y

    def _state(self, y: Tensor, powers: Tensor, theta: Tensor, h: Tensor) -> Tensor:
        theta, h = (self.stepper.control.spread(x, y.ndim) for x in (theta, h))
        change = torch.zeros_like(y)
        for coefficient in powers.flip(0):
            change = theta * (change + coefficient)
        return y + h * change

    def _value(self, t: Tensor, y: Tensor) -> Tensor:
        return self.condition(self.stepper.control.spread(t, y.ndim), y).reshape(len(t))


def send_table(step: Step) -> Tensor:
    """Coefficients of the step's dense output."""
    return torch.tensor(step.stepper.method.dense, dtype=step.y.dtype, device=step.y.device)
