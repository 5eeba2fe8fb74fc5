"""The host's side of a stochastic solve: where every row is in time, what it visits next, how long its step is."""

import math
from dataclasses import dataclass

import numpy as np

from neuralop_kit.solvers.ode.clock import TINY, Counts
from neuralop_kit.solvers.ode.controllers import Flags, Floats, StepController
from neuralop_kit.solvers.status import Status


@dataclass(frozen=True)
class Leg:
    """A trial step of every row; arrays of shape ``(rows,)``.

    Args:
        start, stop: times at both ends; equal where a row has arrived.
        h: length; where a row has arrived some positive number, so that nothing is divided by zero.
        active: which rows are on their way.
    """

    start: Floats
    stop: Floats
    h: Floats
    active: Flags


class Itinerary:
    """Times, step sizes, counters and status of all rows; steps end exactly at the times to visit.

    Args:
        times: to visit, increasing, ``(num_times,)``.
        num_rows: samples, or 1 in joint control.
        controller, order: how step sizes are chosen, for a method of which order.
        max_steps: trial steps per row.
    """

    def __init__(
        self, times: Floats, num_rows: int, controller: StepController, order: float, *, max_steps: int
    ) -> None:
        self.times, self.controller, self.order, self.max_steps = times, controller, order, max_steps
        # Short enough to go nowhere in any precision, and no zero to divide by.
        self.idle = 1e-30
        self.t = np.full(num_rows, times[0])
        self.h = np.full(num_rows, self.idle)
        self.stretch = np.full(num_rows, controller.stretch)
        self.next = np.ones(num_rows, dtype=np.int64)
        self.floor = math.log(controller.first_error)
        self.history = (np.full(num_rows, self.floor), np.full(num_rows, self.floor))
        self.status = np.full(num_rows, int(Status.CONVERGED))
        self.num_accepted: Counts = np.zeros(num_rows, dtype=np.int64)
        self.num_rejected: Counts = np.zeros(num_rows, dtype=np.int64)
        # Which visit, counted over the whole solve, brought a row to a time; -1 where none did.
        self.visits = np.full((len(times), num_rows), -1)
        self.visits[0] = 0
        self.num_visits = 1

    @property
    def running(self) -> Flags:
        """Which rows are on their way."""
        return (self.next < len(self.times)) & (self.status == Status.CONVERGED)

    def stop(self, rows: Flags, status: Status) -> None:
        """Rows end where they are."""
        self.status = np.where(rows & self.running, int(status), self.status)

    def plan(self) -> Leg:
        """The next trial step."""
        active = self.running
        goal = self.times[np.minimum(self.next, len(self.times) - 1)]
        self.reaches = active & (goal - self.t <= self.stretch * self.h)
        stop = np.where(self.reaches, goal, np.where(active, self.t + self.h, self.t))
        return Leg(self.t, stop, np.where(active, stop - self.t, self.idle), active)

    def judge(self, leg: Leg, error: Floats) -> Flags:
        """Which rows take the step: they move on, and everybody's next step is chosen."""
        finite = np.isfinite(error)
        accepted = leg.active & ((error <= 1.0) if self.controller.adapts else finite)
        self.num_accepted += accepted
        self.num_rejected += leg.active & ~accepted
        arrived = accepted & self.reaches
        log_error = np.log(np.maximum(np.where(finite, error, np.inf), TINY))
        factor = self.controller.factor(log_error, self.history, accepted, self.order)  # type: ignore[arg-type]
        proposal = leg.h * factor
        # A step cut short by a time to visit says little: the one planned before comes back.
        proposal = np.where(arrived, np.maximum(proposal, self.h), proposal)
        self.h = np.where(leg.active, proposal, self.h)
        # Stretched to the same goal again, a rejected step might be the same step, for ever.
        self.stretch = np.where(accepted, self.controller.stretch, 1.0)
        previous = np.maximum(log_error, self.floor)
        self.history = (np.where(accepted, previous, self.history[0]), np.where(accepted, *self.history))
        self.t = np.where(accepted, leg.stop, self.t)
        self._give_up(leg.active & ~accepted, finite)
        self._visit(arrived)
        return accepted

    def _give_up(self, rejected: Flags, finite: Flags) -> None:
        smallest = 16 * np.finfo(np.float64).eps * np.maximum(np.abs(self.t), self.times[-1] - self.times[0])
        hopeless = rejected & ((self.h < smallest) if self.controller.adapts else True)
        self.stop(hopeless & ~finite, Status.NOT_FINITE)
        self.stop(hopeless, Status.STEP_UNDERFLOW)

    def _visit(self, arrived: Flags) -> None:
        if arrived.any():
            self.visits[self.next[arrived], np.flatnonzero(arrived)] = self.num_visits
            self.num_visits += 1
            self.next = self.next + arrived
        self.stop(self.num_accepted + self.num_rejected >= self.max_steps, Status.MAX_ITERATIONS)
