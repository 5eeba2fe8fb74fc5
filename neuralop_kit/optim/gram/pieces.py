"""Blocks of a Jacobian that belong to one parameter."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

# Numbers become float64 in parts of about so many bytes, wherever the whole is not needed at once.
_PART = 2**22


def row_parts(num_rows: int, row_bytes: int) -> list[slice]:
    """Rows in parts that are small."""
    if num_rows * row_bytes <= _PART:
        return [slice(0, num_rows)]
    step = max(_PART // row_bytes, 1)
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


class Piece(ABC):
    """A block of J: consecutive rows, and the columns of one parameter. Results are float64.

    Args:
        column: where the parameter starts among all parameters, flattened.
        row: the first of the rows.
        num_rows, num_columns: shape of the block.
        unit: columns come in multiples of this.
    """

    def __init__(self, column: int, row: int, num_rows: int, num_columns: int, *, unit: int = 1) -> None:
        self.columns, self.rows = slice(column, column + num_columns), slice(row, row + num_rows)
        self.num_rows, self.num_columns, self.unit = num_rows, num_columns, unit

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """What is held."""

    @abstractmethod
    def dense(self, columns: slice = slice(None)) -> Tensor:
        """The block, or some of its columns, whole units of them."""

    @abstractmethod
    def narrow(self, start: int, stop: int) -> "Piece":
        """Some of its rows, counted from the first of J."""

    @abstractmethod
    def times(self, v: Tensor) -> Tensor:
        """The block times the parameter's part of a vector."""

    @abstractmethod
    def transposed_times(self, w: Tensor) -> Tensor:
        """The transposed block times the rows' part of a vector, at the precision of the factors, float32 at least.

        What is lost is what a rounding of J changes.
        """

    @abstractmethod
    def size(self) -> float:
        """Norm of the block, of what is added up to it before anything cancels: its rounding is relative to that."""

    def own_rows(self, start: int, stop: int) -> slice:
        """The rows ``start`` to ``stop`` of J, as far as they are here, counted from the first one here."""
        return slice(max(start - self.rows.start, 0), max(min(stop, self.rows.stop) - self.rows.start, 0))


class MatrixPiece(Piece):
    """A block that is held as it is; of the bias of a layer it is the cotangents of the layer's weight."""

    def __init__(self, column: int, row: int, matrix: Tensor) -> None:
        super().__init__(column, row, *matrix.shape)
        self.matrix = matrix

    @property
    def num_bytes(self) -> int:
        """See :class:`Piece`."""
        return self.matrix.numel() * self.matrix.element_size()

    def dense(self, columns: slice = slice(None)) -> Tensor:
        """The block."""
        return self.matrix[:, columns].double()

    def narrow(self, start: int, stop: int) -> Piece:
        """A slice."""
        return MatrixPiece(self.columns.start, max(start, self.rows.start), self.matrix[self.own_rows(start, stop)])

    def times(self, v: Tensor) -> Tensor:
        """Product."""
        parts = row_parts(self.num_rows, 8 * self.num_columns)
        if len(parts) == 1 or self.matrix.dtype == torch.float64:
            return self.matrix.double() @ v
        return torch.cat([self.matrix[part].double() @ v for part in parts])

    def transposed_times(self, w: Tensor) -> Tensor:
        """Product."""
        dtype = torch.promote_types(self.matrix.dtype, torch.float32)
        if self.matrix.dtype == dtype:
            return self.matrix.T @ w.to(dtype)
        total = torch.zeros(self.num_columns, dtype=dtype, device=w.device)
        for part in row_parts(self.num_rows, 8 * self.num_columns):
            total += self.matrix[part].to(dtype).T @ w[part].to(dtype)
        return total

    def size(self) -> float:
        """Nothing is added up."""
        return self.matrix.norm().item()
