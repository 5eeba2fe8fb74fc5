"""Projection onto bounds and one total: nonnegative fields of given mass, shares of a budget, the simplex."""

import math
from typing import Any

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.status import SolveInfo, Status

# Newton's method needs 4 to 8 steps; a step that leaves the bracket is replaced by bisection, which bounds the number.
_MAX_STEPS = 100


def project_onto_budget(
    z: Tensor,
    total: Tensor,
    *,
    weights: Tensor | None = None,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = math.inf,
) -> tuple[Tensor, SolveInfo]:
    """The point nearest to ``z`` between two bounds whose weighted sum is given, item by item.

        y = argmin sum_i w_i (y_i - z_i)^2   subject to   lower <= y <= upper,   sum_i w_i y_i = total
          = clip(z + s, lower, upper)

    with one number ``s`` per item: the root of a monotone, piecewise linear function, found by a semismooth Newton
    method inside a shrinking bracket. It ends after finitely many steps with the exact active set, and the value is
    then evaluated from that set in closed form by ordinary operations. So ``y`` is exact up to rounding, and has exact
    derivatives of any order with respect to ``z``, ``total``, the bounds and the weights, also under ``torch.func`` and
    ``torch.compile``. At a tie (a point that just touches a bound) the derivative is one-sided.

    Args:
        z: points, ``(batch, n)``.
        total: ``(batch,)``.
        weights: ``w > 0``, ``(n,)`` or ``(batch, n)``; by default all 1. For functions on a grid: quadrature weights.
        lower, upper: bounds, numbers or anything that broadcasts to ``(batch, n)``; infinite where there is none.

    Returns:
        ``y`` and a :class:`SolveInfo`: ``iterations`` counts Newton steps, ``residual_norm`` is the relative error of
        the sum. An item whose bounds cannot meet the total has status ``INFEASIBLE`` and the nearest bounds as its
        value; one with NaN or infinity has ``INVALID_INPUT`` and is NaN.

    Raises:
        ShapeError: the sizes do not fit.

    Source: Condat (2016), Math. Program. 158, for the simplex; Cominetti, Mascarenhas and Silva (2014), Math. Program.
    Comput. 6, for Newton's method with bounds.

    >>> y, info = project_onto_budget(torch.tensor([[0.5, -1.0, 1.5]]), torch.tensor([1.0]))
    >>> y
    tensor([[0., 0., 1.]])
    """
    if z.ndim != 2 or total.shape != z.shape[:1]:
        raise ShapeError(
            f"expected points (batch, n) and a total (batch,), got {tuple(z.shape)} and {tuple(total.shape)}; "
            "flatten fields first"
        )
    low, high, w = (_like(bound, z) for bound in (lower, upper, 1.0 if weights is None else weights))
    side, steps = _active_set(*(x.detach() for x in (z, total, w, low, high)))
    free = side == 0
    bound = torch.where(side < 0, low, high)
    room = torch.where(free, w, 0.0).sum(dim=-1)
    fixed = torch.where(free, z, bound)
    shift = (total - (w * fixed).sum(dim=-1)) / torch.where(room > 0, room, 1.0)
    y = torch.where(free, z + shift.unsqueeze(-1), bound)
    # Rounding may leave the bounds by a digit: the value is put back, its derivative stays.
    y = y + (torch.clamp(y, low, high) - y).detach()
    return _report(y, total, w, low, high, steps)


def project_onto_simplex(z: Tensor, total: float | Tensor = 1.0) -> tuple[Tensor, SolveInfo]:
    """The nearest point with nonnegative entries of a given sum, item by item; see :func:`project_onto_budget`.

    Args:
        z: points, ``(batch, n)``.
        total: >= 0, one number for all items or ``(batch,)``.

    >>> project_onto_simplex(torch.tensor([[2.0, 1.0]]))[0]
    tensor([[1., 0.]])
    """
    total = torch.as_tensor(total, dtype=z.dtype, device=z.device)
    return project_onto_budget(z, total.expand(z.shape[0]) if total.ndim == 0 else total)


@torch.library.custom_op("neuralop_kit::budget_active_set", mutates_args=())
def _active_set(z: Tensor, total: Tensor, w: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Where the solution sits: -1 at the lower bound, 1 at the upper one, 0 between; and the number of Newton steps.

    An operator of its own, because the loop looks at its data: compilers and vmap see a single call.
    """
    # Outside of this bracket every entry is at the same bound, or free.
    left, right = (low - z).amin(dim=-1), (high - z).amax(dim=-1)
    negligible = 4 * torch.finfo(z.dtype).eps * (z.abs().amax(dim=-1) + left.abs().nan_to_num(posinf=0.0))
    shift = (total - (w * z).sum(dim=-1)) / w.sum(dim=-1)
    shift = torch.clamp(shift, left, right)
    steps = torch.zeros_like(total, dtype=torch.int64)
    active = shift.isfinite() & total.isfinite()
    interval = 1 if z.device.type == "cpu" else 4
    for step in range(_MAX_STEPS):
        moved = z + shift.unsqueeze(-1)
        excess = (w * torch.clamp(moved, low, high)).sum(dim=-1) - total
        slope = torch.where((moved > low) & (moved < high), w, 0.0).sum(dim=-1)
        left = torch.where(excess < 0, torch.maximum(left, shift), left)
        right = torch.where(excess > 0, torch.minimum(right, shift), right)
        target = shift - excess / slope
        outside = ~((target >= left) & (target <= right))
        target = torch.where(outside, (left + right) / 2, target)
        active = active & (excess != 0) & ((target - shift).abs() > negligible) & target.isfinite()
        if step % interval == 0 and not active.any():
            break
        shift = torch.where(active, target, shift)
        steps += active
    moved = z + shift.unsqueeze(-1)
    return (moved >= high).to(torch.int8) - (moved <= low).to(torch.int8), steps


@_active_set.register_fake
def _(z: Tensor, total: Tensor, w: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z, dtype=torch.int8), torch.empty_like(total, dtype=torch.int64)


@_active_set.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    size = info.batch_size
    moved = [t.expand(size, *t.shape) if d is None else t.movedim(d, 0) for t, d in zip(tensors, in_dims, strict=True)]
    side, steps = _active_set(*(t.flatten(0, 1) for t in moved))
    return (side.unflatten(0, (size, -1)), steps.unflatten(0, (size, -1))), (0, 0)


def _like(value: float | Tensor, z: Tensor) -> Tensor:
    """A number, or a tensor that broadcasts, as ``(batch, n)``."""
    return torch.as_tensor(value, dtype=z.dtype, device=z.device).expand(z.shape)


def _report(y: Tensor, total: Tensor, w: Tensor, low: Tensor, high: Tensor, steps: Tensor) -> tuple[Tensor, SolveInfo]:
    """The value with NaN where the input was invalid, and what became of every item."""
    with torch.no_grad():
        size = (w * y).abs().sum(dim=-1) + total.abs()
        residual = ((w * y).sum(dim=-1) - total).abs() / torch.where(size > 0, size, 1.0)
        tolerance = 100 * torch.finfo(y.dtype).eps * y.shape[-1] ** 0.5
        crossed = (low > high).any(dim=-1)
        status = torch.where(residual <= tolerance, Status.CONVERGED, Status.MAX_ITERATIONS)
        least, most = (w * low).sum(dim=-1), (w * high).sum(dim=-1)
        room = tolerance * size
        status = torch.where((total < least - room) | (total > most + room) | crossed, Status.INFEASIBLE, status)
        invalid = ~(residual.isfinite())
        status = torch.where(invalid, Status.INVALID_INPUT, status)
    y = torch.where(invalid.unsqueeze(-1), math.nan, y)
    return y, SolveInfo(status, steps, residual)
