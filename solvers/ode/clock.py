"""The host's side of a solve: where every row is in time, how long its next step is, and whether it goes on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.solvers.ode.controllers import Flags, Floats, StepController
from neuralop_kit.solvers.status import Status

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Move:
    """What was decided about a trial step; arrays of shape ``(rows,)``.

    Args:
        start, stop: times at both ends; equal where the step was not taken.
        h: length with its sign; 0 where the step was not taken.
        accepted: where it was taken.
        is_clean: whether every row either took the step or stood still with finite numbers, so that the trial's state
            is the new state as it is.
        is_finite: whether all error estimates were finite.
    """

    start: Floats
    stop: Floats
    h: Floats
    accepted: Flags
    is_clean: bool
    is_finite: bool


class Clock:
    """Times, step sizes, counters and status of all rows, in float64 on the host.

    Args:
        start, goal: first and last time of every row, ``(rows,)``.
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
        self.min_step = np.maximum(min_step, 4 * np.finfo(np.float64).eps * np.maximum(span, np.abs(start)))
        self.running = span > 0
        self.status = np.full(len(start), int(Status.CONVERGED))
        self.num_accepted = np.zeros(len(start), dtype=np.int64)
        self.num_rejected = np.zeros(len(start), dtype=np.int64)
        self.num_evaluations = np.zeros(len(start), dtype=np.int64)
        self.history = np.full((2, len(start)), controller.first_error)
        self.h = np.zeros(len(start))
        self.is_last = np.zeros(len(start), dtype=bool)

    @property
    def is_running(self) -> bool:
        """Whether any row is on its way."""
        return bool(self.running.any())

    def begin(self, length: Floats) -> None:
        """Set the first step, positive lengths."""
        self._plan(np.copysign(length, self.goal - self.t))

    def stop(self, rows: Flags, status: Status) -> None:
        """Rows end where they are, with a status."""
        rows = rows & self.running
        if rows.any():
            self.status = np.where(rows, int(status), self.status)
            self.running = self.running & ~rows
            self.h = np.where(self.running, self.h, 0.0)

    def judge(self, error: Floats, num_evaluations: int) -> Move:
        """Accept or reject trial steps that cost ``num_evaluations`` each, move on, plan the next ones."""
        self.num_evaluations += num_evaluations * self.running
        finite = np.isfinite(error)
        accepted = self.running & ((error <= 1.0) if self.controller.adapts else finite)
        start, taken = self.t, np.where(accepted, self.h, 0.0)
        # The last step ends at the goal to the last bit.
        self.t = np.where(accepted, np.where(self.is_last, self.goal, start + self.h), start)
        move = Move(
            start, self.t, taken, accepted, bool((accepted | (~self.running & finite)).all()), bool(finite.all())
        )
        self._count(accepted)
        self._choose(np.where(finite, error, np.inf), accepted)
        return move

    def _count(self, accepted: Flags) -> None:
        self.num_accepted += accepted
        self.num_rejected += self.running & ~accepted

    def _choose(self, error: Floats, accepted: Flags) -> None:
        factor = self.controller.factor(error, self.history, accepted, self.order)
        self.history = np.where(accepted, np.stack([error, self.history[0]]), self.history)
        self.running = self.running & ~(accepted & self.is_last)
        self._plan(self.h * factor)
        if not accepted.all():
            hopeless = np.abs(self.h) < self.min_step if self.controller.adapts else True
            stuck = self.running & ~accepted & hopeless
            self.stop(stuck & np.isinf(error), Status.NOT_FINITE)
            self.stop(stuck, Status.STEP_UNDERFLOW)
        self.stop(self.num_accepted + self.num_rejected >= self.max_steps, Status.MAX_ITERATIONS)

    def _plan(self, h: Floats) -> None:
        rest = self.goal - self.t
        self.is_last = np.abs(rest) <= self.controller.stretch * np.abs(h)
        self.h = np.where(self.running, np.where(self.is_last, rest, h), 0.0)
