"""Blocks of a Jacobian that belong to one parameter: held as they are, or as factors that are never multiplied out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from scipy.linalg import blas
from torch import Tensor


class Piece(ABC):
    """A block of J: consecutive rows, and the columns of one parameter. Results are float64.

    Args:
        column: where the parameter starts among all parameters, flattened.
        row: the first of the rows.
        num_rows, num_columns: shape of the block.
    """

    def __init__(self, column: int, row: int, num_rows: int, num_columns: int) -> None:
        self.columns, self.rows = slice(column, column + num_columns), slice(row, row + num_rows)
        self.num_rows, self.num_columns = num_rows, num_columns

    @abstractmethod
    def dense(self, columns: slice = slice(None)) -> Tensor:
        """The block, or some of its columns."""

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

    def dense(self, columns: slice = slice(None)) -> Tensor:
        """The block."""
        return self.matrix[:, columns].double()

    def narrow(self, start: int, stop: int) -> Piece:
        """A slice."""
        return MatrixPiece(self.columns.start, max(start, self.rows.start), self.matrix[self.own_rows(start, stop)])

    def times(self, v: Tensor) -> Tensor:
        """Product."""
        return self.matrix.double() @ v

    def transposed_times(self, w: Tensor) -> Tensor:
        """Product."""
        matrix = self.matrix.to(torch.promote_types(self.matrix.dtype, torch.float32))
        return matrix.T @ w.to(matrix.dtype)

    def size(self) -> float:
        """Nothing is added up."""
        return self.matrix.norm().item()


class OuterPiece(Piece):
    """Row b is ``sum_t g_bt (x) a_bt``, with tokens t.

    Args:
        inputs: a, ``(rows, tokens, d_in)``.
        cotangents: g, ``(rows, tokens, d_out)``.
    """

    def __init__(self, column: int, row: int, inputs: Tensor, cotangents: Tensor) -> None:
        super().__init__(column, row, inputs.shape[0], inputs.shape[2] * cotangents.shape[2])
        # Kept as they came: in float64 they would be the largest thing that a step of a float32 network holds.
        self.inputs, self.cotangents = inputs, cotangents

    def dense(self, columns: slice = slice(None)) -> Tensor:
        """Multiplied out; ``columns`` must cover whole rows of the weight."""
        width = self.inputs.shape[2]
        outputs = slice(columns.start // width, columns.stop // width) if columns.stop else columns
        return torch.bmm(self.cotangents[..., outputs].mT.double(), self.inputs.double()).flatten(1)

    def narrow(self, start: int, stop: int) -> Piece:
        """A slice."""
        own = self.own_rows(start, stop)
        return OuterPiece(self.columns.start, max(start, self.rows.start), self.inputs[own], self.cotangents[own])

    def times(self, v: Tensor) -> Tensor:
        """``sum_t g_t . (V a_t)``."""
        images = self.inputs.double() @ v.view(self.cotangents.shape[2], self.inputs.shape[2]).T
        return (images * self.cotangents).sum(dim=(1, 2))

    def transposed_times(self, w: Tensor) -> Tensor:
        """``sum_bt w_b g_bt (x) a_bt``, one product of matrices."""
        inputs = self.inputs.to(torch.promote_types(self.inputs.dtype, torch.float32)).flatten(0, 1)
        weighted = (self.cotangents * w.to(inputs.dtype).view(-1, 1, 1)).flatten(0, 1)
        return (weighted.T @ inputs).flatten()

    def size(self) -> float:
        """``|sum_t |g_bt| |a_bt||`` over rows."""
        return (self.inputs.norm(dim=2) * self.cotangents.norm(dim=2)).sum(dim=1).norm().item()

    def ghost_products(self, other: "OuterPiece") -> Tensor:
        """``<row_b, row_c> = sum_ts (g_bt . g_cs)(a_bt . a_cs)``, nothing multiplied out."""
        products = _products(self.inputs, other.inputs)
        products *= _products(self.cotangents, other.cotangents)
        tokens = (self.inputs.shape[1], other.inputs.shape[1])
        if tokens == (1, 1):
            return products
        return products.view(self.num_rows, tokens[0], other.num_rows, tokens[1]).sum(dim=(1, 3))


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of all tokens of one factor with all of another, float64."""
    rows = left.flatten(0, 1).double()
    return rows @ (rows if right is left else right.flatten(0, 1).double()).T


def bias_of(weight: OuterPiece, biases: Sequence[MatrixPiece]) -> MatrixPiece | None:
    """The piece among ``biases`` that is the very memory of the cotangents of ``weight``, if there is one."""
    if weight.inputs.shape[1] != 1:
        return None
    rows = weight.cotangents.squeeze(1)
    place = (rows.data_ptr(), rows.shape, rows.stride())
    for piece in biases:
        same = (piece.matrix.data_ptr(), piece.matrix.shape, piece.matrix.stride()) == place
        if same and piece.rows == weight.rows:
            return piece
    return None


def add_layer_gram(total: Tensor, weight: OuterPiece) -> None:
    """Add what a weight and its bias give, for one token, to the lower triangle: ``(g_b . g_c) (a_b . a_c + 1)``."""
    products = _own_products(weight.inputs).add_(1.0)
    total[weight.rows, weight.rows].addcmul_(products, _own_products(weight.cotangents))


def _own_products(factor: Tensor) -> Tensor:
    """Inner products of all tokens of one factor, float64; on the CPU the lower triangle alone, for half the work."""
    rows = factor.flatten(0, 1).double()
    if rows.device.type != "cpu":
        return rows @ rows.T
    return torch.from_numpy(blas.dsyrk(1.0, rows.numpy().T, trans=1).T)


def add_gram(total: Tensor, pieces: Sequence[Piece], *, memory_budget: int) -> None:
    """Add ``J_p J_p^T`` to ``total``, where ``pieces`` are all blocks of one parameter.

    Ghost products cost ``(rows * tokens)^2 (d_in + d_out)`` and as much memory, multiplied out it is
    ``rows^2 d_in d_out``; the cheaper one that fits the budget is taken, the second one in slices of columns.
    """
    outer = [piece for piece in pieces if isinstance(piece, OuterPiece)]
    if len(outer) == len(pieces) and ghost_pays(outer, len(total), memory_budget):
        for left in outer:
            for right in outer:
                total[left.rows, right.rows].add_(left.ghost_products(right))
        return
    num_columns = pieces[0].num_columns
    if len(pieces) == 1 and 8 * pieces[0].num_rows * num_columns <= memory_budget:
        block = pieces[0].dense()
        total[pieces[0].rows, pieces[0].rows].addmm_(block, block.T)
        return
    unit = outer[0].inputs.shape[2] if outer else 1
    step = max(memory_budget // (8 * len(total) * unit), 1) * unit
    for start in range(0, num_columns, step):
        columns = slice(start, min(start + step, num_columns))
        block = total.new_zeros(len(total), columns.stop - columns.start)
        for piece in pieces:
            block[piece.rows] += piece.dense(columns)
        total.addmm_(block, block.T)


def ghost_pays(pieces: Sequence[OuterPiece], num_rows: int, memory_budget: int, *, num_biases: int = 0) -> bool:
    """Whether ghost products are cheaper than multiplying out, and fit; they give the Gram of a bias for nothing."""
    tokens = [piece.num_rows * piece.inputs.shape[1] for piece in pieces]
    widths = [piece.inputs.shape[2] + piece.cotangents.shape[2] for piece in pieces]
    multiplied_out = num_rows**2 * (pieces[0].num_columns + num_biases) + sum(tokens) * pieces[0].num_columns
    return sum(tokens) ** 2 * max(widths) <= multiplied_out and 16 * max(tokens) ** 2 <= memory_budget
