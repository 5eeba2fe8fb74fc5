"""Derivatives by the times of a solve, attached to a solve that holds them constant."""

from dataclasses import replace

import torch
from torch import Tensor

from neuralop_kit.solvers.ode.adjoint import Adjoint
from neuralop_kit.solvers.ode.march import Problem
from neuralop_kit.solvers.ode.solution import Solution
from neuralop_kit.solvers.ode.trial import Stepper


def solve_with_times(problem: Problem, y0: Tensor, adjoint: Adjoint, *, dense: bool) -> Solution:
    """Solve, such that ``ys`` depend on the first time and on their own.

        y(t; t0, y0):    dy/dt = f(t, y),    dy/dt0 = -(dy/dy0) f(t0, y0)

    Both follow from a shift by zero that has a derivative; each time costs one evaluation of the field.
    """
    stepper, ts = problem.stepper, problem.ts
    start = y0 - drift(stepper, ts[0], y0)
    solution = adjoint.solve(problem, start, dense=dense)
    ys = torch.stack([y + drift(stepper, t, y) for t, y in zip(ts, solution.ys, strict=True)])
    return replace(solution, ys=ys)


def drift(stepper: Stepper, t: Tensor, y: Tensor) -> Tensor:
    """Zero, with the field as its derivative by ``t``."""
    rows = stepper.control.num_rows(len(y))
    time = stepper.control.spread(t.to(y.dtype).expand(rows), y.ndim)
    return stepper.field(time.detach(), y.detach()) * (time - time.detach())
