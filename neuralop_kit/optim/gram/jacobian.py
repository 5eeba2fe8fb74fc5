"""Jacobians of a residual with respect to all parameters, flattened and put one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuralop_kit.optim.gram.factors import OuterPiece
from neuralop_kit.optim.gram.pieces import MatrixPiece, Piece
from neuralop_kit.optim.gram.squares import add_gram, add_layer_gram, bias_of, layer_gram_pays

if TYPE_CHECKING:
    from neuralop_kit.optim.gram.recomputed import RecomputedJacobian


class Jacobian(ABC):
    """``J``, rows by parameters; every result is float64.

    Args:
        num_rows, num_columns: the shape.
        factor_eps: rounding unit of the numbers that J was computed in.
        memory_budget: bytes that J and what is made of it may take; see :class:`Engine`.
    """

    # Whether products are computed from the weights as they are then: those of J must be in place.
    recomputes = False

    def __init__(self, num_rows: int, num_columns: int, *, factor_eps: float, memory_budget: int) -> None:
        self.num_rows, self.num_columns = num_rows, num_columns
        self.factor_eps, self.memory_budget = factor_eps, memory_budget

    @abstractmethod
    def dense(self) -> Tensor:
        """The matrix ``(num_rows, num_columns)``."""

    @abstractmethod
    def gram(self) -> Tensor:
        """``J J^T``."""

    @abstractmethod
    def normal(self) -> Tensor:
        """``J^T J``."""

    @abstractmethod
    def times(self, v: Tensor) -> Tensor:
        """``J v``."""

    @abstractmethod
    def transposed_times(self, w: Tensor) -> Tensor:
        """``J^T w``."""

    @property
    def dense_fits(self) -> bool:
        """Whether the matrix, and a factor of the same size, are within the memory budget."""
        return self.num_bytes + 16 * self.num_rows * self.num_columns <= self.memory_budget

    @property
    def num_bytes(self) -> int:
        """What is held of J, beside its matrix."""
        return 0


class DenseJacobian(Jacobian):
    """The matrix itself.

    Args:
        matrix: J.
        factor_eps: rounding unit of the numbers that it was computed in; by default that of its dtype.
        memory_budget: see :class:`Jacobian`.
    """

    def __init__(self, matrix: Tensor, *, memory_budget: int, factor_eps: float | None = None) -> None:
        eps = torch.finfo(matrix.dtype).eps if factor_eps is None else factor_eps
        super().__init__(*matrix.shape, factor_eps=eps, memory_budget=memory_budget)
        self.matrix = matrix.double()

    def dense(self) -> Tensor:
        """The matrix."""
        return self.matrix

    def gram(self) -> Tensor:
        """``J J^T``."""
        return self.matrix @ self.matrix.T

    def normal(self) -> Tensor:
        """``J^T J``."""
        return self.matrix.T @ self.matrix

    def times(self, v: Tensor) -> Tensor:
        """``J v``."""
        return self.matrix @ v

    def transposed_times(self, w: Tensor) -> Tensor:
        """``J^T w``."""
        return self.matrix.T @ w


class LowRankJacobian(Jacobian):
    """``left @ right^T`` with orthonormal columns in ``right``.

    Args:
        left: ``(num_rows, rank)``, float64.
        right: ``(num_columns, rank)``, float64.
    """

    def __init__(self, left: Tensor, right: Tensor, *, factor_eps: float, memory_budget: int) -> None:
        super().__init__(len(left), len(right), factor_eps=factor_eps, memory_budget=memory_budget)
        self.left, self.right = left, right

    def dense(self) -> Tensor:
        """The product."""
        return self.left @ self.right.T

    def gram(self) -> Tensor:
        """``J J^T``."""
        return self.left @ self.left.T

    def normal(self) -> Tensor:
        """``J^T J``."""
        return self.right @ (self.left.T @ self.left) @ self.right.T

    def times(self, v: Tensor) -> Tensor:
        """``J v``."""
        return self.left @ (self.right.T @ v)

    def transposed_times(self, w: Tensor) -> Tensor:
        """``J^T w``."""
        return self.right @ (self.left.T @ w)


class FactoredJacobian(Jacobian):
    """J in pieces; ``J J^T`` comes from their factors where that is cheaper.

    Args:
        pieces: blocks; several with the same rows and columns add up.
        device: where they are.
        rest: the columns that are not in pieces, all rows of them.
        rest_columns: where they are, in order.
    """

    def __init__(
        self,
        num_rows: int,
        num_columns: int,
        pieces: Sequence[Piece],
        *,
        factor_eps: float,
        memory_budget: int,
        device: torch.device,
        rest: "RecomputedJacobian | None" = None,
        rest_columns: Sequence[slice] = (),
    ) -> None:
        super().__init__(num_rows, num_columns, factor_eps=factor_eps, memory_budget=memory_budget)
        self.pieces, self.device = list(pieces), device
        self.rest, self.rest_columns = rest, list(rest_columns)
        self.recomputes = rest is not None
        # What is left of the budget; pieces from several processes may exceed it.
        self.spare = max(memory_budget - self.num_bytes, memory_budget // 8)

    @property
    def num_bytes(self) -> int:
        """Pieces."""
        return sum(piece.num_bytes for piece in self.pieces)

    def dense(self) -> Tensor:
        """All pieces multiplied out."""
        return self._rows(0, self.num_rows)

    def gram(self) -> Tensor:
        """``J J^T``, parameter by parameter; a weight and its bias at once where they have a factor in common."""
        total = self._zeros(self.num_rows, self.num_rows)
        parameters: dict[int, list[Piece]] = {}
        for piece in self.pieces:
            parameters.setdefault(piece.columns.start, []).append(piece)
        single = [pieces[0] for pieces in parameters.values() if len(pieces) == 1]
        biases = [piece for piece in single if isinstance(piece, MatrixPiece)]
        for piece in [piece for piece in single if isinstance(piece, OuterPiece)]:
            bias = bias_of(piece, biases)
            if bias and layer_gram_pays(piece, bias, len(total), self.spare):
                add_layer_gram(total, piece)
                biases.remove(bias)  # layers whose outputs are added have cotangents in common: each takes one
                del parameters[piece.columns.start], parameters[bias.columns.start]
        total = total.tril().add_(total.tril(-1).T)  # of layers the lower triangle alone was added up
        for pieces in parameters.values():
            add_gram(total, pieces, memory_budget=self.spare)
        return total if self.rest is None else total.add_(self.rest.gram())

    def normal(self) -> Tensor:
        """``J^T J``, in slices of rows."""
        total = self._zeros(self.num_columns, self.num_columns)
        step = max(self.spare // (16 * self.num_columns), 1)
        if self.rest is not None:
            step = max(step // 2, 1)
        for start in range(0, self.num_rows, step):
            rows = self._rows(start, min(start + step, self.num_rows))
            total.addmm_(rows.T, rows)
        return total

    def times(self, v: Tensor) -> Tensor:
        """``J v``."""
        out = self._zeros(self.num_rows)
        for piece in self.pieces:
            out[piece.rows] += piece.times(v[piece.columns])
        if self.rest is not None:
            out += self.rest.times(torch.cat([v[columns] for columns in self.rest_columns]))
        return out

    def transposed_times(self, w: Tensor) -> Tensor:
        """``J^T w``."""
        pieces = sorted(self.pieces, key=lambda piece: piece.columns.start)
        ends = [0, *(piece.columns.stop for piece in pieces)]
        if [piece.columns.start for piece in pieces] == ends[:-1] and ends[-1] == self.num_columns:
            # Side by side without gaps: nothing to add up.
            return torch.cat([piece.transposed_times(w[piece.rows]) for piece in pieces]).double()
        out = self._zeros(self.num_columns)
        for piece in pieces:
            out[piece.columns] += piece.transposed_times(w[piece.rows])
        if self.rest is not None:
            self._put(out, self.rest.transposed_times(w))
        return out

    def _rows(self, start: int, stop: int) -> Tensor:
        """Some rows as a matrix."""
        matrix = self._zeros(stop - start, self.num_columns)
        for piece in self.pieces:
            part = piece.narrow(start, stop)
            if part.num_rows:
                matrix[part.rows.start - start : part.rows.stop - start, part.columns] += part.dense()
        if self.rest is not None:
            self._put(matrix, self.rest.some_rows(start, stop, memory_budget=self.spare // 2))
        return matrix

    def _put(self, out: Tensor, values: Tensor) -> None:
        """Write columns of the rest to where they belong."""
        parts = values.split([columns.stop - columns.start for columns in self.rest_columns], dim=-1)
        for columns, part in zip(self.rest_columns, parts, strict=True):
            out[..., columns] = part

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)
