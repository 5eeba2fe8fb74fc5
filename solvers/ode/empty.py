"""A solve without numbers: an empty batch, or states without components."""

from dataclasses import replace

from torch import Tensor

from neuralop_kit.solvers.ode.adjoint import Adjoint
from neuralop_kit.solvers.ode.checks import check_slope
from neuralop_kit.solvers.ode.dense import DenseOutput
from neuralop_kit.solvers.ode.host import send
from neuralop_kit.solvers.ode.march import Problem
from neuralop_kit.solvers.ode.solution import Solution, Statistics


class NoSteps(Adjoint):
    """Takes no step, and gives all that the field depends on a gradient of zero, as a batch with samples would."""

    def solve(self, problem: Problem, y0: Tensor, *, dense: bool) -> Solution:
        """See the base class."""
        control, first = problem.stepper.control, send(problem.times[0], y0)
        slope = problem.stepper.field(control.spread(first, y0.ndim), y0)
        check_slope(slope, y0)
        solution = solve_nothing(slope, y0, problem.ts, control.num_rows(len(y0)))
        return replace(solution, dense=DenseOutput(problem, y0)) if dense else solution


def solve_nothing(slope: Tensor, y0: Tensor, ts: Tensor, num_rows: int) -> Solution:
    """States as empty as the first one at all times, attached to the slope there."""
    y = y0 + 0 * slope
    count, per_step = ts.new_zeros(len(y0)).long(), y0.new_zeros(0, num_rows)
    stats = Statistics(count, count, count, count, per_step, per_step, per_step, per_step, per_step.bool())
    return Solution(ts, y.repeat(len(ts), *[1] * y.ndim), stats, ts[-1].detach().expand(len(y0)).clone(), y)
