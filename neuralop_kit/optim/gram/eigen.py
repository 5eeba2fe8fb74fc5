"""Eigenvectors of a symmetric matrix that are only multiplied with vectors."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from neuralop_kit.optim.gram.contour import cut_inverse

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# Columns that a block of reflections takes at once; workspaces are sized for it. LAPACK's own 32 are slower by a tenth.
_BLOCK = 16
# From this number of rows on a contour integral is cheaper than eigenvectors.
_ENOUGH = 64


class Eigenvectors(ABC):
    """Of a symmetric float64 matrix ``A = U diag(values) U^T``."""

    @property
    @abstractmethod
    def values(self) -> Tensor:
        """Eigenvalues, ascending."""

    def inverse(self, b: Tensor, *, above: float) -> tuple[Tensor, int] | None:
        """``A^+ b`` with the values above that part of the largest one, and their number.

        None where it takes the vectors, or where these are known.
        """
        return None

    @abstractmethod
    def coefficients(self, b: Tensor) -> Tensor:
        """``U^T b``."""

    @abstractmethod
    def combination(self, c: Tensor) -> Tensor:
        """``U c``."""


class MatrixEigenvectors(Eigenvectors):
    """U as a matrix, on any device."""

    def __init__(self, matrix: Tensor) -> None:
        self._values, self.vectors = torch.linalg.eigh(matrix)

    @property
    def values(self) -> Tensor:
        """See :class:`Eigenvectors`."""
        return self._values

    def coefficients(self, b: Tensor) -> Tensor:
        """See :class:`Eigenvectors`."""
        return self.vectors.T @ b

    def combination(self, c: Tensor) -> Tensor:
        """See :class:`Eigenvectors`."""
        return self.vectors @ c


class TridiagonalEigenvectors(Eigenvectors):
    """U as reflections, times the eigenvectors of a tridiagonal matrix; the product of both is never formed.

        A = Q T Q^T,    T = Z diag(values) Z^T,    U = Q Z

    On one core 0.4 to 0.75 of the time of U as a matrix for 128 to 1024 rows; less for more of them.

    Args:
        matrix: finite, in the main memory.
    """

    def __init__(self, matrix: Tensor) -> None:
        # Of a symmetric matrix the transpose is the same, and has the order of axes that is asked for there.
        a = matrix.numpy().T
        self.reflectors, self.diagonal, self.beside, self.factors, _ = lapack.dsytrd(a, lower=1, lwork=_BLOCK * len(a))

    def inverse(self, b: Tensor, *, above: float) -> tuple[Tensor, int] | None:
        """See :class:`Eigenvectors`; all are kept if T stays positive definite when the threshold is taken off."""
        if "_solution" in vars(self):
            return None
        size, right = len(self.diagonal), self._reflected(b.numpy(), "T")
        # The Frobenius norm.
        bound = float(np.sqrt(self.diagonal @ self.diagonal + 2 * (self.beside @ self.beside)))
        _, _, status = lapack.dpttrf(self.diagonal - above * bound, self.beside)
        if not status:
            return torch.from_numpy(self._reflected(lapack.dptsv(self.diagonal, self.beside, right)[2], "N")), size
        found = cut_inverse(self.diagonal, self.beside, right, above=above) if size >= _ENOUGH else None
        return None if found is None else (torch.from_numpy(self._reflected(found[0], "N")), found[1])

    @property
    def values(self) -> Tensor:
        """See :class:`Eigenvectors`."""
        return torch.from_numpy(self._solution[0])

    @cached_property
    def _solution(self) -> tuple[Array, Array]:
        """Eigenvalues and eigenvectors of T."""
        values, vectors, status = lapack.dstevd(self.diagonal, self.beside)
        if status:
            raise np.linalg.LinAlgError(f"expected eigenvalues to converge, got LAPACK status {status}")
        return values, vectors

    def coefficients(self, b: Tensor) -> Tensor:
        """See :class:`Eigenvectors`."""
        return torch.from_numpy(self._solution[1].T @ self._reflected(b.numpy(), "T"))

    def combination(self, c: Tensor) -> Tensor:
        """See :class:`Eigenvectors`."""
        return torch.from_numpy(self._reflected(self._solution[1] @ c.numpy(), "N"))

    def _reflected(self, b: Array, order: Literal["N", "T"]) -> Array:
        """``Q^T b`` or ``Q b``; Q leaves the first entry as it is."""
        rest, _, _ = lapack.dormqr("L", order, self.reflectors[1:, :-1], self.factors, b[1:, None], _BLOCK)
        return np.concatenate([b[:1], rest[:, 0]])


def eigenvectors(matrix: Tensor) -> Eigenvectors:
    """The cheaper way for a symmetric float64 matrix."""
    # LAPACK's routine for a tridiagonal matrix does not say no to NaN, torch's does.
    on_cpu = matrix.device.type == "cpu" and len(matrix) > 2 and bool(matrix.sum().isfinite())
    return TridiagonalEigenvectors(matrix) if on_cpu else MatrixEigenvectors(matrix)
