"""Darcy flow: a batch by multigrid-preconditioned conjugate gradients against scipy's sparse direct solver."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csc_matrix, diags_array
from scipy.sparse.linalg import splu
from torch import Tensor

from benchmarks import AgainstPeer, Call, Comparison
from neuralop_kit import Domain
from neuralop_kit.solvers.pde import Darcy, TwoPhase

DOMAIN = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")


@dataclass(frozen=True)
class DarcyCase:
    """Coefficients of the FNO paper's distribution, unit source."""

    batch: int
    num_points: int

    def inputs(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Coefficient and source in float64."""
        shape = (self.num_points, self.num_points)
        a = TwoPhase.fno(DOMAIN).sample(self.batch, shape, generator=generator, dtype=torch.float64)
        return a, torch.ones_like(a)


def ours(case: DarcyCase) -> Callable[[Tensor, Tensor], Tensor]:
    """All items at once."""
    solver = Darcy(DOMAIN)
    return lambda coefficient, source: solver.solve(coefficient, source)[0]


def direct(case: DarcyCase) -> Callable[[Tensor, Tensor], Tensor]:
    """Item by item, SuperLU with the ordering for symmetric matrices, which is faster here than the default one."""

    def solve(coefficient: Tensor, source: Tensor) -> Tensor:
        solutions = []
        for a, f in zip(coefficient[:, 0].cpu().numpy(), source[:, 0].cpu().numpy(), strict=True):
            factors = splu(matrix(a), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
            solutions.append(factors.solve(f.ravel() / a.size).reshape(a.shape))
        return torch.from_numpy(np.stack(solutions)).unsqueeze(1)

    return solve


def matrix(a: np.ndarray) -> csc_matrix:
    """Balance of fluxes over each cell of the unit square, harmonic means on faces; assembled apart from our solver."""
    num_rows, num_columns = a.shape
    vertical = np.zeros((num_rows + 1, num_columns))
    vertical[1:-1] = 2 / (1 / a[:-1] + 1 / a[1:])
    vertical[0], vertical[-1] = 2 * a[0], 2 * a[-1]
    horizontal = np.zeros((num_rows, num_columns + 1))
    horizontal[:, 1:-1] = 2 / (1 / a[:, :-1] + 1 / a[:, 1:])
    horizontal[:, 0], horizontal[:, -1] = 2 * a[:, 0], 2 * a[:, -1]
    middle = vertical[:-1] + vertical[1:] + horizontal[:, :-1] + horizontal[:, 1:]
    right = np.where(np.arange(num_columns) < num_columns - 1, -horizontal[:, 1:], 0.0).ravel()[:-1]
    below = -vertical[1:-1].ravel()
    offsets = [0, 1, -1, num_columns, -num_columns]
    return csc_matrix(diags_array([middle.ravel(), right, right, below, below], offsets=offsets))


# The factor of 256 x 256 takes the direct solver seconds per batch: full profile only.
DARCY = [
    Comparison(
        name=f"solvers/darcy/{n}x{n}-batch16",
        ours=ours,
        peer=direct,
        peer_name="scipy sparse direct",
        case=DarcyCase(batch=16, num_points=n),
        measure=(Call(),),
        accuracy=AgainstPeer(tolerance=1e-9),
        target=2.0 if n == 256 else None,
        quick=n < 256,
    )
    for n in (64, 128, 256)
]
