"""Derivatives of a minimiser with respect to the data of its problem, by the implicit function theorem."""

from abc import ABC, abstractmethod

from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.optimization.hessian import HessianFactor
from neuralop_kit.solvers.optimization.problem import LeastSquaresProblem


class Differentiation(ABC):
    """Gives a minimiser, found without a graph, the derivatives it has as a function of the problem's data."""

    @abstractmethod
    def attach(self, problem: LeastSquaresProblem, w: Tensor, factor: HessianFactor) -> Tensor:
        """``w`` with derivatives and with the same values; ``factor`` is that of the Hessian at ``w``."""


class Reattachment(Differentiation):
    """Newton steps from the minimiser: their value stays, their derivatives are those of the implicit function.

        w <- w - H^-1 g(w, z)      repeated ``order`` times, with one factorisation of ``H`` that is not differentiated

    ``order`` such steps give all derivatives up to that order exactly, by ordinary operations: reverse and forward
    mode, ``torch.func``, and everything that the residual closes over, such as a coefficient that is learned. Where
    ``H`` is damped, these are the derivatives of ``argmin F(w) + shift/2 |S^-1 (w - w*)|^2``, which exist.

    Args:
        order: 1 for a smaller graph, 2 so that the derivative may be differentiated once more.

    Raises:
        ArgumentError: ``order`` is below 1.
    """

    def __init__(self, order: int = 2) -> None:
        if order < 1:
            raise ArgumentError(f"expected an order of at least 1, got {order}; pass None for no derivatives at all")
        self.order = order

    def attach(self, problem: LeastSquaresProblem, w: Tensor, factor: HessianFactor) -> Tensor:
        """See :class:`Differentiation`."""
        w = w.detach()
        moved = w
        for _ in range(self.order):
            moved = moved - factor.solve(problem.gradient(moved) + factor.shifted_by(moved - w))
        return w + (moved - moved.detach())


class GaussNewtonReattachment(Differentiation):
    """One step with ``J^T J`` in place of the Hessian: cheaper, and wrong unless the residual is zero at the minimum.

    With many more points than unknowns the residual is not zero; errors of several percent are usual. It is here to
    be compared with. The matrix is positive semidefinite even where the Hessian is not.
    """

    def attach(self, problem: LeastSquaresProblem, w: Tensor, factor: HessianFactor) -> Tensor:
        """See :class:`Differentiation`."""
        w = w.detach()
        matrix = problem.detach().normal_equations(w)[2].detach()
        step = HessianFactor.of(matrix).solve(problem.gradient(w))
        return w - (step - step.detach())


def attach_where(
    differentiation: Differentiation, problem: LeastSquaresProblem, w: Tensor, factor: HessianFactor, mask: Tensor
) -> Tensor:
    """Attach the items of a mask; the others keep their values, without derivatives, and never enter the graph.

    A failed item may hold NaN; multiplied by a gradient of zero it would still spoil the weights it shares with others.
    """
    if mask.all():
        return differentiation.attach(problem, w, factor)
    index = mask.nonzero().squeeze(1)
    if len(index) == 0:
        return w
    attached = differentiation.attach(problem.take(index), w.index_select(0, index), factor.take(index))
    return w.index_copy(0, index, attached)
