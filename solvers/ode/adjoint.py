"""How gradients of a solve are found."""

from abc import ABC, abstractmethod
from dataclasses import replace

from torch import Tensor

from neuralop_kit.solvers.ode.dense import DenseOutput
from neuralop_kit.solvers.ode.march import Problem, march
from neuralop_kit.solvers.ode.solution import Solution


class Adjoint(ABC):
    """A way to solve such that the solution can be differentiated."""

    @abstractmethod
    def solve(self, problem: Problem, y0: Tensor, *, dense: bool) -> Solution:
        """Solve from ``y0``."""


class Direct(Adjoint):
    """Backpropagation through the accepted steps, step sizes held constant: exact for what the solver did.

    Memory grows with the number of steps times what the field keeps for its backward pass.
    """

    def solve(self, problem: Problem, y0: Tensor, *, dense: bool) -> Solution:
        """See the base class."""
        if not dense:
            return march(problem, y0)
        output = DenseOutput(problem, y0)
        return replace(march(problem, y0, output.watch), dense=output)
