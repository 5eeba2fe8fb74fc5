"""Local regularization: the estimates of a single step at a random time, for any way of finding gradients."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.neural_ode.node import NeuralODE
from neuralop_kit.neural_ode.regularizers import TSIT5_STABILITY, Weight, check_weight, mean_of_rows, weight_at
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.host import read, send
from neuralop_kit.solvers.ode.initial_step import initial_step
from neuralop_kit.solvers.ode.solution import Solution, Statistics


@dataclass(frozen=True)
class Place:
    """Where the extra step begins: times ``(rows,)``, the states there ``(batch, ...)``, the solver's step there.

    ``counts`` says which rows arrived, ``(rows,)``; the others stand where one that did stands.
    """

    t: Tensor
    u: Tensor
    h: Tensor
    counts: Tensor


class LocalRegularizer:
    """One more step from one random time on the solution, whose error is the penalty: ``weight * mean(E h)``.

    The mean is that of the samples which arrived and whose extra step is finite; it is zero where there are none. The
    state there is a constant; gradients flow through all stages of this one step and through nothing else. So the
    cost is that of one step, whatever the length of the solve, and the solve itself may use any adjoint.

    Args:
        weight: a number >= 0, or a schedule.
        times: ``"uniform"``, unbiased: t is uniform between the first and the last time; or ``"steps"``, biased: t is
            the beginning of one of the accepted steps, but not of the last one, which prefers regions that are hard.
            The latter needs dense output, five states of memory per step.
        h: ``"accepted"``, the step that the solver took there; or ``"initial"``, the step with which a solver would
            begin there, as in the published code.
        estimate: ``"error"``, or ``"stiffness"``, which did not help in the paper: ``weight * mean(S) / 3.5068``.

    Raises:
        ArgumentError: a name is unknown, or the weight is negative; when called, the times do not increase.

    Good values: ``ExponentialDecay(2.5, 1)`` for classification and ``ExponentialDecay(100, 10)`` for a latent ODE at
    1e-8. Published: MNIST 304 to 188 evaluations, PhysioNet 758 to 422.
    Source: Pal, Edelman and Rackauckas (2023), arXiv 2303.02262, algorithms 1 and 2.

    >>> from neuralop_kit.neural_ode import Autonomous
    >>> node = NeuralODE(Autonomous(torch.nn.Linear(2, 2)))
    >>> solution, penalty = LocalRegularizer(1.0).solve(node, torch.ones(3, 2), torch.tensor([0.0, 1.0]))
    >>> solution.ys.shape, penalty.ndim
    (torch.Size([2, 3, 2]), 0)
    """

    def __init__(
        self,
        weight: Weight = 1.0,
        *,
        times: Literal["uniform", "steps"] = "uniform",
        h: Literal["accepted", "initial"] = "accepted",
        estimate: Literal["error", "stiffness"] = "error",
    ) -> None:
        for name, value, known in (
            ("times", times, ("uniform", "steps")), ("h", h, ("accepted", "initial")),
            ("estimate", estimate, ("error", "stiffness")),
        ):  # fmt: skip
            if value not in known:
                raise ArgumentError(f"expected {name} among {list(known)}, got {value!r}; take one of these")
        check_weight(weight)
        self.weight, self.times, self.h, self.estimate = weight, times, h, estimate

    def solve(
        self,
        node: NeuralODE,
        u0: Tensor,
        t: Tensor,
        *,
        progress: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Solution, Tensor]:
        """The node's solution at the times ``t``, ``(num_times,)``, and the penalty."""
        if t.ndim != 1 or len(t) < 2 or not bool((t.diff() > 0).all()):
            raise ArgumentError(f"expected at least two increasing times (num_times,), got {t.tolist()}; sort them")
        rows = node.control.num_rows(len(u0))
        device = None if generator is None else generator.device
        # Whole numbers are times too, but none of those between them.
        t = t if t.is_floating_point() else t.to(u0.dtype)
        draw = torch.rand(rows, generator=generator, device=device).to(device=u0.device, dtype=t.dtype)
        choose = choose_any_time if self.times == "uniform" else choose_a_step
        solution, place = choose(node, u0, t, draw)
        if place is None:
            return solution, u0.new_zeros(())
        return solution, self._penalty(node, place, float(t[-1])) * weight_at(self.weight, progress)

    def _penalty(self, node: NeuralODE, place: Place, stop: float) -> Tensor:
        """Of a step from there."""
        stepper = node.stepper()
        slope = stepper.field(stepper.control.spread(place.t, place.u.ndim), place.u)
        h = place.h
        if self.h == "initial":
            length = initial_step(stepper, read(place.t), np.full(len(h), stop), place.u, slope.detach())
            h = send(length, place.u)
        trial = stepper.take(place.t, place.u, slope, h)
        finite = trial.error.detach().isfinite()
        if not finite.all():
            # A step without length is one that comes to numbers: NaN times a zero gradient is NaN.
            trial = stepper.take(place.t, place.u, slope, torch.where(finite, h, 0.0))
        values = trial.stiffness / TSIT5_STABILITY if self.estimate == "stiffness" else trial.error * h
        return mean_of_rows(values, place.counts & finite)


def choose_any_time(node: NeuralODE, u0: Tensor, t: Tensor, draw: Tensor) -> tuple[Solution, Place | None]:
    """A time between the first and the last: one more to be visited, and taken out of the solution afterwards."""
    rows, batch, num_times = len(draw), len(u0), len(t)
    chosen = t[0] + draw * (t[-1] - t[0])
    position = torch.searchsorted(t, chosen).clamp(1, num_times - 1)
    index = torch.arange(num_times, device=t.device)[:, None]
    kept = index + (index >= position)
    visited = t.new_empty(num_times + 1, rows).scatter(0, kept, t[:, None].expand(num_times, rows))
    visited = visited.scatter(0, position[None], chosen[None])
    solution = node(u0, visited if rows == batch else visited.squeeze(1))
    samples = torch.arange(batch, device=t.device)
    u = solution.ys[position.expand(batch), samples].detach()
    shown = replace(solution, ts=t, ys=solution.ys[kept.expand(num_times, batch), samples])
    if not solution.stats.converged.any():
        return shown, None
    started = solution.stats.accepted & (solution.stats.step_start <= chosen)
    step = (started * torch.arange(len(started), device=t.device)[:, None]).amax(dim=0)
    return shown, place_of(solution.stats, chosen.to(u0.dtype), u, step)


def choose_a_step(node: NeuralODE, u0: Tensor, t: Tensor, draw: Tensor) -> tuple[Solution, Place | None]:
    """The beginning of one of the accepted steps but the last; of the only one, where there is one."""
    solution = node(u0, t, dense=True)
    stats = solution.stats
    if not stats.converged.any():
        return solution, None
    step = nth_step(stats, (draw * (stats.accepted.sum(dim=0) - 1).clamp_min(1)).floor())
    start = stats.step_start.gather(0, step[None])[0]
    return solution, place_of(stats, start, solution(start).detach(), step)


def place_of(stats: Statistics, t: Tensor, u: Tensor, step: Tensor) -> Place:
    """Place of every row, with the length of its step of that number; rows that failed stand where another one does."""
    arrived, rows = stats.converged, torch.arange(len(u), device=u.device)
    beside = torch.where(arrived, rows, arrived.int().argmax())
    h = stats.step_size.gather(0, step[None])[0]
    # In joint control the batch has one time, and arrives or fails as one.
    return Place(t[beside], u[beside], h[beside], arrived) if len(t) == len(u) else Place(t, u, h, arrived[:1])


def nth_step(stats: Statistics, n: Tensor) -> Tensor:
    """Row of the accepted step number ``n``, counted from 0, of each column."""
    return (stats.accepted.cumsum(dim=0) <= n).sum(dim=0).clamp_max(len(stats.accepted) - 1)
