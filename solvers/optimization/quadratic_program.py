"""Quadratic programs, a batch at once, with a status for every item and exact derivatives."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.optimization.active_set import ActiveSet, attach, polish
from neuralop_kit.solvers.optimization.interior_point import interior_point
from neuralop_kit.solvers.optimization.products import times
from neuralop_kit.solvers.optimization.program import QuadraticProgram
from neuralop_kit.solvers.optimization.transforms import refuse_vmap
from neuralop_kit.solvers.status import SolveInfo, Status


@dataclass(frozen=True)
class QPInfo(SolveInfo):
    """Report of quadratic programs.

    Args:
        status: values of :class:`Status`, shape ``(batch,)``.
        iterations: of the interior-point method; 0 where the active set of the start was right.
        residual_norm: the largest relative error of the optimality conditions, of what is returned.
        y: multipliers of the equalities, ``(batch, p)``.
        z: multipliers of the inequalities, ``(batch, q)``, non-negative.
        is_degenerate: items with an inequality that holds with equality and has no multiplier, ``(batch,)``: their
            derivatives are those for one of two active sets, and another on the other side.
    """

    y: Tensor
    z: Tensor
    is_degenerate: Tensor


def solve_qp(
    Q: Tensor,
    f: Tensor,
    *,
    A: Tensor | None = None,
    b: Tensor | None = None,
    G: Tensor | None = None,
    h: Tensor | None = None,
    start: QPInfo | None = None,
    tolerance: float = 1e-9,
    max_iterations: int = 60,
    order: int = 2,
    check_every: int | None = None,
) -> tuple[Tensor, QPInfo]:
    """Solve convex quadratic programs item by item; the solution is a differentiable function of all data.

        min_x  1/2 x.Q x + f.x   subject to   A x = b,   G x <= h

    A primal-dual interior-point method finds which inequalities are active; then the optimality conditions are a
    linear system, solved to rounding. Derivatives are those of this system. Items that end early are frozen.

    Args:
        Q: ``(batch, n, n)`` or ``(n, n)``, symmetric positive semidefinite; zero for linear programs.
        f: ``(batch, n)``.
        A, b: ``(batch, p, n)`` and ``(batch, p)``, or without batch.
        G, h: ``(batch, q, n)`` and ``(batch, q)``, or without batch.
        start: report of a similar batch, whose active sets are tried first: no iterations where they are right.
        tolerance: of the interior-point method, relative, positive. The linear system afterwards gives the digits.
        max_iterations: at least 1. 10 to 25 are usual.
        order: how often the solution may be differentiated; 0 for no derivatives.
        check_every: iterations between two looks at the mask (each waits for the device), by default 1 on CPU, else 4.

    Returns:
        ``x``, shape ``(batch, n)``, NaN where there is no solution, and a :class:`QPInfo`. Converged items have a
        ``residual_norm`` of at most 1e-8 in float64 and 1e-4 in float32, which is solved in float64.

    Raises:
        ShapeError: shapes do not fit. ArgumentError: a number is out of range, or ``torch.func.vmap`` hides samples.

    Cost: one factorisation of ``n + p`` per iteration, one of ``n + p + q`` per guess of the active set; dense, for up
    to some hundreds of unknowns.

    Source: Mehrotra (1992); derivatives by active set as in Magoon et al. (2024), arXiv 2410.06324.

    >>> Q, f = torch.eye(2, dtype=torch.float64), torch.tensor([[-2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    >>> G, h = -torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    >>> x, info = solve_qp(Q, f, G=G, h=h)  # the nearest point with x >= 0
    >>> x.detach().round(decimals=8).abs(), info.converged
    (tensor([[2., 0.]], dtype=torch.float64), tensor([True]))
    """
    if not tolerance > 0 or max_iterations < 1 or order < 0:
        raise ArgumentError(
            f"expected tolerance > 0, max_iterations >= 1, order >= 0, got {tolerance}, {max_iterations}, {order}; "
            "correct them"
        )
    # Interior-point systems are ill-conditioned by nature; single precision would not carry them.
    given = QuadraticProgram.of(Q, f, A, b, G, h)
    refuse_vmap(*given.tensors)
    program = QuadraticProgram(*(t.double() for t in given.tensors))
    with torch.no_grad():
        plain = program.detach()
        valid = plain.is_valid()
        normal, unit_y, unit_z = plain.where(valid).normalized()
        point, status, iterations = _minimum(normal, valid, start, tolerance, max_iterations, check_every)
        x, y, z, error = point
        accuracy = 1e-8 if f.dtype == torch.float64 else 1e-4
        solved = valid & ((status == Status.CONVERGED) | (status == Status.MAX_ITERATIONS) | (status == Status.STALLED))
        status = torch.where(solved & (error <= accuracy), int(Status.CONVERGED), status)
        status = torch.where((status == Status.CONVERGED) & (error > accuracy), int(Status.STALLED), status)
        status = torch.where(valid, status, int(Status.INVALID_INPUT))
        slack = normal.h - times(normal.G, x)
        active = ActiveSet.of(normal, (z > slack).to(x.dtype))
        close = torch.maximum(slack, z) < 1e-7 * x.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
        z = active.mask * z.clamp_min(0.0)
        info = QPInfo(status, iterations, error, y * unit_y, z * unit_z, close.any(dim=1))
        x = torch.where((status == Status.CONVERGED).unsqueeze(-1), x, torch.nan)
    if order > 0:
        x = _differentiable(program, active, x, y, z, info.converged, order)
    return x.to(f.dtype), replace(
        info, **{name: getattr(info, name).to(f.dtype) for name in ("residual_norm", "y", "z")}
    )


def _minimum(
    program: QuadraticProgram,
    valid: Tensor,
    start: QPInfo | None,
    tolerance: float,
    max_iterations: int,
    check_every: int | None,
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """``(x, y, z, error)``, status and iterations."""
    todo, warm = valid, None
    if start is not None:
        mask = (start.z > 0).to(program.f.dtype)
        active = ActiveSet.of(program, mask)
        guess = (torch.zeros_like(program.f), torch.zeros_like(program.b), mask)
        for _ in range(3):
            guess = active.correct(program, *guess)
        warm = polish(program, *guess, rounds=1)
        todo = valid & ~(warm[3] <= tolerance)
    # With no inequality the method would have nothing to be interior of.
    bounded = replace(
        program,
        G=torch.nn.functional.pad(program.G, (0, 0, 0, 1)),
        h=torch.nn.functional.pad(program.h, (0, 1), value=1.0),
    )
    interval = check_every or (1 if program.f.device.type == "cpu" else 4)
    point = interior_point(bounded, todo, tolerance=tolerance, max_iterations=max_iterations, check_every=interval)
    found = polish(program, point.x, point.y, point.z[:, :-1])
    status = point.status
    if warm is not None:
        found = tuple(torch.where(todo.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(found, warm, strict=True))
        status = torch.where(todo, status, int(Status.CONVERGED))
    return found, status, point.iterations


def _differentiable(
    program: QuadraticProgram, active: ActiveSet, x: Tensor, y: Tensor, z: Tensor, mask: Tensor, order: int
) -> Tensor:
    """Attach derivatives where the mask holds; other items never enter the graph."""
    index = mask.nonzero().squeeze(1)
    normal = program.take(index).normalized()[0]
    point = (t.index_select(0, index) for t in (x, y, z))
    return x.index_copy(0, index, attach(normal, active.take(index), *point, order=order))
