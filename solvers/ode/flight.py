"""Trial steps in one compiled call with all that is decided about them: the host only asks whether to go on."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.solvers.ode.clock import TINY, Clock
from neuralop_kit.solvers.ode.controllers import FixedStep, PIDController, StepController
from neuralop_kit.solvers.ode.logbook import Flown, FlownRows, Waiting
from neuralop_kit.solvers.ode.method import Method
from neuralop_kit.solvers.ode.record import Outputs
from neuralop_kit.solvers.ode.trial import SMALL, Stepper, compiled, take_step
from neuralop_kit.solvers.status import Status

# Trial steps in one call of a small state, where the call costs more than what it computes.
BURST = 4


class Aloft(NamedTuple):
    """Where all rows are; the host's :class:`Clock` as tensors.

    Args:
        y, slope: state and field there.
        t, h: time and next step, float64, ``(rows,)``.
        is_last, running: flags, ``(rows,)``.
        status, trials: int64, ``(rows,)``.
        newer, older: ``log E`` of the last two accepted steps.
    """

    y: Tensor
    slope: Tensor
    t: Tensor
    h: Tensor
    is_last: Tensor
    running: Tensor
    status: Tensor
    trials: Tensor
    newer: Tensor
    older: Tensor


@dataclass(frozen=True, eq=False)
class Route:
    """What does not change on the way: goals and shortest steps, float64, ``(rows,)``, and the rules."""

    goal: Tensor
    min_step: Tensor
    controller: StepController
    order: int
    max_steps: int


def can_fly(stepper: Stepper, controller: StepController, y: Tensor) -> bool:
    """Whether the controller's rule is known here, and the device has the float64 that times need."""
    known = type(controller).factor in (PIDController.factor, FixedStep.factor)
    stays = type(stepper.method).selector is Method.selector
    return stepper.method.compile and known and stays and y.device.type != "mps"


def fly(
    stepper: Stepper, route: Route, aloft: Aloft, count: int, *, keep: bool
) -> tuple[Aloft, Flown, tuple[Tensor, ...], Tensor]:
    """``count`` trial steps; also the most steps that any row has before it, and whether an error was not finite.

    With ``keep`` also states at the starts of steps and their polynomials, ``(count, batch, ...)`` each.
    """
    legs, kept, trouble = [], [], torch.zeros_like(aloft.running)
    for _ in range(count):
        trial = take_step(stepper, aloft.t.to(aloft.y.dtype), aloft.y, aloft.slope, aloft.h.to(aloft.y.dtype))
        error = trial.error.detach().double()
        finite = torch.isfinite(error)
        trouble = trouble | ~finite
        accepted = aloft.running & ((error <= 1.0) if route.controller.adapts else finite)
        taken = stepper.control.spread(accepted, aloft.y.ndim)
        kept.append((aloft.y, *polynomial(stepper.method, trial.stages)) if keep else ())
        legs.append(Flown(trial.error, trial.stiffness, aloft.t, torch.where(accepted, aloft.h, 0.0), accepted))
        aloft = decide(route, aloft, torch.where(finite, error, torch.inf), accepted)._replace(
            y=torch.where(taken, trial.y, aloft.y), slope=torch.where(taken, trial.slope, aloft.slope)
        )
    ahead = torch.where(aloft.running, ((route.goal - aloft.t) / aloft.h).abs(), 0.0).max()
    summary = torch.stack([ahead, trouble.any().double()])
    return aloft, Flown(*stacked(legs)), stacked(kept), summary


def polynomial(method: Method, stages: Sequence[Tensor]) -> list[Tensor]:
    """Coefficients of the powers of theta in a step's dense output, over ``h``: fewer than there are stages."""
    rows = ([weight * stage for weight, stage in zip(row, stages, strict=True) if weight] for row in method.dense)
    return [functools.reduce(torch.add, terms) if terms else torch.zeros_like(stages[0]) for terms in rows]


def stacked(rows: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Columns of a table."""
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def decide(route: Route, aloft: Aloft, error: Tensor, accepted: Tensor) -> Aloft:
    """All but state and slope after a trial step: what :meth:`Clock.judge` does, with tensors."""
    log_error = error.clamp_min(TINY).log()
    t = torch.where(accepted, torch.where(aloft.is_last, route.goal, aloft.t + aloft.h), aloft.t)
    factor = next_factor(route, aloft, log_error, accepted)
    previous = log_error.clamp_min(math.log(route.controller.first_error))
    newer = torch.where(accepted, previous, aloft.newer)
    older = torch.where(accepted, aloft.newer, aloft.older)
    running = aloft.running & ~(accepted & aloft.is_last)
    h, rest = aloft.h * factor, route.goal - t
    is_last = rest.abs() <= (route.controller.stretch * h).abs()
    h = torch.where(is_last, rest, h)
    stuck = running & ~accepted
    if route.controller.adapts:
        stuck = stuck & (h.abs() < route.min_step)
    trials = aloft.trials + aloft.running
    status = torch.where(stuck, torch.where(error.isinf(), int(Status.NOT_FINITE), int(Status.STEP_UNDERFLOW)),
                         aloft.status)  # fmt: skip
    running = running & ~stuck
    late = running & (trials >= route.max_steps)
    status, running = torch.where(late, int(Status.MAX_ITERATIONS), status), running & ~late
    return Aloft(aloft.y, aloft.slope, t, torch.where(running, h, 0.0), is_last, running, status, trials, newer, older)


def next_factor(route: Route, aloft: Aloft, log_error: Tensor, accepted: Tensor) -> Tensor:
    """What :meth:`PIDController.factor` says, with tensors; one for fixed steps."""
    rule = route.controller
    if not isinstance(rule, PIDController):
        return torch.ones_like(log_error)
    now, before, earlier = (exponent / route.order for exponent in rule.exponents)
    past = before * aloft.newer - earlier * aloft.older
    factor = (math.log(rule.safety) - now * log_error + torch.where(accepted, past, 0.0)).exp()
    floor = torch.full_like(factor, rule.min_factor)
    if not rule.shrinks_when_accepted:
        floor = torch.where(accepted, 1.0, floor)
    return torch.minimum(torch.maximum(factor, floor), torch.full_like(factor, rule.max_factor))


def cross(stepper: Stepper, clock: Clock, outputs: Outputs, y: Tensor, slope: Tensor) -> tuple[Tensor, FlownRows]:
    """From a clock that has begun to one that has arrived; returns the state at the end and what happened."""

    def send_up(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(y.device, copy=True)

    route = Route(send_up(clock.goal), send_up(clock.min_step), clock.controller, clock.order, clock.max_steps)
    times = (clock.t, clock.h, clock.is_last, clock.running, clock.status, clock.num_trials, *clock.history)
    aloft, rows = Aloft(y, slope, *(send_up(values) for values in times)), FlownRows()
    program = compiled(fly, stepper.kinds, stepper.control, y)
    keep, waiting = len(outputs.times) > 0, Waiting(outputs)
    ahead = math.inf if clock.is_running else 0.0
    while ahead > 0:
        # The first steps may grow much, so that their length says little about how many are to come.
        count = BURST if len(rows.legs) >= 2 and ahead > BURST + 1 and y.numel() <= SMALL else 1
        before = aloft
        aloft, leg, kept, summary = program(stepper, route, before, count, keep=keep)
        ahead, has_trouble = summary.tolist()
        if has_trouble and torch.is_grad_enabled():
            aloft, leg, kept = stand_still(stepper, before, aloft, leg, keep=keep)
        rows.legs.append(leg)
        if keep:
            waiting.append(leg, kept, aloft.t)
    waiting.flush(aloft.t)
    land(clock, aloft, rows, stepper.method.evaluations_per_step)
    return aloft.y, rows


def land(clock: Clock, aloft: Aloft, rows: FlownRows, num_evaluations: int) -> None:
    """Tell the clock what came of it."""
    trials = aloft.trials.cpu().numpy()
    clock.num_evaluations += num_evaluations * (trials - clock.num_trials)
    for leg in rows.legs:
        clock.num_accepted += leg.accepted.sum(dim=0).cpu().numpy()
    clock.num_trials, clock.status, clock.t = trials, aloft.status.cpu().numpy(), aloft.t.cpu().numpy()
    clock.running, clock.h = aloft.running.cpu().numpy(), aloft.h.cpu().numpy()


def stand_still(
    stepper: Stepper, before: Aloft, aloft: Aloft, leg: Flown, *, keep: bool
) -> tuple[Aloft, Flown, tuple[Tensor, ...]]:
    """The same steps, with rejected rows standing still: NaN times a zero gradient is NaN, in shared parameters."""
    y, slope, estimates, kept = before.y, before.slope, [], []
    for start, h, accepted in zip(leg.start, leg.h, leg.accepted, strict=True):
        trial = take_step(stepper, start.to(y.dtype), y, slope, h.to(y.dtype))
        taken = stepper.control.spread(accepted, y.ndim)
        kept.append((y, *polynomial(stepper.method, trial.stages)) if keep else ())
        y, slope = torch.where(taken, trial.y, y), torch.where(taken, trial.slope, slope)
        estimates.append((trial.error, trial.stiffness))
    error, stiffness = stacked(estimates)
    return aloft._replace(y=y, slope=slope), leg._replace(error=error, stiffness=stiffness), stacked(kept)
