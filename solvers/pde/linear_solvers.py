"""Solvers for conductance networks: multigrid-preconditioned conjugate gradients, and a sparse direct oracle."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.conjugate_gradients import conjugate_gradients
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.multigrid import MultigridCycle
from neuralop_kit.solvers.pde.network import ConductanceNetwork
from neuralop_kit.solvers.status import SolveInfo, Status


class LinearSolver(ABC):
    """Solves ``A u = b`` for a batch of networks."""

    @abstractmethod
    def solve(self, network: ConductanceNetwork, rhs: Tensor) -> tuple[Tensor, SolveInfo]:
        """Solution and report; ``rhs`` has shape ``(batch, *network.shape)`` and the network's dtype."""

    @abstractmethod
    def can_solve(self, network: ConductanceNetwork) -> Tensor:
        """Which items this solver is made for, bool, ``(batch,)``; the others are not given to it."""


@dataclass(frozen=True)
class MultigridCG(LinearSolver):
    """Conjugate gradients, preconditioned by one multigrid V-cycle per iteration; any device, all items at once.

    Args:
        rtol: tolerance for the relative error in the energy norm, positive. Two iterations more give two digits more;
            the default is where rounding begins.
        max_iterations: before an item is reported as not converged.
        degree: of the smoother; 3 or 4 help for contrasts above 1000.
        cycle_dtype: in which the V-cycle works. Single precision halves its cost and leaves the accuracy of the
            solution to the outer iteration, which keeps the precision of the right-hand side.

    >>> from neuralop_kit.solvers import Domain
    >>> from neuralop_kit.solvers.pde import Darcy
    >>> a = torch.ones(2, 1, 32, 32, dtype=torch.float64)
    >>> rough, exact = (Darcy(Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell"), linear_solver=solver)
    ...                 for solver in (MultigridCG(rtol=1e-4), SparseDirect()))
    >>> 1e-9 < (rough.solve(a, 1.0)[0] - exact.solve(a, 1.0)[0]).abs().max().item() < 1e-5
    True
    """

    rtol: float = 1e-12
    max_iterations: int = 200
    degree: int = 2
    cycle_dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not self.rtol > 0 or self.max_iterations < 1 or self.degree < 1:
            raise ArgumentError(
                f"expected rtol > 0, max_iterations >= 1 and degree >= 1, got {self.rtol}, {self.max_iterations} and "
                f"{self.degree}; correct them"
            )

    def can_solve(self, network: ConductanceNetwork) -> Tensor:
        """Items with positive conductances."""
        return network.is_positive()

    def solve(self, network: ConductanceNetwork, rhs: Tensor) -> tuple[Tensor, SolveInfo]:
        """Solution and report."""
        # Scaled to order 1, neither the network nor the right-hand side can leave the range of single precision.
        strength = _column(network.diagonal.flatten(1).amax(dim=1), rhs)
        size = _column(rhs.abs().flatten(1).amax(dim=1), rhs)
        size = torch.where(size > 0, size, 1.0)
        scaled = ConductanceNetwork([c / strength for c in network.conductances], network.spacing)
        cycle = MultigridCycle(scaled.to(self.cycle_dtype), degree=self.degree)
        u, info = conjugate_gradients(
            scaled.apply,
            rhs / size,
            preconditioner=lambda residual: cycle(residual.to(self.cycle_dtype)).to(rhs.dtype),
            rtol=self.rtol,
            max_iterations=self.max_iterations,
        )
        return u * (size / strength), info


@dataclass(frozen=True)
class SparseDirect(LinearSolver):
    """scipy's sparse LU factorization (SuperLU), item by item on the CPU: the oracle, and fine for small 2-D problems.

    Takes any finite conductances, negative ones too. Memory and time grow faster than the number of nodes: 256 x 256
    takes about 0.3 s per item, 64 x 64 x 64 minutes.
    """

    def can_solve(self, network: ConductanceNetwork) -> Tensor:
        """Items with finite conductances."""
        return network.is_finite()

    def solve(self, network: ConductanceNetwork, rhs: Tensor) -> tuple[Tensor, SolveInfo]:
        """Solution and report."""
        from scipy.sparse.linalg import splu

        solutions = np.empty(tuple(rhs.shape))
        loads = rhs.detach().cpu().double().numpy()
        for i in range(rhs.shape[0]):
            # For symmetric matrices the ordering of A + A^T fills in less than the default one of A^T A.
            factors = splu(sparse_matrix(network, i), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
            solutions[i] = factors.solve(loads[i].reshape(-1)).reshape(loads[i].shape)
        u = torch.from_numpy(solutions).to(rhs)
        size = torch.linalg.vector_norm(rhs.flatten(1), dim=1)
        rest = torch.linalg.vector_norm((rhs - network.apply(u)).flatten(1), dim=1)
        zero = torch.zeros(rhs.shape[0], dtype=torch.int64, device=rhs.device)
        status = torch.where(rest.isfinite(), zero, int(Status.BREAKDOWN))
        return u, SolveInfo(status, zero, torch.where(size > 0, rest / size, rest))


def sparse_matrix(network: ConductanceNetwork, item: int) -> Any:
    """The matrix of one item as ``scipy.sparse.csc_matrix``, rows in the order of ``u.flatten()``."""
    from scipy.sparse import coo_matrix

    number = np.arange(int(np.prod(network.shape))).reshape(network.shape)
    rows, columns = [number.ravel()], [number.ravel()]
    values = [network.diagonal[item].detach().cpu().double().numpy().ravel()]
    for axis, n in enumerate(network.shape):
        inner = network.conductances[axis][item].narrow(axis, 1, n - 1).detach().cpu().double().numpy().ravel()
        left, right = (np.take(number, range(s, s + n - 1), axis=axis).ravel() for s in (0, 1))
        rows += [left, right]
        columns += [right, left]
        values += [-inner, -inner]
    triplets = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return coo_matrix(triplets, shape=(number.size, number.size)).tocsc()


def _column(numbers: Tensor, like: Tensor) -> Tensor:
    """One number per item, shaped to broadcast against ``like``."""
    return numbers.view(-1, *[1] * (like.ndim - 1))
