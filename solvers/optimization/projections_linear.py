"""Projection onto the solutions of a few linear equations, for a batch of independent points."""

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.optimization.products import times
from neuralop_kit.solvers.status import SolveInfo, Status


def project_onto_equalities(
    z: Tensor, matrix: Tensor, target: Tensor, *, weights: Tensor | None = None
) -> tuple[Tensor, SolveInfo]:
    """The point nearest to ``z`` that satisfies a few linear equations, item by item.

        y = argmin sum_i w_i (y_i - z_i)^2   subject to   A y = b
          = z + W^-1 A^T (A W^-1 A^T)^-1 (b - A z)

    The formula is applied twice: the second sweep takes out the rounding errors of the first and leaves the relative
    residual at a few units of rounding, whatever the scale of the rows. Ordinary operations throughout: derivatives of
    any order with respect to all arguments, also under ``torch.func`` and ``torch.compile``. Projections are
    idempotent and, in the norm of ``w``, never increase a distance.

    Args:
        z: points, ``(batch, n)``.
        matrix: ``A``, ``(p, n)`` for all items or ``(batch, p, n)``; its rows are independent, ``p <= n``.
        target: ``b``, ``(batch, p)``.
        weights: ``w > 0``, ``(n,)`` or ``(batch, n)``; by default all 1. For functions on a grid: quadrature weights.

    Returns:
        ``y`` and a :class:`SolveInfo` whose ``residual_norm`` is ``max_k |A y - b|_k / (|A| |y| + |b|)_k``. Items
        whose rows are dependent are returned as they came, with status ``BREAKDOWN``.

    Raises:
        ShapeError: the sizes do not fit.

    Source: the KKT equations, solved by hand; Golub and Van Loan (2013), section 6.2.2.

    >>> z = torch.tensor([[1.0, 2.0, 4.0]])
    >>> y, info = project_onto_equalities(z, torch.ones(1, 3), torch.tensor([[1.0]]))
    >>> torch.allclose(y, torch.tensor([[-1.0, 0.0, 2.0]]), atol=1e-6), info.converged
    (True, tensor([True]))
    """
    _check(z, matrix, target)
    w = torch.ones_like(z[0]) if weights is None else weights
    spread = matrix.mT / w.unsqueeze(-1)
    gram = matrix @ spread
    # Rows of length one in the metric: then the factorisation sees angles between rows, not their units.
    scale = torch.diagonal(gram, dim1=-2, dim2=-1).clamp_min(torch.finfo(z.dtype).tiny).rsqrt()
    factor, failure = torch.linalg.cholesky_ex(gram * scale.unsqueeze(-1) * scale.unsqueeze(-2))
    smallest = torch.diagonal(factor, dim1=-2, dim2=-1).amin(dim=-1)
    # The factor's smallest entry is the sine of the angle between a row and the others.
    singular = (failure > 0) | ~(smallest > matrix.shape[-2] * torch.finfo(z.dtype).eps ** 0.5)
    # A regular stand-in: neither values nor gradients of failed items may become NaN.
    identity = torch.eye(matrix.shape[-2], dtype=z.dtype, device=z.device)
    factor = torch.where(singular[..., None, None], identity, factor)
    y = z
    for _ in range(2):
        missing = (target - times(matrix, y)) * scale
        multipliers = torch.cholesky_solve(missing.unsqueeze(-1), factor).squeeze(-1) * scale
        y = y + times(spread, multipliers)
    y = torch.where(singular.unsqueeze(-1), z, y)
    return y, _report(y, matrix, target, singular)


@torch.no_grad()
def _report(y: Tensor, matrix: Tensor, target: Tensor, singular: Tensor) -> SolveInfo:
    size = times(matrix.abs(), y.abs()) + target.abs()
    error = (times(matrix, y) - target).abs() / torch.where(size > 0, size, 1)
    residual_norm = error.amax(dim=-1)
    status = torch.where(singular, Status.BREAKDOWN, Status.CONVERGED).expand(residual_norm.shape)
    status = torch.where(residual_norm.isfinite(), status, Status.INVALID_INPUT)
    return SolveInfo(status, torch.zeros_like(status), residual_norm)


def _check(z: Tensor, matrix: Tensor, target: Tensor) -> None:
    if z.ndim != 2 or matrix.ndim not in (2, 3) or matrix.shape[-1] != z.shape[-1]:
        raise ShapeError(
            f"expected points (batch, n) and a matrix (p, n) or (batch, p, n), got {tuple(z.shape)} and "
            f"{tuple(matrix.shape)}; flatten fields first"
        )
    if target.shape != (z.shape[0], matrix.shape[-2]) or not 1 <= matrix.shape[-2] <= z.shape[-1]:
        raise ShapeError(
            f"expected a target of shape {(z.shape[0], matrix.shape[-2])} with at most {z.shape[-1]} equations, "
            f"got {tuple(target.shape)}; give one number per item and equation"
        )
