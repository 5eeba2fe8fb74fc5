"""What is kept of a solve while it runs: statistics of the steps, and the states at the times asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.solvers.ode.clock import Move
from neuralop_kit.solvers.ode.control import StepControl
from neuralop_kit.solvers.ode.controllers import Floats
from neuralop_kit.solvers.ode.host import read, send, send_indices
from neuralop_kit.solvers.ode.method import Method

Table = Sequence[Sequence[float]]

# Numbers in the steps that are kept to be looked through together.
KEPT = 2**22


@dataclass
class StepRows:
    """Estimates of the accepted steps, row by row."""

    errors: list[Tensor] = field(default_factory=list)
    stiffnesses: list[Tensor] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)

    def add(self, move: Move, error: Tensor, stiffness: Tensor) -> None:
        """Keep one row."""
        self.errors.append(error)
        self.stiffnesses.append(stiffness)
        self.moves.append(move)

    def stack(self, like: Tensor, num_rows: int) -> dict[str, Tensor]:
        """The fields of :class:`Statistics` that have a value per step."""
        accepted = self._stack(lambda move: move.accepted, like, num_rows).bool()
        empty = like.new_zeros(0, num_rows)
        return {
            "error": torch.where(accepted, torch.stack(self.errors) if self.errors else empty, 0.0),
            "stiffness": torch.where(accepted, torch.stack(self.stiffnesses) if self.stiffnesses else empty, 0.0),
            "step_size": self._stack(lambda move: np.abs(move.h), like, num_rows),
            "step_start": self._stack(lambda move: np.where(move.accepted, move.start, 0.0), like, num_rows),
            "accepted": accepted,
        }

    def _stack(self, pick: Callable[[Move], NDArray[Any]], like: Tensor, num_rows: int) -> Tensor:
        rows = np.stack([pick(move) for move in self.moves]) if self.moves else np.zeros((0, num_rows))
        return send(rows, like)


def powers(theta: Floats, count: int) -> Floats:
    """``theta, theta^2, ...`` in rows."""
    return theta ** np.arange(1, count + 1)[:, None]


def in_dtype_of(y: Tensor, stages: Sequence[Tensor]) -> list[Tensor]:
    """Stages as the state is, whatever a field under autocast returns."""
    return [stage.to(y.dtype) for stage in stages]


@dataclass(frozen=True)
class Points:
    """Inner times that were passed, one per entry: when, in which step, and the weights of the step's stages there.

    Args:
        time, row, step: indices, ``(num_points,)``; steps are counted from the start of the solve.
        weights: ``(num_stages, num_points)``.
    """

    time: NDArray[np.int64]
    row: NDArray[np.int64]
    step: NDArray[np.int64]
    weights: Floats


class Passage(NamedTuple):
    """Successive rows of steps, which one by one are too small to look for times in.

    Args:
        start, h: where they began and how long they were, ``(num_steps, rows)``; ``h`` is 0 where none was taken.
        y, stages: states at their starts, ``(num_steps, batch, ...)``, and their stages alike.
    """

    start: Floats
    h: Floats
    y: Tensor
    stages: Sequence[Tensor]


class Outputs:
    """Collects the states at the inner times by dense output, from many steps at once.

    Args:
        times: ``(num_inner, rows)``, monotone along axis 0; the first and the last time are not among them.
        direction: +1 or -1, ``(rows,)``.
        control: of the solve.
    """

    def __init__(self, times: Floats, direction: Floats, control: StepControl) -> None:
        self.times, self.direction, self.control = times, direction, control
        self.next = np.zeros(times.shape[1], dtype=np.int64)
        self.num_steps = 0
        self.states: list[Tensor] = []
        self.points: list[Points] = []
        self._kept: list[tuple[Move, Tensor, tuple[Tensor, ...]]] = []

    def keep(self, move: Move, method: Method, y: Tensor, stages: tuple[Tensor, ...]) -> None:
        """Remember a step of a method until :meth:`flush`, or until there is much to remember."""
        if not len(self.times):
            return
        self._kept.append((move, y, stages))
        if len(self._kept) * (1 + len(stages)) * y.numel() > KEPT:
            self.flush(method)

    def flush(self, method: Method) -> None:
        """Look through what is kept, all of it steps of one method."""
        if not self._kept:
            return
        moves, states, stages = zip(*self._kept, strict=True)
        self._kept = []
        start, h = (np.stack(column) for column in zip(*((move.start, move.h) for move in moves), strict=True))
        columns = [torch.stack(column) for column in zip(*stages, strict=True)]
        self.add(method.dense, Passage(start, h, torch.stack(states), columns), moves[-1].stop)

    def add(self, table: Table, passage: Passage, stop: Floats) -> None:
        """Evaluate the dense output of steps, the last of which ended at ``stop``; the table is as ``Method.dense``."""
        points, place = self._find(table, passage, stop)
        self.num_steps += len(passage.h)
        if not len(place):
            return
        self.points.append(points)
        rows = self.control.num_rows(passage.y.shape[1])
        picked, weights = send_indices(place, passage.y), send(points.weights, passage.y)
        state, *slopes = (
            x.reshape(len(passage.h) * rows, *self._row(x)).index_select(0, picked)
            for x in in_dtype_of(passage.y, (passage.y, *passage.stages))
        )
        for weight, slope in zip(weights, slopes, strict=True):
            state = torch.addcmul(state, weight.view(-1, *[1] * (state.ndim - 1)), slope)
        self.states.append(state)

    def stack(self, like: Tensor) -> Tensor:
        """States at the inner times, ``(num_inner, batch, ...)``; NaN where none was reached."""
        count = sum(len(points.time) for points in self.points)
        place = np.full(self.times.shape, count)
        found = 0
        for points in self.points:
            place[points.time, points.row] = np.arange(found, found + len(points.time))
            found += len(points.time)
        missing = torch.full_like(self.control.row(like), torch.nan)
        states = torch.cat([*self.states, missing.unsqueeze(0)])
        return states[send_indices(place.ravel(), like)].view(len(self.times), *like.shape)

    def _row(self, x: Tensor) -> tuple[int, ...]:
        """Shape of a row of one of several states."""
        return tuple(self.control.row(x[0]).shape)

    def _find(self, table: Table, passage: Passage, stop: Floats) -> tuple[Points, NDArray[np.int64]]:
        """The times inside, and where their step and row are among all of the passage."""
        start, h, order = passage.start, passage.h, self.direction
        due = ((stop - self.times) * order >= 0) & (np.arange(len(self.times))[:, None] >= self.next)
        due &= h.any(axis=0)
        self.next = self.next + due.sum(axis=0)
        time, row = np.nonzero(due)
        ends = np.concatenate([start[1:], stop[None]]) * order
        # Whoever has not moved yet is in none of these steps.
        ends = np.where(h.cumsum(axis=0) == 0, -np.inf, ends)
        found = torch.searchsorted(*(torch.from_numpy(x.T.copy()) for x in (ends, self.times * order)))
        step = read(found)[row, time].astype(np.int64)
        length = h[step, row]
        theta = (self.times[time, row] - start[step, row]) / length
        weights = length * (np.asarray(table).T @ powers(theta, len(table)))
        return Points(time, row, self.num_steps + step, weights), step * h.shape[1] + row
