"""Dense output: a solution as a function of time, kept as one polynomial per step."""

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.clock import Move
from neuralop_kit.solvers.ode.controllers import Flags, Floats
from neuralop_kit.solvers.ode.host import read, send, send_indices
from neuralop_kit.solvers.ode.march import Problem, Step
from neuralop_kit.solvers.ode.record import in_dtype_of, powers

# No method's dense output has a higher one.
DEGREE = 4


class DenseOutput:
    """Watches a solve, and evaluates it anywhere afterwards; differentiable by the initial state and the parameters.

    Memory: the number of steps times five states.

    Args:
        problem: what is solved.
        y0: the initial state.
    """

    def __init__(self, problem: Problem, y0: Tensor) -> None:
        self.first = y0
        batch = len(y0)
        self.begin, self.end = (np.broadcast_to(problem.times[i], (batch,)) for i in (0, -1))
        self.moves: list[Move] = []
        self.states: list[Tensor] = []
        self.coefficients: list[Tensor] = []

    def watch(self, step: Step) -> None:
        """Keep one row of accepted steps."""
        self.moves.append(step.move)
        self.states.append(step.y)
        table = np.zeros((DEGREE, len(step.trial.stages)))
        table[: len(step.stepper.method.dense)] = step.stepper.method.dense
        stages = torch.stack(in_dtype_of(step.y, step.trial.stages))
        self.coefficients.append(torch.tensordot(send(table, stages), stages, dims=1))

    def __call__(self, t: Tensor) -> Tensor:
        """The state at ``t``, a number or ``(batch,)``, within the times of the solve; NaN where it was not reached.

        Raises:
            ArgumentError: ``t`` is outside.
        """
        time = np.broadcast_to(read(t), self.begin.shape)
        direction = np.where(self.end >= self.begin, 1.0, -1.0)
        if ((time - self.begin) * direction < 0).any() or ((time - self.end) * direction > 0).any():
            raise ArgumentError(
                f"expected times between {self.begin.tolist()} and {self.end.tolist()}, got {time.tolist()}; "
                "solve over a longer interval"
            )
        if not self.moves:
            return self.first
        index, theta, h = self._locate(time, direction)
        weights = np.where(theta <= 1, h, np.nan) * powers(theta, DEGREE)
        steps, samples = send_indices(index, self.first), torch.arange(len(time), device=self.first.device)
        spread = send(weights, self.first).view(*weights.shape, *[1] * (self.first.ndim - 1))
        coefficients = self._stacked_coefficients[:, steps, samples]
        return self._stacked_states[steps, samples] + (spread * coefficients).sum(dim=0)

    def _locate(self, time: Floats, direction: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Of every sample: the last step begun before its time, the place in that step, and the step's length."""
        start, h, accepted = self._table
        begun = accepted & ((time - start) * direction >= 0)
        index = len(begun) - 1 - np.argmax(begun[::-1], axis=0)
        index = np.where(begun.any(axis=0), index, np.argmax(accepted, axis=0))
        samples = np.arange(len(time))
        length = h[index, samples]
        theta = (time - start[index, samples]) / np.where(length == 0, 1.0, length)
        # The last step ends at the last time to the last bit, which a sum of start and length may miss.
        return index, np.where(theta < 1 + 1e-9, np.clip(theta, 0.0, 1.0), theta), length

    @functools.cached_property
    def _table(self) -> tuple[Floats, Floats, Flags]:
        shape = (len(self.moves), *self.begin.shape)
        start = np.broadcast_to(np.stack([move.start for move in self.moves]), shape)
        h = np.broadcast_to(np.stack([move.h for move in self.moves]), shape)
        return start, h, np.broadcast_to(np.stack([move.accepted for move in self.moves]), shape)

    @functools.cached_property
    def _stacked_states(self) -> Tensor:
        return torch.stack(self.states)

    @functools.cached_property
    def _stacked_coefficients(self) -> Tensor:
        """Shape ``(DEGREE, num_steps, batch, ...)``."""
        return torch.stack(self.coefficients, dim=1)
