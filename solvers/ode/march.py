"""The loop: trial step, one look at its error, next trial step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.solvers.ode.checks import check_slope
from neuralop_kit.solvers.ode.clock import Clock, Move
from neuralop_kit.solvers.ode.control import PerSample
from neuralop_kit.solvers.ode.controllers import FixedStep, Flags, Floats, StepController
from neuralop_kit.solvers.ode.flight import can_fly, cross
from neuralop_kit.solvers.ode.host import read, send, send_flags, send_indices
from neuralop_kit.solvers.ode.initial_step import initial_step
from neuralop_kit.solvers.ode.record import Outputs, StepRows
from neuralop_kit.solvers.ode.solution import Solution, Statistics
from neuralop_kit.solvers.ode.trial import Stepper, Trial
from neuralop_kit.solvers.status import Status


@dataclass(frozen=True, eq=False)
class Problem:
    """All of a solve but the initial state.

    Args:
        stepper: takes the trial steps.
        times: ``(num_times, rows)``, float64 on the host.
        ts: the times as the user gave them.
        controller: chooses step sizes.
        first_step: length of the first step; ``None`` lets the solver choose.
        max_steps, min_step: when a row gives up.
    """

    stepper: Stepper
    times: Floats
    ts: Tensor
    controller: StepController
    first_step: float | None
    max_steps: int
    min_step: float

    def clock(self) -> Clock:
        """All rows at their first time."""
        return Clock(
            self.times[0],
            self.times[-1],
            self.controller,
            self.stepper.method.control_order,
            max_steps=self.max_steps,
            min_step=self.min_step,
        )

    def outputs(self) -> Outputs:
        """Nothing recorded yet."""
        direction = np.sign(self.times[-1] - self.times[0])
        return Outputs(self.times[1:-1], direction, self.stepper.control)

    def first_length(self, clock: Clock, y: Tensor, slope: Tensor) -> Floats:
        """Lengths of the first steps, positive."""
        if isinstance(self.controller, FixedStep):
            return np.full(len(clock.t), self.controller.step_size)
        if self.first_step is not None:
            return np.full(len(clock.t), self.first_step)
        clock.num_evaluations += 1
        return initial_step(self.stepper, clock.t, clock.goal, y, slope)


class Step(NamedTuple):
    """A row of accepted steps.

    Args:
        stepper: what took it.
        move: when, how long, and which rows.
        y: the state at its start.
        trial: what came out; rows that did not take the step are to be ignored.
    """

    stepper: Stepper
    move: Move
    y: Tensor
    trial: Trial


# Sees every row of accepted steps; may return rows that shall end there.
Observer = Callable[[Step], Flags | None]


@dataclass(eq=False)
class Course:
    """A solve that has run: what :func:`conclude` makes a solution of.

    Args:
        clock, rows, outputs: times and counters, estimates, states at inner times.
        riders: which row's initial state each row began with, ``None`` where all could begin with their own.
        y: the state at the end.
    """

    clock: Clock
    rows: StepRows
    outputs: Outputs
    riders: Tensor | None
    y: Tensor


def run(problem: Problem, y: Tensor, observers: Sequence[Observer] = ()) -> Course:
    """One trial step after the other; gradients flow through whatever was accepted, step sizes are constants."""
    clock, outputs, rows = problem.clock(), problem.outputs(), StepRows()
    selector = problem.stepper.method.selector()
    stepper = replace(problem.stepper, method=selector.method)
    y, slope, riders = begin(problem, clock, y)
    if not observers and can_fly(stepper, clock.controller, y):
        # Nobody wants to see the single steps.
        y, rows = cross(stepper, clock, outputs, y, slope)
    while clock.is_running:
        start = clock.t
        trial = stepper.take(send(start, y), y, slope, send(clock.h, y))
        move = clock.judge(read(trial.error), stepper.method.evaluations_per_step)
        if not move.is_taken:
            continue
        if not move.is_finite:
            # Rejected rows stand still instead: NaN times a zero gradient is NaN, in parameters that all rows share.
            trial = stepper.take(send(start, y), y, slope, send(move.h, y))
        step = Step(stepper, move, y, trial)
        for observe in observers:
            finished = observe(step)
            if finished is not None:
                clock.stop(finished, Status.CONVERGED)
        outputs.keep(move, stepper.method, y, trial.stages)
        rows.add(move, trial.error, trial.stiffness)
        y, slope = follow(step, slope)
        selector.observe(trial.stiffness, move.h)
        if selector.method is not stepper.method:
            outputs.flush(stepper.method)
            stepper = replace(stepper, method=selector.method)
            clock.order = selector.method.control_order
    outputs.flush(stepper.method)
    return Course(clock, rows, outputs, riders, y)


def march(problem: Problem, y0: Tensor, *observers: Observer) -> Solution:
    """Solve; see :func:`run`."""
    return conclude(problem, run(problem, y0, observers), y0)


def begin(problem: Problem, clock: Clock, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """State and slope at the first time; rows that cannot begin are stopped and ride along on a healthy row's state."""
    stepper, control = problem.stepper, problem.stepper.control
    t = control.spread(send(clock.t, y), y.ndim)
    slope = stepper.field(t, y)
    check_slope(slope, y)
    good = np.isfinite(read(control.rms(y) + control.rms(slope)))
    clock.num_evaluations += 1
    clock.stop(~good, Status.NOT_FINITE)
    riders = None
    if not good.all() and good.any():
        riders = send_indices(np.where(good, np.arange(len(good)), np.argmax(good)), y)
        y = ride(y, riders)
        slope = stepper.field(t, y)
    if clock.is_running:
        clock.begin(problem.first_length(clock, y, slope))
    return y, slope, riders


def ride(y: Tensor, riders: Tensor) -> Tensor:
    """Every row in its own state or, without a gradient, in that of the row it rides on."""
    carrying = riders == torch.arange(len(y), device=y.device)
    return torch.where(PerSample().spread(carrying, y.ndim), y, y.detach().index_select(0, riders))


def follow(step: Step, slope: Tensor) -> tuple[Tensor, Tensor]:
    """State and slope after a step that began with ``slope``."""
    trial, y = step.trial, step.y
    if step.move.is_clean:
        return trial.y, trial.slope
    accepted = step.stepper.control.spread(send_flags(step.move.accepted, y), y.ndim)
    return torch.where(accepted, trial.y, y), torch.where(accepted, trial.slope, slope)


def conclude(problem: Problem, course: Course, first: Tensor) -> Solution:
    """Put together what was recorded of a solve that began at ``first``."""
    clock, rows, outputs, y = course.clock, course.rows, course.outputs, course.y
    batch = len(y)

    def per_sample(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.broadcast_to(values, (batch,)).copy()).to(y.device)

    stats = Statistics(
        per_sample(clock.num_accepted),
        per_sample(clock.num_rejected),
        per_sample(clock.num_evaluations),
        per_sample(clock.status),
        **rows.stack(y, len(clock.t)),
    )
    arrived = PerSample().spread(stats.converged, y.ndim)
    moved = PerSample().spread(per_sample(clock.t != problem.times[0]), y.ndim)
    y = torch.where(moved, y, first)
    states = [first.unsqueeze(0)]
    if len(outputs.times):
        inner = outputs.stack(y)
        states.append(torch.where(arrived & ~moved, first, inner))
    if len(problem.times) > 1:
        states.append(torch.where(arrived, y, torch.nan).unsqueeze(0))
    last_t = per_sample(clock.t).to(problem.ts.dtype if problem.ts.is_floating_point() else y.dtype)
    return Solution(problem.ts, torch.cat(states), stats, last_t, y)
