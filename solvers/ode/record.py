"""What is kept of a solve while it runs: statistics of the steps, and the states at the times asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.solvers.ode.clock import Move
from neuralop_kit.solvers.ode.control import StepControl
from neuralop_kit.solvers.ode.controllers import Floats
from neuralop_kit.solvers.ode.host import send, send_indices
from neuralop_kit.solvers.ode.method import Method


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


@dataclass(frozen=True)
class Points:
    """Times asked for that lie in one step: which time, which row, and the weights of the step's stages there.

    Args:
        time, row: indices, ``(num_points,)``.
        weights: of the stages at these times, ``(num_stages, num_points)``.
    """

    time: NDArray[np.int64]
    row: NDArray[np.int64]
    weights: Floats


def powers(theta: Floats, count: int) -> Floats:
    """``theta, theta^2, ...`` in rows."""
    return theta ** np.arange(1, count + 1)[:, None]


def in_dtype_of(y: Tensor, stages: Sequence[Tensor]) -> list[Tensor]:
    """Stages as the state is, whatever a field under autocast returns."""
    return [stage.to(y.dtype) for stage in stages]


class Outputs:
    """Collects the states at the inner times by dense output.

    Args:
        times: ``(num_inner, rows)``, monotone along axis 0; the first and the last time are not among them.
        direction: +1 or -1, ``(rows,)``.
        control: of the solve.
    """

    def __init__(self, times: Floats, direction: Floats, control: StepControl) -> None:
        self.times, self.direction, self.control = times, direction, control
        self.next = np.zeros(times.shape[1], dtype=np.int64)
        self.states: list[Tensor] = []
        self.points: list[Points] = []

    def find(self, move: Move, method: Method) -> Points | None:
        """The times inside a step of a method."""
        if not len(self.times):
            return None
        ahead = self.times[np.minimum(self.next, len(self.times) - 1), np.arange(len(self.next))]
        due = move.accepted & (self.next < len(self.times)) & ((move.stop - ahead) * self.direction >= 0)
        if not due.any():
            return None
        passed = due & ((move.stop - self.times) * self.direction >= 0)
        passed &= np.arange(len(self.times))[:, None] >= self.next
        self.next = self.next + passed.sum(axis=0)
        time, row = np.nonzero(passed)
        h = move.h[row]
        theta = (self.times[time, row] - move.start[row]) / h
        return Points(time, row, h * (np.asarray(method.dense).T @ powers(theta, len(method.dense))))

    def add(self, points: Points | None, y: Tensor, stages: tuple[Tensor, ...]) -> None:
        """Evaluate the dense output of a step that began at ``y``."""
        if points is None:
            return
        self.points.append(points)
        rows, weights = send_indices(points.row, y), send(points.weights, y)
        self.states.append(self.control.interpolate(y, in_dtype_of(y, stages), rows, weights))

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
