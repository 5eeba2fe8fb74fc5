"""What a constraint layer does with items whose solve failed. Each item's status is reported in any case."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.optimization.implicit import Differentiation, attach_where
from neuralop_kit.solvers.optimization.levenberg_marquardt import Minimum
from neuralop_kit.solvers.optimization.problem import LeastSquaresProblem
from neuralop_kit.solvers.status import Status


class FailurePolicy(ABC):
    """Makes differentiable coefficients of what the solver found."""

    @abstractmethod
    def finish(
        self, problem: LeastSquaresProblem, start: Tensor, minimum: Minimum, differentiation: Differentiation
    ) -> Tensor:
        """Coefficients ``(batch, num_unknowns)``; ``start`` is where the solver began."""


@dataclass(frozen=True)
class Mask(FailurePolicy):
    """Failed items keep the best coefficients that were found, and have no derivative."""

    def finish(
        self, problem: LeastSquaresProblem, start: Tensor, minimum: Minimum, differentiation: Differentiation
    ) -> Tensor:
        """See :class:`FailurePolicy`."""
        return attach_where(differentiation, problem, minimum.w, minimum.factor, minimum.info.converged)


@dataclass(frozen=True)
class Raise(FailurePolicy):
    """A :class:`ConvergenceError` that names the failed items.

    With :class:`ExpertParallel` all ranks raise together. Under other kinds of parallelism use :class:`Mask` and
    reduce the status, or the ranks that did not fail wait for ever.
    """

    def finish(
        self, problem: LeastSquaresProblem, start: Tensor, minimum: Minimum, differentiation: Differentiation
    ) -> Tensor:
        """See :class:`FailurePolicy`."""
        minimum.info.raise_if_failed()
        return differentiation.attach(problem, minimum.w, minimum.factor)


@dataclass(frozen=True)
class Damp(FailurePolicy):
    """Failed items have the derivatives of a damped problem, finite wherever the data are."""

    def finish(
        self, problem: LeastSquaresProblem, start: Tensor, minimum: Minimum, differentiation: Differentiation
    ) -> Tensor:
        """See :class:`FailurePolicy`."""
        usable = minimum.info.status != Status.INVALID_INPUT
        return attach_where(differentiation, problem, minimum.w, minimum.factor, usable)


@dataclass(frozen=True)
class Fallback(FailurePolicy):
    """Failed items take a cautious step from the start instead, without a derivative; add a soft loss for them.

        w = start - (J^T J + damping diag(J^T J))^-1 J^T r

    The ridge solution of the problem linearised at the start. It is kept where it is finite.

    Args:
        damping: positive. Good values: 1e-2 to 1.
    """

    damping: float = 0.1

    def __post_init__(self) -> None:
        if not self.damping > 0:
            raise ArgumentError(f"expected a positive damping, got {self.damping}; 0.1 is a good value")

    def finish(
        self, problem: LeastSquaresProblem, start: Tensor, minimum: Minimum, differentiation: Differentiation
    ) -> Tensor:
        """See :class:`FailurePolicy`."""
        failed = ~minimum.info.converged
        if not failed.any():
            return differentiation.attach(problem, minimum.w, minimum.factor)
        index = failed.nonzero().squeeze(1)
        with torch.no_grad():
            w = start.index_select(0, index).detach()
            _, gradient, matrix = problem.detach().take(index).normal_equations(w)
            squares = matrix.diagonal(dim1=-2, dim2=-1)
            damping = self.damping * torch.where(squares > 0, squares, 1.0)
            step, _ = torch.linalg.solve_ex(matrix + torch.diag_embed(damping), gradient)
            w = torch.where(step.isfinite().all(dim=-1, keepdim=True), w - step, w)
        attached = attach_where(differentiation, problem, minimum.w, minimum.factor, ~failed)
        return attached.index_copy(0, index, w)
