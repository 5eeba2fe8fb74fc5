"""The loop of a stochastic solve: look the noise up, try a step, judge it, move on."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.ode import trial
from neuralop_kit.solvers.ode.checks import check_slope
from neuralop_kit.solvers.ode.clock import Counts
from neuralop_kit.solvers.ode.control import StepControl
from neuralop_kit.solvers.ode.controllers import FixedStep, Flags
from neuralop_kit.solvers.ode.host import read, send, send_flags, send_indices
from neuralop_kit.solvers.ode.solution import Solution, Statistics
from neuralop_kit.solvers.ode.trial import kind_of
from neuralop_kit.solvers.sde.brownian import BrownianPath, BrownianPoint, increment_between
from neuralop_kit.solvers.sde.itinerary import Itinerary, Leg
from neuralop_kit.solvers.sde.method import Coefficient, Noise, StochasticMethod
from neuralop_kit.solvers.status import Status


@dataclass(frozen=True, eq=False)
class Equation:
    """What is solved, and how a step is judged."""

    method: StochasticMethod
    drift: Coefficient
    diffusion: Coefficient
    control: StepControl
    rtol: float
    atol: float

    def attempt(self, t: Tensor, y: Tensor, h: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """New state, E and S; ``t`` and ``h`` are ``(rows,)``. Zero where the method has no such estimate."""
        if not self.method.compile:
            return attempt(self, t, y, h, noise)
        kinds = type(self.method), type(self.control), kind_of(self.drift), kind_of(self.diffusion)
        return trial.compiled(attempt, kinds, self.control, y)(self, t, y, h, noise)

    @torch.no_grad()
    def begin(self, itinerary: Itinerary, y: Tensor, first_step: float | None) -> None:
        """Choose the first step: a hundredth of the time in which the state would change by itself."""
        rows, length = len(itinerary.t), itinerary.times[-1] - itinerary.times[0]
        t = self.control.spread(send(itinerary.t, y), y.ndim)
        f, g = self.drift(t, y), self.diffusion(t, y)
        for name, value in (("drift", f), ("diffusion", g)):
            check_slope(value, y, f"{name}(t, y)")
        scale = self.atol + self.rtol * y.abs()
        rms = self.control.rms
        size, speed = read(torch.stack([rms(y / scale), rms((f.abs() + 3 * g.abs()) / scale)]))
        itinerary.stop(~np.isfinite(size + speed), Status.NOT_FINITE)
        if first_step is None:
            tiny = ~((size >= 1e-5) & (speed >= 1e-5))
            guess = np.where(tiny, 1e-3 * length, 0.01 * size / np.where(tiny, 1.0, speed))
            itinerary.h = np.minimum(guess, length)
        else:
            itinerary.h = np.full(rows, first_step)

    def replace_failed(self, itinerary: Itinerary, y: Tensor) -> Tensor:
        """Rows that cannot begin ride along on a healthy row's state: NaN would enter the gradients that all share."""
        good = itinerary.running
        if good.all() or not good.any():
            return y
        riders = np.where(good, np.arange(len(good)), np.argmax(good))
        return y.index_select(0, send_indices(riders, y))


def attempt(equation: Equation, t: Tensor, y: Tensor, h: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """The one graph that is compiled."""
    rms = equation.control.rms
    t, h = equation.control.spread(t, y.ndim), equation.control.spread(h, y.ndim)
    new = equation.method.step(equation.drift, equation.diffusion, t, y, h, noise)
    # Zero, and NaN where the state is.
    nothing = rms(new.y.detach() * 0.0)
    error, stiffness = nothing, nothing
    if new.error is not None:
        error = rms(new.error / (equation.atol + equation.rtol * torch.maximum(y.abs(), new.y.abs())))
    if new.slopes is not None and new.points is not None:
        stiffness = rms(new.slopes) / rms(new.points).clamp_min(torch.finfo(y.dtype).tiny)
    return new.y, error, stiffness


@dataclass
class Journal:
    """What is kept of every row of taken steps, and of every arrival."""

    start: Tensor
    errors: list[Tensor] = field(default_factory=list)
    stiffnesses: list[Tensor] = field(default_factory=list)
    legs: list[tuple[Leg, Flags]] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)

    def stack(self, num_rows: int) -> tuple[Tensor, ...]:
        """The fields of :class:`Statistics` with a value per step."""
        y, shape = self.start, (len(self.legs), num_rows)
        taken = np.array([taken for _, taken in self.legs], dtype=bool).reshape(shape)
        h = np.array([leg.h for leg, _ in self.legs]).reshape(shape)
        start = np.array([leg.start for leg, _ in self.legs]).reshape(shape)
        accepted = send_flags(taken, y)
        estimates = (torch.stack(rows) if rows else y.new_zeros(shape) for rows in (self.errors, self.stiffnesses))
        error, stiffness = (torch.where(accepted, x, 0.0) for x in estimates)
        return error, stiffness, send(np.where(taken, h, 0.0), y), send(np.where(taken, start, 0.0), y), accepted

    def trajectory(self, visits: Counts) -> Tensor:
        """States at the times visited, ``(num_times, batch, ...)``, NaN where a row did not come; one gather."""
        y = self.start
        visits = np.broadcast_to(visits, (len(visits), len(y)))
        source = send_indices(np.where(visits < 0, len(self.states), visits), y)
        every = torch.stack([*self.states, torch.full_like(y, torch.nan)])
        return every[source, torch.arange(len(y), device=y.device)]


def travel(
    equation: Equation, itinerary: Itinerary, path: BrownianPath, y: Tensor, ts: Tensor, first_step: float | None
) -> Solution:
    """Solve; gradients flow through what was accepted, step sizes and noise are constants."""
    fixed = itinerary.controller
    if isinstance(fixed, FixedStep):
        first_step = fixed.step_size
    equation.begin(itinerary, y, first_step)
    journal, first = Journal(y, states=[y]), y
    y = equation.replace_failed(itinerary, y)
    clock = torch.empty((), dtype=torch.float64, device=y.device)
    point = path.at(send(itinerary.t, clock))
    num_trials = np.zeros_like(itinerary.next)
    while itinerary.running.any():
        leg = itinerary.plan()
        num_trials += leg.active
        right = path.at(send(leg.stop, clock))
        noise = noise_between(equation.control, point, right, send(leg.h, clock), y)
        start, h = send(leg.start, y), send(leg.h, y)
        new, error, stiffness = equation.attempt(start, y, h, noise)
        errors, num_visits = read(error), itinerary.num_visits
        accepted = itinerary.judge(leg, errors)
        if not accepted.any():
            continue
        taken = equation.control.spread(send_flags(accepted, y), y.ndim)
        if not np.isfinite(errors).all():
            # Rejected rows take a tiny step without noise instead: NaN times a zero gradient is NaN.
            h = send(np.where(accepted, leg.h, itinerary.idle), y)
            noise = Noise(*(torch.where(taken, x, 0.0) for x in noise))
            new, error, stiffness = equation.attempt(start, y, h, noise)
        journal.errors.append(error)
        journal.stiffnesses.append(stiffness)
        journal.legs.append((leg, accepted))
        y = torch.where(taken, new, y)
        point = BrownianPoint(*(torch.where(taken, a, b) for a, b in zip(right, point, strict=True)))
        if itinerary.num_visits > num_visits:
            journal.states.append(y)
    moved = equation.control.spread(send_flags(itinerary.num_accepted > 0, y), y.ndim)
    evaluations = 1 + num_trials * equation.method.num_stages
    return conclude(itinerary, journal, torch.where(moved, y, first), ts, evaluations)


def noise_between(control: StepControl, left: BrownianPoint, right: BrownianPoint, h: Tensor, y: Tensor) -> Noise:
    """Of a step, in the dtype of the state."""
    increment = increment_between(left, right, control.spread(h, y.ndim))
    return Noise(increment.value.to(y.dtype), increment.area.to(y.dtype))


def conclude(itinerary: Itinerary, journal: Journal, y: Tensor, ts: Tensor, evaluations: Counts) -> Solution:
    """Put together what was recorded."""
    counts = (itinerary.num_accepted, itinerary.num_rejected, evaluations, itinerary.status)
    batch = len(y)
    numbers = (send_indices(np.broadcast_to(x, (batch,)).copy(), y) for x in counts)
    stats = Statistics(*numbers, *journal.stack(len(itinerary.t)))
    last_t = send(np.broadcast_to(itinerary.t, (batch,)).copy(), ts if ts.is_floating_point() else y)
    return Solution(ts, journal.trajectory(itinerary.visits), stats, last_t, y)
