"""What the blocks of one parameter add to ``J J^T``."""

from collections.abc import Sequence

import torch
from scipy.linalg import blas
from torch import Tensor

from neuralop_kit.optim.gram.factors import FactorPiece, OuterPiece
from neuralop_kit.optim.gram.pieces import MatrixPiece, Piece


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


def layer_gram_pays(weight: OuterPiece, bias: MatrixPiece, num_rows: int, memory_budget: int) -> bool:
    """Whether a weight and its bias are best done at once, which takes two matrices of rows by rows."""
    factors = weight.num_rows * max(weight.inputs.shape[2], weight.cotangents.shape[2])
    fits = 8 * (2 * weight.num_rows**2 + factors) <= memory_budget
    return fits and ghost_pays([weight], num_rows, num_biases=bias.num_columns)


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

    Ghost products cost ``(rows * tokens)^2 (d_in + d_out)``, multiplied out it is ``rows^2 d_in d_out``; the cheaper
    one is taken, the first in slices of rows and the second in slices of columns.
    """
    factors = [piece for piece in pieces if isinstance(piece, FactorPiece)]
    are_alike = len({type(piece) for piece in pieces}) == 1 and len(factors) == len(pieces)
    if are_alike and ghost_pays(factors, len(total)):
        for left in factors:
            for right in factors:
                total[left.rows, right.rows].add_(left.ghost_products(right, memory_budget=memory_budget))
        return
    num_columns = pieces[0].num_columns
    if len(pieces) == 1 and 8 * pieces[0].num_rows * num_columns <= memory_budget:
        block = pieces[0].dense()
        total[pieces[0].rows, pieces[0].rows].addmm_(block, block.T)
        return
    unit = max(piece.unit for piece in pieces)
    step = max(memory_budget // (16 * len(total) * unit), 1) * unit
    for start in range(0, num_columns, step):
        columns = slice(start, min(start + step, num_columns))
        block = total.new_zeros(len(total), columns.stop - columns.start)
        for piece in pieces:
            block[piece.rows] += piece.dense(columns)
        total.addmm_(block, block.T)


def ghost_pays(pieces: Sequence[FactorPiece], num_rows: int, *, num_biases: int = 0) -> bool:
    """Whether ghost products are cheaper than multiplying out; they give the Gram of a bias for nothing."""
    tokens = sum(piece.num_tokens for piece in pieces)
    multiplied_out = num_rows**2 * (pieces[0].num_columns + num_biases) + tokens * pieces[0].num_columns
    return tokens**2 * max(piece.width for piece in pieces) <= multiplied_out
