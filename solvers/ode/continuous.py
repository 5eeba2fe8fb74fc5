"""Continuous adjoints: gradients by a second differential equation, backward in time; here for comparison."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.adjoint import Adjoint, Direct
from neuralop_kit.solvers.ode.checks import refuse_transforms
from neuralop_kit.solvers.ode.control import PerSample
from neuralop_kit.solvers.ode.explicit import ExplicitRungeKutta
from neuralop_kit.solvers.ode.leaves import Leaves, leaves_of
from neuralop_kit.solvers.ode.march import Problem, march
from neuralop_kit.solvers.ode.rerun import Scene
from neuralop_kit.solvers.ode.solution import Solution


class Continuous(Adjoint):
    """What both share: the adjoint equation, solved with the method and the tolerances of the solve.

        d lambda / dt = -(df/dy)^T lambda,   d mu / dt = -(df/dp)^T lambda,   lambda += dloss/dy(t_i) at each t_i

    The gradients are ``lambda`` at the first time and ``mu``: those of the equation, not of what the solver did, so
    they agree with :class:`Direct` to the tolerance only. ``ys`` alone has a gradient; statistics have none, and
    neither has ``last_y``. The whole batch shares a step size in the backward pass.

    Raises:
        ArgumentError: the method is not explicit, samples have times of their own, or ``dense`` is set.
        ConvergenceError: a sample failed, on the way there or, in the backward pass, on the way back.
    """

    def solve(self, problem: Problem, y0: Tensor, *, dense: bool) -> Solution:
        """See the base class."""
        check(problem, dense=dense)
        if not torch.is_grad_enabled():
            return march(problem, y0)
        refuse_transforms(f"{type(self).__name__}()")
        scene = Scene(problem.stepper.field, y0)
        with torch.no_grad():
            solution = self.forward(problem, y0)
        scene.watched()
        solution.stats.raise_if_failed()
        with scene.again():
            leaves = leaves_of(problem, y0)
        ys = _Attached.apply(self, Back(problem, leaves, solution, scene), y0, *leaves.tensors)
        return replace(solution, ys=ys, dense=None)

    @abstractmethod
    def forward(self, problem: Problem, y0: Tensor) -> Solution:
        """Solve, and keep what :meth:`state` wants."""

    @abstractmethod
    def start(self, y: Tensor) -> list[Tensor]:
        """What of the state is solved for backward, from where it is known to be ``y``."""

    @abstractmethod
    def state(self, back: "Back", t: Tensor, carried: Sequence[Tensor]) -> Tensor:
        """The state at ``t``, from what is solved for or from the way there."""


class Backsolve(Continuous):
    """Solve for the state backward too: memory of one state, and wrong where the backward problem is unstable.

    A component that decays like ``exp(-L t)`` forward grows like that backward, with the errors that it has; the state
    is set right at the times asked for, and nowhere else. Unsafe for dissipative fields.

    Source: Chen et al. (2018), NeurIPS, algorithm 1.
    """

    def forward(self, problem: Problem, y0: Tensor) -> Solution:
        """See the base class."""
        return march(problem, y0)

    def start(self, y: Tensor) -> list[Tensor]:
        """See the base class."""
        return [y]

    def state(self, back: "Back", t: Tensor, carried: Sequence[Tensor]) -> Tensor:
        """See the base class."""
        return carried[0]


class Interpolating(Continuous):
    """Take the state from the dense output of the way there: stable; keeps one polynomial per step.

    >>> from neuralop_kit.solvers.ode import odeint
    >>> rate = torch.tensor(2.0, requires_grad=True)
    >>> solution = odeint(lambda t, y: -rate * y, torch.ones(1, 1), torch.tensor([0.0, 1.0]), adjoint=Interpolating())
    >>> solution.ys[-1].sum().backward()
    >>> round(rate.grad.item(), 3)
    -0.135
    """

    def forward(self, problem: Problem, y0: Tensor) -> Solution:
        """See the base class."""
        return Direct().solve(problem, y0, dense=True)

    def start(self, y: Tensor) -> list[Tensor]:
        """See the base class."""
        return []

    def state(self, back: "Back", t: Tensor, carried: Sequence[Tensor]) -> Tensor:
        """See the base class."""
        low, high = sorted((back.times[0], back.times[-1]))
        return back.solution(t.double().clamp(low, high))


@dataclass(frozen=True, eq=False)
class Back:
    """All that the way back needs.

    Args:
        problem, leaves, solution: what was solved, what it depends on, and what came out.
        scene: where the field was evaluated.
    """

    problem: Problem
    leaves: Leaves
    solution: Solution
    scene: Scene

    @property
    def times(self) -> list[float]:
        """The times asked for, the same for all samples."""
        return [float(t) for t in self.problem.times[:, 0]]

    def gradients(self, adjoint: Continuous, by_ys: Tensor) -> list[Tensor]:
        """By the first state and by the leaves, from the gradients by ``ys``."""
        ys, times = self.solution.ys, self.times
        by_y, totals = by_ys[-1], [torch.zeros_like(leaf) for leaf in self.leaves.tensors]
        for i in reversed(range(1, len(times))):
            parts = [*adjoint.start(ys[i]), by_y, *totals]
            parts = self._between(adjoint, parts, times[i], times[i - 1])
            by_y, *totals = parts[len(adjoint.start(ys[i])) :]
            by_y = by_y + by_ys[i - 1]
        return [by_y, *totals]

    def _between(self, adjoint: Continuous, parts: list[Tensor], start: float, stop: float) -> list[Tensor]:
        """Solve the adjoint equation from one time to the one before it; all parts lie in one row."""

        def field(t: Tensor, row: Tensor) -> Tensor:
            return pack(self._slopes(adjoint, t.view(()), unpack(row, parts)))

        problem, row = self.problem, pack(parts)
        rtol, atol = (float(torch.as_tensor(x).min()) for x in (problem.stepper.rtol, problem.stepper.atol))
        stepper = replace(problem.stepper, field=field, control=PerSample(), rtol=rtol, atol=atol)
        times = np.array([[start], [stop]])
        solution = march(replace(problem, stepper=stepper, times=times, ts=torch.from_numpy(times[:, 0])), row)
        solution.stats.raise_if_failed()
        return unpack(solution.last_y, parts)

    def _slopes(self, adjoint: Continuous, t: Tensor, parts: list[Tensor]) -> list[Tensor]:
        """Of what is carried of the state, of ``lambda`` and of ``mu``."""
        leaves, stepper = self.leaves, self.problem.stepper
        carried, cotangent = parts[: -1 - len(leaves.tensors)], parts[-1 - len(leaves.tensors)]
        with torch.enable_grad():
            y = adjoint.state(self, t, carried).detach().requires_grad_()
            time = t.expand(stepper.control.num_rows(len(y)))
            slope = stepper.field(stepper.control.spread(time, y.ndim), y)
            if slope.requires_grad:
                inputs = [y, *leaves.tensors]
                pulled = torch.autograd.grad(
                    slope, inputs, cotangent, retain_graph=leaves.are_behind_a_graph, materialize_grads=True
                )
            else:
                pulled = tuple(torch.zeros_like(part) for part in parts[len(carried) :])
        return [slope.detach()] * len(carried) + [-p for p in pulled]


def pack(parts: Sequence[Tensor]) -> Tensor:
    """One sample of everything, ``(1, size)``."""
    return torch.cat([part.reshape(1, -1) for part in parts], dim=1)


def unpack(row: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts, in the shapes that they had."""
    pieces = row.split([part.numel() for part in like], dim=1)
    return [piece.reshape(part.shape) for piece, part in zip(pieces, like, strict=True)]


class _Attached(torch.autograd.Function):
    """Hands out the states of a solve; in the backward pass, solves the adjoint equation."""

    @staticmethod
    def forward(ctx: Any, adjoint: Continuous, back: Back, y0: Tensor, *leaves: Tensor) -> Tensor:
        ctx.adjoint, ctx.back = adjoint, back
        # The backward pass reads both where they are: what is saved may not be changed in place before.
        ctx.save_for_backward(y0, *leaves)
        return back.solution.ys.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_ys: Tensor) -> Any:
        _ = ctx.saved_tensors
        with ctx.back.scene.again():
            return None, None, *ctx.back.gradients(ctx.adjoint, by_ys)


def check(problem: Problem, *, dense: bool) -> None:
    """What the adjoint equation is not written for."""
    method = problem.stepper.method
    if not isinstance(method, ExplicitRungeKutta):
        raise ArgumentError(
            f"expected an explicit method with a continuous adjoint, got {type(method).__name__}; use Replay()"
        )
    if (problem.times != problem.times[:, :1]).any():
        raise ArgumentError("expected the same times for all samples, got times of their own; use Replay()")
    if dense:
        raise ArgumentError("expected dense=False with a continuous adjoint, got True; use Direct()")
