"""Preconditioned conjugate gradients for a batch of independent symmetric positive definite systems."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.status import SolveInfo, Status

LinearMap = Callable[[Tensor], Tensor]


def conjugate_gradients(
    operator: LinearMap,
    rhs: Tensor,
    *,
    preconditioner: LinearMap,
    rtol: float = 1e-10,
    max_iterations: int = 200,
    check_every: int | None = None,
) -> tuple[Tensor, SolveInfo]:
    """Solve ``A x = b`` item by item; axis 0 is the batch, all others belong to the unknown.

    Stops an item when ``sqrt(r . M r) <= rtol * sqrt(b . M b)``, with ``M`` the preconditioner. When ``M`` is close to
    the inverse of ``A``, as a multigrid cycle is, this is the relative error in the energy norm; rounding reaches it
    much later than it reaches the residual's own norm. An item that has stopped is frozen, so a batch gives what its
    items give alone. The update of the search direction is Polak-Ribiere's, which forgives a preconditioner that is
    not quite linear, such as one that works in single precision.

    Args:
        operator: ``x -> A x``, symmetric positive definite in every item.
        rhs: ``b``, shape ``(batch, *unknown)``.
        preconditioner: ``r -> M r``, symmetric positive definite.
        rtol: relative tolerance, positive.
        max_iterations: at least 1.
        check_every: iterations between two looks at the convergence mask (each waits for the device); by default 1 on
            CPU and 4 elsewhere. It does not change the result.

    Returns:
        ``x`` and a :class:`SolveInfo`.

    Raises:
        ArgumentError: ``rtol`` or ``max_iterations`` is out of range.

    Source: Hestenes and Stiefel (1952); Golub and Ye (1999), SIAM J. Sci. Comput. 21, for inexact preconditioners.

    >>> matrix = torch.tensor([[2.0, -1.0], [-1.0, 2.0]])
    >>> x, info = conjugate_gradients(lambda v: v @ matrix, torch.ones(1, 2), preconditioner=lambda r: r / 2)
    >>> x, info.iterations
    (tensor([[1., 1.]]), tensor([1]))
    """
    if not rtol > 0 or max_iterations < 1:
        raise ArgumentError(f"expected rtol > 0 and max_iterations >= 1, got {rtol} and {max_iterations}; correct them")
    interval = check_every or (1 if rhs.device.type == "cpu" else 4)
    state = _start(rhs, preconditioner, rtol)
    for iteration in range(1, max_iterations + 1):
        if (iteration - 1) % interval == 0 and not state.active.any():
            break
        _step(state, operator, preconditioner)
    status = torch.where(state.active.flatten(), Status.MAX_ITERATIONS, state.status.flatten())
    return state.x, SolveInfo(status, state.iterations.flatten(), _relative_residual(operator, state.x, rhs))


@dataclass
class _State:
    """Vectors of shape ``(batch, *unknown)``, numbers of shape ``(batch, 1, ...)``."""

    x: Tensor
    residual: Tensor
    direction: Tensor
    energy: Tensor  # r . M r
    target: Tensor  # the energy at which an item has converged
    active: Tensor
    status: Tensor
    iterations: Tensor


def _start(rhs: Tensor, preconditioner: LinearMap, rtol: float) -> _State:
    """x = 0, so that the residual is the right-hand side."""
    direction = preconditioner(rhs)
    energy = _dot(rhs, direction)
    broken = ~(energy >= 0)
    return _State(
        x=torch.zeros_like(rhs),
        residual=rhs.clone(),
        direction=direction.clone(),
        energy=energy,
        target=rtol**2 * energy,
        active=energy > 0,
        status=torch.where(broken, Status.BREAKDOWN, Status.CONVERGED),
        iterations=torch.zeros_like(energy, dtype=torch.int64),
    )


def _step(state: _State, operator: LinearMap, preconditioner: LinearMap) -> None:
    """One iteration, in place; items that are not active keep their solution."""
    image = operator(state.direction)
    curvature = _dot(state.direction, image)
    # Comparisons with NaN are false: whatever is not plainly positive counts as broken.
    broken = state.active & ~(curvature > 0)
    moving = state.active & (curvature > 0)
    alpha = torch.where(moving, state.energy / curvature, 0.0)
    state.x.addcmul_(alpha, state.direction)
    state.residual.addcmul_(alpha, image, value=-1)
    corrected = preconditioner(state.residual)
    energy = _dot(state.residual, corrected)
    beta = torch.where(moving, -alpha * _dot(corrected, image) / state.energy, 0.0)
    state.direction.mul_(beta).add_(corrected)
    state.iterations += moving
    done = moving & (energy.abs() <= state.target)
    broken |= moving & ~done & ~(energy > 0)
    state.status = torch.where(broken, Status.BREAKDOWN, state.status)
    state.energy = torch.where(moving, energy, state.energy)
    state.active = moving & ~done & ~broken


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of every item, shape ``(batch, 1, ...)``."""
    # Row sums first: the order of summation must not depend on the size of the batch or the number of threads.
    rows = (a * b).sum(dim=-1, keepdim=True)
    return rows.sum(dim=tuple(range(1, a.ndim)), keepdim=True)


def _relative_residual(operator: LinearMap, x: Tensor, rhs: Tensor) -> Tensor:
    """``||b - A x|| / ||b||`` per item."""
    residual = rhs - operator(x)
    size, rest = _dot(rhs, rhs).flatten().sqrt(), _dot(residual, residual).flatten().sqrt()
    return torch.where(size > 0, rest / size, rest)
