"""Matrices that couple each node of a plane grid with its eight neighbours, and how to factorize a batch of them."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

OFFSETS = tuple(product((-1, 0, 1), repeat=2))
CENTRE = OFFSETS.index((0, 0))


@dataclass(frozen=True)
class NinePointMatrix:
    """``(A u)_ij = sum over (p, q) of  entries[p, q]_ij u_(i+p)(j+q)``, with ``u = 0`` outside; one matrix per item.

    Args:
        entries: ``(batch, 9, n, m)``, real or complex, in the order of ``OFFSETS``.
    """

    entries: Tensor

    def apply(self, u: Tensor) -> Tensor:
        """``A u``, fields ``(batch, n, m)``."""
        return (self.entries * neighbours(u)).sum(dim=1)

    def row_couplings(self, step: int) -> Tensor:
        """Entries that lead from row i to row i + step: ``(batch, n, 3, m)``, columns -1, 0, +1."""
        first = 3 * (step + 1)
        return self.entries[:, first : first + 3].transpose(1, 2)

    def to_scipy(self, item: int) -> Any:
        """The matrix of one item as ``scipy.sparse.csc_matrix``, rows in the order of ``u.flatten()``."""
        from scipy.sparse import coo_matrix

        entries = self.entries[item].detach().cpu().numpy()
        shape = entries.shape[1:]
        number = np.arange(entries[0].size).reshape(shape)
        padded = np.pad(number, 1, constant_values=-1)
        columns = np.stack([padded[1 + p : 1 + p + shape[0], 1 + q : 1 + q + shape[1]] for p, q in OFFSETS])
        rows = np.broadcast_to(number, columns.shape)
        inside = columns >= 0
        triplets = (entries[inside], (rows[inside], columns[inside]))
        return coo_matrix(triplets, shape=(number.size, number.size)).tocsc()


def neighbours(u: Tensor) -> Tensor:
    """The nine shifted copies of a field ``(batch, n, m)``, zeros moving in: ``(batch, 9, n, m)``."""
    n, m = u.shape[-2:]
    padded = torch.nn.functional.pad(u, (1, 1, 1, 1))
    return torch.stack([padded[..., 1 + p : 1 + p + n, 1 + q : 1 + q + m] for p, q in OFFSETS], dim=1)


class BlockFactors:
    """Elimination row by row of the grid: each row of nodes is one dense block, factorized for all items at once.

        S_0 = D_0,     S_i = D_i - L_i S_(i-1)^-1 U_(i-1)

    Rows of blocks are not exchanged, so that a matrix whose leading part is nearly singular loses digits: check the
    residual. Cost: ``n m^3`` operations and ``n m^2`` numbers per item, any device.

    Source: Golub and Van Loan (2013), Matrix Computations, section 4.5.1.
    """

    def __init__(self, matrix: NinePointMatrix) -> None:
        self._lower, diagonal, self._upper = (matrix.row_couplings(step) for step in (-1, 0, 1))
        self._inverses: list[Tensor] = []
        for i in range(diagonal.shape[1]):
            block = _tridiagonal(diagonal[:, i])
            if i:
                carried = _times_tridiagonal(self._inverses[-1], self._upper[:, i - 1])
                block = block - _tridiagonal_times(self._lower[:, i], carried)
            # Inverses, because products of a batch are faster than its triangular solves; a step of refinement follows.
            self._inverses.append(torch.linalg.inv_ex(block).inverse)

    def solve(self, rhs: Tensor) -> Tensor:
        """``A^-1 rhs``, fields ``(batch, n, m)``."""
        rows = rhs.unsqueeze(-1).unbind(dim=1)
        inner = [self._inverses[0] @ rows[0]]
        for i, row in enumerate(rows[1:], start=1):
            inner.append(self._inverses[i] @ (row - _tridiagonal_times(self._lower[:, i], inner[-1])))
        solution = [inner[-1]]
        for i in reversed(range(len(rows) - 1)):
            carried = _tridiagonal_times(self._upper[:, i], solution[-1])
            solution.append(inner[i] - self._inverses[i] @ carried)
        return torch.stack(solution[::-1], dim=1).squeeze(-1)


class SparseFactors:
    """scipy's sparse LU (SuperLU), item by item on the CPU, with pivoting: the oracle."""

    def __init__(self, matrix: NinePointMatrix) -> None:
        from scipy.sparse.linalg import splu

        self._items = [splu(matrix.to_scipy(i)) for i in range(len(matrix.entries))]

    def solve(self, rhs: Tensor) -> Tensor:
        """``A^-1 rhs``, fields ``(batch, n, m)``."""
        loads = rhs.detach().cpu().numpy()
        rows = [item.solve(load.ravel()).reshape(load.shape) for item, load in zip(self._items, loads, strict=True)]
        return torch.from_numpy(np.stack(rows)).to(rhs)


def _tridiagonal(bands: Tensor) -> Tensor:
    """Dense ``(batch, m, m)`` from the bands ``(batch, 3, m)`` of its rows."""
    below, middle, above = bands.unbind(dim=1)
    return (
        torch.diag_embed(middle) + torch.diag_embed(below[:, 1:], offset=-1) + torch.diag_embed(above[:, :-1], offset=1)
    )


def _tridiagonal_times(bands: Tensor, x: Tensor) -> Tensor:
    """The same matrix times ``(batch, m, k)``."""
    below, middle, above = bands.unsqueeze(-1).unbind(dim=1)
    product_ = middle * x
    product_[:, 1:] += below[:, 1:] * x[:, :-1]
    product_[:, :-1] += above[:, :-1] * x[:, 1:]
    return product_


def _times_tridiagonal(x: Tensor, bands: Tensor) -> Tensor:
    """``(batch, k, m)`` times the same matrix."""
    return _tridiagonal_times(_transposed(bands), x.mT).mT


def _transposed(bands: Tensor) -> Tensor:
    """Bands of the transposed matrix."""
    below, middle, above = bands.unbind(dim=1)
    return torch.stack([above.roll(1, dims=-1), middle, below.roll(-1, dims=-1)], dim=1)
