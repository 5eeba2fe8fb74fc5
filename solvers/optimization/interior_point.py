"""A primal-dual interior-point method for a batch of convex quadratic programs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.optimization.products import times
from neuralop_kit.solvers.optimization.program import QuadraticProgram
from neuralop_kit.solvers.status import Status

# The share of the way to the boundary that a step goes.
_SHARE = 0.995
# Redundant rows and directions without curvature make the system singular; in units of a normalized program.
_SHIFT = 1e-12
# Once slacks times multipliers are this small, relative to the size of x, nothing but rounding is left to lower.
_ROUNDING = 1e-17
# A proof of infeasibility excludes all points up to 1 / _PROOF times the size that could be expected.
_PROOF = 1e-7


@dataclass
class InteriorPoint:
    """An iterate: ``s`` are slacks ``h - G x``, ``y`` and ``z`` multipliers; ``s`` and ``z`` are positive.

    ``status`` and ``iterations`` have shape ``(batch,)``.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    s: Tensor
    status: Tensor
    iterations: Tensor


def interior_point(
    program: QuadraticProgram, active: Tensor, *, tolerance: float, max_iterations: int, check_every: int
) -> InteriorPoint:
    """Mehrotra's predictor and corrector from a start outside of the feasible set.

    An item ends when it is optimal to the tolerance; or infeasible, which its own growing multipliers prove:
    ``A^T y + G^T z = 0`` with ``z >= 0`` and ``b.y + h.z < 0`` contradicts ``A x = b, G x <= h``; or unbounded, which
    growing ``x`` proves in the same way; or stalled, where rounding keeps it from the tolerance.

    Args:
        program: normalized, with at least one inequality.
        active: items to work on, the others stay at the start.

    Source: Mehrotra (1992), SIAM J. Optim. 2; Boyd and Vandenberghe (2004), section 11.7, for the certificate.
    """
    point = _start(program)
    for iteration in range(max_iterations):
        active = active & (point.status == Status.MAX_ITERATIONS)
        if iteration % check_every == 0 and not active.any():
            break
        _advance(program, point, active)
        _judge(program, point, active, tolerance)
    return point


def _start(program: QuadraticProgram) -> InteriorPoint:
    """The minimum of ``1/2 x.Q x + f.x + 1/2 |G x - h|^2``; slacks and multipliers are shifted to be positive."""
    ones = torch.ones_like(program.h)
    solve = _Newton(program, ones)
    x, y = solve(-program.f + times(program.G.mT, program.h), program.b)
    beyond = times(program.G, x) - program.h
    least, most = (-beyond).amin(dim=1, keepdim=True), beyond.amin(dim=1, keepdim=True)
    s = -beyond + torch.where(least > 0, 0.0, 1 - least)
    z = beyond + torch.where(most > 0, 0.0, 1 - most)
    status = torch.full_like(x[:, 0], int(Status.MAX_ITERATIONS), dtype=torch.int64)
    return InteriorPoint(x, y, z, s, status, torch.zeros_like(status))


class _Newton:
    """Solves ``[Q + G^T D G, A^T; A, 0] [dx; dy] = [r; t]``."""

    def __init__(self, program: QuadraticProgram, diagonal: Tensor) -> None:
        self.n = program.f.shape[1]
        matrix = program.Q + program.G.mT @ (diagonal.unsqueeze(-1) * program.G)
        matrix = matrix + _SHIFT * torch.eye(self.n, dtype=matrix.dtype, device=matrix.device)
        corner = torch.diag_embed(torch.full_like(program.b, -_SHIFT))
        kkt = torch.cat([torch.cat([matrix, program.A.mT], dim=2), torch.cat([program.A, corner], dim=2)], dim=1)
        self.factors, self.pivots, _ = torch.linalg.lu_factor_ex(kkt)

    def __call__(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        right = torch.cat([first, second], dim=1).unsqueeze(-1)
        solved = torch.linalg.lu_solve(self.factors, self.pivots, right).squeeze(-1)
        return solved[:, : self.n], solved[:, self.n :]


def _advance(program: QuadraticProgram, point: InteriorPoint, active: Tensor) -> None:
    """Predict with no centring, measure how far that goes, correct with as much centring as was missing."""
    x, y, z, s = point.x, point.y, point.z, point.s
    dual = program.stationarity(x, y, z)
    equal = times(program.A, x) - program.b
    unequal = times(program.G, x) + s - program.h
    solve = _Newton(program, z / s)

    def direction(complementarity: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dx, dy = solve(-dual - times(program.G.mT, (z * unequal - complementarity) / s), -equal)
        ds = -unequal - times(program.G, dx)
        return dx, dy, (-complementarity - z * ds) / s, ds

    gap = (s * z).mean(dim=1, keepdim=True)
    _, _, dz, ds = direction(s * z)
    length = torch.minimum(_longest(s, ds), _longest(z, dz))
    reached = ((s + length * ds) * (z + length * dz)).mean(dim=1, keepdim=True)
    centring = (reached / gap).clamp(0.0, 1.0) ** 3
    dx, dy, dz, ds = direction(s * z + ds * dz - centring * gap)
    length = _SHARE * torch.minimum(_longest(s, ds), _longest(z, dz))
    steps = (length * dx, length * dy, length * dz, length * ds)
    sound = torch.stack([step.isfinite().all(dim=1) for step in steps]).all(dim=0)
    moving = (active & sound).unsqueeze(-1)
    point.x, point.y, point.z, point.s = (
        torch.where(moving, v + step, v) for v, step in zip((x, y, z, s), steps, strict=True)
    )
    point.status = torch.where(active & ~sound, int(Status.STALLED), point.status)
    point.iterations = point.iterations + (active & sound)


def _longest(value: Tensor, change: Tensor) -> Tensor:
    """The largest step up to one that keeps all entries non-negative, ``(batch, 1)``."""
    ratios = torch.where(change < 0, -value / change, torch.inf)
    return ratios.amin(dim=1, keepdim=True).clamp_max(1.0)


def _judge(program: QuadraticProgram, point: InteriorPoint, active: Tensor, tolerance: float) -> None:
    """Optimal, provably infeasible, provably unbounded, as good as rounding allows, or none of these."""
    x, y, z = point.x, point.y, point.z
    done = program.error(x, y, z) <= tolerance
    supply = -((program.b * y).sum(dim=1) + (program.h * z).sum(dim=1))
    balance = (times(program.A.mT, y) + times(program.G.mT, z)).abs().amax(dim=1)
    size = program.size()
    exhausted = (point.s * z).mean(dim=1) <= _ROUNDING * torch.maximum(size, x.abs().amax(dim=1))
    infeasible = (supply > 0) & (balance * size <= _PROOF * supply)
    descent = -(program.f * x).sum(dim=1)
    directions = (times(program.Q, x).abs(), times(program.A, x).abs(), times(program.G, x).clamp_min(0.0))
    blocked = torch.cat(directions, dim=1).amax(dim=1)
    unbounded = (descent > 0) & (blocked <= _PROOF * descent)
    verdicts = (
        (exhausted, Status.STALLED),
        (unbounded, Status.UNBOUNDED),
        (infeasible, Status.INFEASIBLE),
        (done, Status.CONVERGED),
    )
    for found, status in verdicts:
        point.status = torch.where(active & found, int(status), point.status)
