"""Ways to a damped step: normal equations, which are fast, the exact Hessian near a minimum, QR for all digits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.optimization.problem import LeastSquaresProblem
from neuralop_kit.solvers.optimization.products import times


@dataclass(frozen=True)
class Linearization:
    """What a step needs to know of the problem around a point.

    Args:
        cost: ``F``, shape ``(batch,)``.
        gradient: ``J^T r``, shape ``(batch, num_unknowns)``.
        squares: diagonal of ``J^T J``, the squared norms of the columns, ``(batch, num_unknowns)``.
        matrix: ``M``, or the factor ``R`` of ``J = Q R``; ``(batch, num_unknowns, num_unknowns)``.
        rotated: ``Q^T r`` beside ``R``, else the gradient once more; ``(batch, num_unknowns)``.
    """

    cost: Tensor
    gradient: Tensor
    squares: Tensor
    matrix: Tensor
    rotated: Tensor

    @property
    def is_finite(self) -> Tensor:
        """Whether nothing overflowed, shape ``(batch,)``."""
        return self.cost.isfinite() & self.squares.isfinite().all(-1) & self.gradient.isfinite().all(-1)

    def slope(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """How far from stationary: the largest cosine between ``r`` and a column of ``J``, and its rounding error.

        ``cosine_j = |g_j| / (|J_j| |r|)``; the residual itself is known to ``eps sum_j |J_j| |w_j|``, relative to
        ``|r|``. Both are zero where ``r`` is.
        """
        eps = torch.finfo(w.dtype).eps
        size = (2 * self.cost).sqrt().clamp_min(torch.finfo(w.dtype).tiny)
        norms = self.squares.sqrt()
        cosines = torch.where(norms > 0, self.gradient.abs() / norms, 0.0)
        return cosines.amax(dim=-1) / size, 8 * eps * (norms * w.abs()).sum(dim=-1) / size

    def where(self, mask: Tensor, other: Linearization) -> Linearization:
        """This one where ``mask`` holds, the other elsewhere."""

        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b)

        return Linearization(*(pick(a, b) for a, b in zip(self._tensors(), other._tensors(), strict=True)))

    def take(self, index: Tensor) -> Linearization:
        """That of some items."""
        return Linearization(*(t.index_select(0, index) for t in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.cost, self.gradient, self.squares, self.matrix, self.rotated


@dataclass(frozen=True)
class StepSolver(ABC):
    """Solves ``(M + D) step = -J^T r`` for every item, with ``M`` near the Hessian, ``D`` diagonal and non-negative.

    Args:
        damping: first ``mu`` in ``D = mu diag(J^T J)``, positive; smaller is bolder.
        handover: slope at which the next solver does better.
    """

    damping: float = 1e-3
    handover: float = 0.0

    @abstractmethod
    def linearize(self, problem: LeastSquaresProblem, w: Tensor) -> Linearization:
        """Whatever does not depend on the damping, so that a rejected step costs one small factorisation."""

    @abstractmethod
    def step(self, linearization: Linearization, damping: Tensor) -> Tensor:
        """The step for the diagonal ``D``, shape ``(batch, num_unknowns)``; NaN where it cannot be computed."""


@dataclass(frozen=True)
class NormalEquations(StepSolver):
    """Gauss-Newton by Cholesky factorisation of ``J^T J + D``; loses digits like the squared condition number of ``J``.

    No equilibration is needed: the rounding errors of a Cholesky factorisation do not change when columns are scaled.
    """

    def linearize(self, problem: LeastSquaresProblem, w: Tensor) -> Linearization:
        """See :class:`StepSolver`."""
        cost, gradient, matrix = problem.normal_equations(w)
        return Linearization(cost, gradient, matrix.diagonal(dim1=-2, dim2=-1), matrix, gradient)

    def step(self, linearization: Linearization, damping: Tensor) -> Tensor:
        """See :class:`StepSolver`."""
        lower, failed = torch.linalg.cholesky_ex(linearization.matrix + torch.diag_embed(damping))
        step = -torch.cholesky_solve(linearization.gradient.unsqueeze(-1), lower).squeeze(-1)
        return torch.where((failed == 0).unsqueeze(-1), step, torch.nan)


@dataclass(frozen=True)
class ExactHessian(NormalEquations):
    """Newton: ``M`` is the Hessian. Quadratic convergence where Gauss-Newton is linear, with a residual that stays.

    Only for points near a minimum, and more work per step; elsewhere ``M + D`` is often indefinite, and the damping
    must first grow.
    """

    damping: float = 1e-8

    def linearize(self, problem: LeastSquaresProblem, w: Tensor) -> Linearization:
        """See :class:`StepSolver`."""
        cost, gradient, square, hessian = problem.newton_equations(w)
        return Linearization(cost, gradient, square.diagonal(dim1=-2, dim2=-1), hessian, gradient)


@dataclass(frozen=True)
class OrthogonalFactors(StepSolver):
    """Gauss-Newton by QR: for float32, and for condition numbers above 1e7.

    ``J = Q R`` once per point, then ``[R; D^(1/2)]`` per damping. About twice the operations of
    :class:`NormalEquations`, and much slower where QR runs item by item.
    """

    def linearize(self, problem: LeastSquaresProblem, w: Tensor) -> Linearization:
        """See :class:`StepSolver`."""
        residual, jacobian = problem.rows(w)
        missing = jacobian.shape[-1] - jacobian.shape[-2]
        if missing > 0:
            jacobian = torch.nn.functional.pad(jacobian, (0, 0, 0, missing))
            residual = torch.nn.functional.pad(residual, (0, missing))
        squares = jacobian.square().sum(dim=-2)
        finite = (squares.isfinite() & residual.isfinite().all(-1, keepdim=True)).all(-1).view(-1, 1, 1)
        # LAPACK does not return from some matrices with NaN.
        q, r = torch.linalg.qr(torch.where(finite, jacobian, 0.0))
        cost, gradient = 0.5 * residual.square().sum(dim=-1), times(jacobian.mT, residual)
        return Linearization(cost, gradient, squares, r, times(q.mT, residual))

    def step(self, linearization: Linearization, damping: Tensor) -> Tensor:
        """See :class:`StepSolver`."""
        size = damping.shape[-1]
        q, r = torch.linalg.qr(torch.cat([linearization.matrix, torch.diag_embed(damping.sqrt())], dim=-2))
        rotated = times(q[:, :size].mT, linearization.rotated)
        return -torch.linalg.solve_triangular(r, rotated.unsqueeze(-1), upper=True).squeeze(-1)


def default_steps(dtype: torch.dtype) -> tuple[StepSolver, ...]:
    """What to try, in this order: whatever the first has not brought to an end goes on with the next."""
    if dtype == torch.float64:
        return NormalEquations(handover=3e-2), ExactHessian(), OrthogonalFactors()
    return (OrthogonalFactors(),)
