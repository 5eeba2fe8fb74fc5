"""What a solver reports beside its solution, item by item."""

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from neuralop_kit.solvers.errors import ConvergenceError


class Status(IntEnum):
    """How the solution of one item of a batch ended."""

    CONVERGED = 0
    MAX_ITERATIONS = 1  # of a solve or of time steps; the best or last iterate is returned
    INVALID_INPUT = 2  # NaN, infinity, or a value outside the equation's range; the solution is NaN
    BREAKDOWN = 3  # the iteration cannot go on, for example because a matrix is not positive definite
    STALLED = 4  # no step improves the iterate any more, and the tolerance is not met; the best iterate is returned
    SINGULAR = 5  # stationary, but not a strict minimum: the solution is not unique and has no derivative
    INFEASIBLE = 6  # no point satisfies all constraints
    UNBOUNDED = 7  # the objective has no lower bound on the feasible set
    NOT_FINITE = 8  # a right-hand side gave NaN or infinity, however short the step
    STEP_UNDERFLOW = 9  # a time step became too short to change the time: a singularity, or too tight a tolerance


@dataclass(frozen=True)
class SolveInfo:
    """Report of a solve; every attribute has shape ``(batch,)``.

    Args:
        status: values of :class:`Status`, int64.
        iterations: iterations spent on each item, int64; 0 for direct solvers.
        residual_norm: ``||b - A u|| / ||b||`` of what is returned, recomputed at the end; 0 where ``b = 0``.

    >>> import torch
    >>> info = SolveInfo(torch.tensor([0, 2]), torch.tensor([9, 0]), torch.tensor([1e-11, float("nan")]))
    >>> info.converged
    tensor([ True, False])
    """

    status: Tensor
    iterations: Tensor
    residual_norm: Tensor

    @property
    def converged(self) -> Tensor:
        """Which items met their tolerance, bool."""
        return self.status == Status.CONVERGED

    def raise_if_failed(self) -> None:
        """Raise a :class:`ConvergenceError` that names the failed items; does nothing when there are none."""
        failed = [(i, Status(s).name) for i, s in enumerate(self.status.tolist()) if s != Status.CONVERGED]
        if failed:
            listed = ", ".join(f"item {i}: {name}" for i, name in failed[:8]) + (", ..." if len(failed) > 8 else "")
            raise ConvergenceError(
                f"expected all {len(self.status)} items to converge, got {len(failed)} failures ({listed}); "
                "check these inputs, or allow more iterations"
            )
