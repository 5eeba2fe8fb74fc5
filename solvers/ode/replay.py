"""The replay adjoint: the gradient of direct backpropagation from nothing but the accepted states and steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.adjoint import Adjoint, Direct
from neuralop_kit.solvers.ode.checks import refuse_transforms
from neuralop_kit.solvers.ode.clock import Move
from neuralop_kit.solvers.ode.controllers import Floats
from neuralop_kit.solvers.ode.host import send, send_flags, send_indices
from neuralop_kit.solvers.ode.leaves import Leaves, leaves_of
from neuralop_kit.solvers.ode.march import Course, Problem, Step, conclude, follow, ride, run
from neuralop_kit.solvers.ode.record import Points, StepRows, in_dtype_of
from neuralop_kit.solvers.ode.rerun import Scene
from neuralop_kit.solvers.ode.solution import Solution
from neuralop_kit.solvers.ode.trial import Stepper


class Replay(Adjoint):
    """Solve without a tape; in the backward pass take every accepted step once more, with one, last step first.

    The same numbers as :class:`Direct`, to rounding, and the same gradients: of states, of error and of stiffness
    estimates. Memory is one state per step, plus the tape of a single step; with ``stride`` one state per ``stride``
    steps, plus ``stride`` states. Costs about one more forward solve per backward pass, two with a stride.

    Gradients reach the initial state, the parameters of a module, and every leaf tensor that the field uses at the
    first time. Second derivatives and transforms of ``torch.func`` need :class:`Direct`.

    The solve changes a module's buffers, such as the running statistics of a batch norm; the backward pass does not do
    so once more. A field that draws random numbers, as dropout does, is refused: the second run would not find them
    again. Fields that mix the samples of a batch need joint control, here as everywhere.

    Args:
        stride: keep every ``stride``-th state and find those between by solving again; the square root of the number of
            steps uses least memory.

    Raises:
        ArgumentError: ``stride`` is below one; from the solve: the field draws random numbers, ``dense`` is set, or a
            transform of ``torch.func`` looks on.

    >>> from neuralop_kit.solvers.ode import odeint
    >>> rate = torch.tensor(2.0, requires_grad=True)
    >>> solution = odeint(lambda t, y: -rate * y, torch.ones(1, 1), torch.tensor([0.0, 1.0]), adjoint=Replay())
    >>> solution.ys[-1].sum().backward()
    >>> round(rate.grad.item(), 3)
    -0.135
    """

    def __init__(self, *, stride: int = 1) -> None:
        if stride < 1:
            raise ArgumentError(f"expected stride >= 1, got {stride}; 1 keeps every state")
        self.stride = stride

    def solve(self, problem: Problem, y0: Tensor, *, dense: bool) -> Solution:
        """See the base class."""
        if dense:
            raise ArgumentError("expected dense=False with Replay, got True; use Direct(), which keeps the stages")
        if not torch.is_grad_enabled():
            return Direct().solve(problem, y0, dense=False)
        refuse_transforms("Replay()")
        scene = Scene(problem.stepper.field, y0)
        tape = Tape(self.stride, scene)
        with torch.no_grad():
            course = run(problem, y0, [tape.watch])
        scene.watched()
        tape.sort(course.outputs.points)
        with scene.again():
            leaves = leaves_of(problem, y0)
        if not tape.lines:
            return conclude(problem, course, y0)
        start = y0 if course.riders is None else ride(y0, course.riders)
        y, errors, stiffnesses, *states = _Replayed.apply(tape, course, leaves, start, *leaves.tensors)
        rows = StepRows(list(errors.unbind()), list(stiffnesses.unbind()), course.rows.moves)
        course.outputs.states = states
        return conclude(problem, replace(course, rows=rows, y=y), y0)


@dataclass(frozen=True, eq=False)
class Line:
    """A row of accepted steps, as far as it must be known to take it again."""

    stepper: Stepper
    move: Move


class Inner(NamedTuple):
    """The inner times of one line: their places among all, their rows, and the weights of the stages."""

    place: NDArray[np.int64]
    row: NDArray[np.int64]
    weights: Floats


@dataclass(eq=False)
class Tape:
    """What is kept of a solve: all lines with their inner times, and every ``stride``-th state."""

    stride: int
    scene: Scene
    lines: list[Line] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    inner: dict[int, Inner] = field(default_factory=dict)

    def watch(self, step: Step) -> None:
        """Keep one row of accepted steps."""
        if len(self.lines) % self.stride == 0:
            self.states.append(step.y)
        self.lines.append(Line(step.stepper, step.move))

    def sort(self, all_points: Sequence[Points]) -> None:
        """Give every line its part of the inner times."""
        found = 0
        for points in all_points:
            order = np.argsort(points.step, kind="stable")
            numbers, begins = np.unique(points.step[order], return_index=True)
            for number, part in zip(numbers, np.split(order, begins[1:]), strict=True):
                self.inner[int(number)] = Inner(found + part, points.row[part], points.weights[:, part])
            found += len(order)

    def backward(self) -> Iterator[tuple[int, Line, Tensor]]:
        """Number, line and initial state of all steps, from the last to the first."""
        for segment in reversed(range(len(self.states))):
            first = segment * self.stride
            lines = self.lines[first : first + self.stride]
            states = [self.states[segment]]
            with torch.no_grad():
                for line in lines[:-1]:
                    states.append(again(line, states[-1])[1])
            for i in reversed(range(len(lines))):
                yield first + i, lines[i], states[i]


def again(line: Line, y: Tensor) -> tuple[Step, Tensor]:
    """Take a step once more; rows that did not take it then stand still now. Returns also the state at its end."""
    stepper, move = line.stepper, line.move
    t = send(move.start, y)
    slope = stepper.field(stepper.control.spread(t, y.ndim), y)
    step = Step(stepper, move, y, stepper.take(t, y, slope, send(move.h, y)))
    return step, follow(step, slope)[0]


class _Replayed(torch.autograd.Function):
    """Hands out what the solve found; in the backward pass, replays it."""

    @staticmethod
    def forward(
        ctx: Any, tape: Tape, course: Course, leaves: Leaves, start: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.tape, ctx.leaves = tape, leaves
        # The backward pass reads both where they are: what is saved may not be changed in place before.
        ctx.save_for_backward(start, *tensors)
        rows, outputs = course.rows, course.outputs
        return course.y.clone(), torch.stack(rows.errors), torch.stack(rows.stiffnesses), *outputs.states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_end: Tensor, by_error: Tensor, by_stiffness: Tensor, *by_states: Tensor) -> Any:
        _, *leaves = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * len(leaves)
        by_y, by_inner = by_end, torch.cat(by_states) if by_states else None
        with ctx.tape.scene.again():
            for number, line, y in ctx.tape.backward():
                accepted = send_flags(line.move.accepted, y)
                cotangents = [
                    by_y,
                    torch.where(accepted, by_error[number], 0.0),
                    torch.where(accepted, by_stiffness[number], 0.0),
                ]
                inner = ctx.tape.inner.get(number)
                if inner is not None and by_inner is not None:
                    cotangents.append(by_inner[send_indices(inner.place, y)])
                by_y, *by_leaves = pull_back(line, inner, y, ctx.leaves, cotangents)
                totals = [add(total, new) for total, new in zip(totals, by_leaves, strict=True)]
        return None, None, None, by_y, *totals


def pull_back(
    line: Line, inner: Inner | None, y: Tensor, leaves: Leaves, cotangents: Sequence[Tensor]
) -> tuple[Tensor, *tuple[Tensor | None, ...]]:
    """Vector-Jacobian product of one step, by its state and by the leaves."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        step, end = again(line, y)
        results = [end, step.trial.error, step.trial.stiffness]
        if inner is not None:
            rows, weights = send_indices(inner.row, y), send(inner.weights, y)
            results.append(line.stepper.control.interpolate(y, in_dtype_of(y, step.trial.stages), rows, weights))
        pairs = [(r, c) for r, c in zip(results, cotangents, strict=True) if r.requires_grad]
        by_y, *by_leaves = torch.autograd.grad(
            [result for result, _ in pairs],
            [y, *leaves.tensors],
            [cotangent for _, cotangent in pairs],
            allow_unused=True,
            # The graph between leaves and field is needed again by the other steps.
            retain_graph=leaves.are_behind_a_graph,
        )
    return by_y, *by_leaves


def add(total: Tensor | None, new: Tensor | None) -> Tensor | None:
    """Sum of what is there."""
    return new if total is None else total if new is None else total + new
