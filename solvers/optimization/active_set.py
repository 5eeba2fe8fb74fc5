"""A quadratic program whose active constraints are known is one linear system: for the last digits, and derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.optimization.products import times
from neuralop_kit.solvers.optimization.program import QuadraticProgram


@dataclass(frozen=True)
class ActiveSet:
    """The optimality conditions when the inequalities in ``mask`` hold with equality and the others play no role.

        Q x + f + A^T y + G^T z = 0,   A x = b,   (G x - h)_i = 0 if active, else z_i = 0

    Args:
        mask: one for active inequalities, zero for the others, ``(batch, q)``.
        factors, pivots: of the matrix of this system, shifted a little where rows depend on each other.
    """

    mask: Tensor
    factors: Tensor
    pivots: Tensor

    @staticmethod
    def of(program: QuadraticProgram, mask: Tensor) -> ActiveSet:
        """Factor the system; the program is normalized."""
        n, p, q = program.f.shape[1], program.b.shape[1], program.h.shape[1]
        batch, rows = len(program.f), torch.cat([program.A, mask.unsqueeze(-1) * program.G], dim=1)
        shift = program.f.new_full((batch, p + q), -1e-11)
        shift[:, p:] -= 1 - mask
        left = torch.cat([program.Q + 1e-11 * torch.eye(n, dtype=mask.dtype, device=mask.device), rows], dim=1)
        matrix = torch.cat([left, torch.cat([rows.mT, torch.diag_embed(shift)], dim=1)], dim=2)
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        return ActiveSet(mask, factors, pivots)

    def correct(self, program: QuadraticProgram, *point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One Newton step for ``x, y, z``; exact but for the shift, which repetition removes.

        Differentiable with respect to the program, whose matrices may then differ from those that were factored.
        """
        x, y, z = point
        sizes = [x.shape[1], y.shape[1], z.shape[1]]
        rest = torch.cat(
            [
                program.stationarity(x, y, self.mask * z),
                times(program.A, x) - program.b,
                self.mask * (times(program.G, x) - program.h) - (1 - self.mask) * z,
            ],
            dim=1,
        )
        step = torch.linalg.lu_solve(self.factors, self.pivots, rest.unsqueeze(-1)).squeeze(-1)
        dx, dy, dz = step.split(sizes, dim=1)
        return x - dx, y - dy, z - dz

    def take(self, index: Tensor) -> ActiveSet:
        """Those of some items."""
        return ActiveSet(*(t.index_select(0, index) for t in (self.mask, self.factors, self.pivots)))


def polish(program: QuadraticProgram, x: Tensor, y: Tensor, z: Tensor, *, rounds: int = 3) -> tuple[Tensor, ...]:
    """Guess the active set from slacks and multipliers, solve, guess again; keep whatever has the smallest error."""
    best: tuple[Tensor, ...] = (x, y, z)
    candidate, error = best, program.error(x, y, z)
    for _ in range(rounds):
        slack = program.h - times(program.G, candidate[0])
        active = ActiveSet.of(program, (candidate[2] > slack).to(x.dtype))
        for _ in range(3):
            candidate = active.correct(program, *candidate)
        new = program.error(*candidate)
        better = (new < error).unsqueeze(-1)
        best = tuple(torch.where(better, a, b) for a, b in zip(candidate, best, strict=True))
        error = torch.where(better.squeeze(-1), new, error)
    return (*best, error)


def attach(program: QuadraticProgram, active: ActiveSet, *point: Tensor, order: int) -> Tensor:
    """``x`` with its derivatives with respect to the program, exact up to ``order``; the value does not move."""
    x = point[0]
    moved = point
    for _ in range(order):
        moved = active.correct(program, *moved)
    return x + (moved[0] - moved[0].detach())
