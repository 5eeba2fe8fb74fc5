"""The host's side of a solve: where every row is in time, how long its next step is, and whether it goes on."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.solvers.ode.controllers import Flags, Floats, StepController
from neuralop_kit.solvers.status import Status

Counts = NDArray[np.int64]

# Below this an error estimate is as good as zero.
TINY = 1e-10


class Move(NamedTuple):
    """What was decided about a trial step; arrays of shape ``(rows,)``.

    Args:
        start, stop: times at both ends; equal where the step was not taken.
        h: length with its sign; 0 where the step was not taken.
        accepted: where it was taken.
        is_taken: whether any row took the step.
        is_clean: whether every row either took the step or stood still with finite numbers, so that the trial's state
            is the new state as it is.
        is_finite: whether all error estimates were finite.
    """

    start: Floats
    stop: Floats
    h: Floats
    accepted: Flags
    is_taken: bool
    is_clean: bool
    is_finite: bool


class Clock:
    """Times, step sizes, counters and status of all rows, in float64 on the host.

    Args:
        start, goal: first and last time of every row, ``(rows,)``; the last may be infinite.
        controller, order: how step sizes are chosen, for a method of which order.
        max_steps: trial steps per row.
        min_step: a step shorter than this is an underflow.
    """

    def __init__(
        self, start: Floats, goal: Floats, controller: StepController, order: int, *, max_steps: int, min_step: float
    ) -> None:
        self.controller, self.order, self.max_steps = controller, order, max_steps
        self.t, self.goal = start.copy(), goal
        span = np.abs(goal - start)
        size = np.maximum(np.where(np.isfinite(span), span, 1.0), np.abs(start))
        self.min_step = np.maximum(min_step, 4 * np.finfo(np.float64).eps * size)
        self.running = span > 0
        self.status = np.full(len(start), int(Status.CONVERGED))
        self.num_accepted = np.zeros(len(start), dtype=np.int64)
        self.num_trials = np.zeros(len(start), dtype=np.int64)
        self.num_evaluations = np.zeros(len(start), dtype=np.int64)
        # What every row that is still running has had; a row gets it on its account when it ends.
        self.trials_so_far = self.evaluations_so_far = 0
        self.floor = math.log(controller.first_error)
        self.history = (np.full(len(start), self.floor), np.full(len(start), self.floor))
        self.h = np.zeros(len(start))
        self.is_last = np.zeros(len(start), dtype=bool)

    @property
    def is_running(self) -> bool:
        """Whether any row is on its way."""
        return bool(np.count_nonzero(self.running))

    def begin(self, length: Floats) -> None:
        """Set the first step, positive lengths."""
        self._plan(np.copysign(length, self.goal - self.t))

    def stop(self, rows: Flags, status: Status) -> None:
        """Rows end where they are, with a status."""
        rows = rows & self.running
        if np.count_nonzero(rows):
            self.status = np.where(rows, int(status), self.status)
            self._retire(rows)

    def judge(self, error: Floats, num_evaluations: int) -> Move:
        """Accept or reject trial steps that cost ``num_evaluations`` each, move on, plan the next ones."""
        # Called once per trial step, where every microsecond shows: what can be counted is not computed row by row.
        finite = np.isfinite(error)
        accepted = self.running & ((error <= 1.0) if self.controller.adapts else finite)
        num_taken, num_running = np.count_nonzero(accepted), np.count_nonzero(self.running)
        is_finite = np.count_nonzero(finite) == len(error)
        self.trials_so_far += 1
        self.evaluations_so_far += num_evaluations
        self.num_accepted += accepted
        start, h = self.t, self.h
        if num_taken < num_running:
            h = np.where(accepted, h, 0.0)
        self.t = start + h
        arrived = accepted & self.is_last
        if np.count_nonzero(arrived):
            # The last step ends at the goal to the last bit.
            self.t = np.where(arrived, self.goal, self.t)
            self._retire(arrived)
        move = Move(start, self.t, h, accepted, bool(num_taken), is_finite and num_taken == num_running, is_finite)
        self._choose(error if is_finite else np.where(finite, error, np.inf), accepted)
        if num_taken < num_running:
            self._give_up(self.running & ~accepted, finite)
        if self.trials_so_far >= self.max_steps:
            self.stop(self.running, Status.MAX_ITERATIONS)
        return move

    def _choose(self, error: Floats, accepted: Flags) -> None:
        log_error = np.log(np.maximum(error, TINY))
        factor = self.controller.factor(log_error, self.history, accepted, self.order)
        previous = np.maximum(log_error, self.floor)
        self.history = (np.where(accepted, previous, self.history[0]), np.where(accepted, *self.history))
        self._plan(self.h * factor)

    def _retire(self, rows: Flags) -> None:
        self.running = self.running & ~rows
        self.num_trials += self.trials_so_far * rows
        self.num_evaluations += self.evaluations_so_far * rows
        self.h = np.where(self.running, self.h, 0.0)

    def _give_up(self, rejected: Flags, finite: Flags) -> None:
        stuck = rejected & (np.abs(self.h) < self.min_step) if self.controller.adapts else rejected
        self.stop(stuck & ~finite, Status.NOT_FINITE)
        self.stop(stuck, Status.STEP_UNDERFLOW)

    def _plan(self, h: Floats) -> None:
        rest = self.goal - self.t
        self.is_last = np.abs(rest) <= np.abs(self.controller.stretch * h)
        self.h = np.where(self.is_last, rest, h) * self.running

    @property
    def num_rejected(self) -> Counts:
        """Trial steps that were not taken."""
        return self.num_trials - self.num_accepted
