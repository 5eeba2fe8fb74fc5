"""Jacobians of a residual with respect to all parameters, flattened and put one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.optim.gram.pieces import MatrixPiece, OuterPiece, Piece, add_gram, add_layer_gram, bias_of, ghost_pays


class Jacobian(ABC):
    """``J``, rows by parameters; every result is float64.

    Args:
        num_rows, num_columns: the shape.
        factor_eps: rounding unit of the numbers that J was computed in.
        memory_budget: bytes that a temporary may take.
    """

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
        """Whether the matrix is within the memory budget."""
        return 8 * self.num_rows * self.num_columns <= self.memory_budget


class DenseJacobian(Jacobian):
    """The matrix itself."""

    def __init__(self, matrix: Tensor, *, memory_budget: int) -> None:
        eps = torch.finfo(matrix.dtype).eps
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
    ) -> None:
        super().__init__(num_rows, num_columns, factor_eps=factor_eps, memory_budget=memory_budget)
        self.pieces, self.device = list(pieces), device

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
            if bias and ghost_pays([piece], len(total), self.memory_budget, num_biases=bias.num_columns):
                add_layer_gram(total, piece)
                del parameters[piece.columns.start], parameters[bias.columns.start]
        total = total.tril().add_(total.tril(-1).T)  # of layers the lower triangle alone was added up
        for pieces in parameters.values():
            add_gram(total, pieces, memory_budget=self.memory_budget)
        return total

    def normal(self) -> Tensor:
        """``J^T J``, in slices of rows."""
        total = self._zeros(self.num_columns, self.num_columns)
        step = max(self.memory_budget // (8 * self.num_columns), 1)
        for start in range(0, self.num_rows, step):
            rows = self._rows(start, min(start + step, self.num_rows))
            total.addmm_(rows.T, rows)
        return total

    def times(self, v: Tensor) -> Tensor:
        """``J v``."""
        out = self._zeros(self.num_rows)
        for piece in self.pieces:
            out[piece.rows] += piece.times(v[piece.columns])
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
        return out

    def _rows(self, start: int, stop: int) -> Tensor:
        """Some rows as a matrix."""
        matrix = self._zeros(stop - start, self.num_columns)
        for piece in self.pieces:
            part = piece.narrow(start, stop)
            if part.num_rows:
                matrix[part.rows.start - start : part.rows.stop - start, part.columns] += part.dense()
        return matrix

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)
