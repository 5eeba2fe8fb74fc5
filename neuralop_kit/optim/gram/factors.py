"""Blocks of a Jacobian as factors that are never multiplied out: sums over tokens of products of two vectors."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from neuralop_kit.optim.gram.pieces import Piece, row_parts


class FactorPiece(Piece):
    """A block given by inputs and cotangents ``(rows, tokens, ...)`` of a product with the parameter.

    Both are kept as they came: in float64 they would be the largest thing that a step of a float32 network holds.
    """

    inputs: Tensor
    cotangents: Tensor

    @property
    def num_bytes(self) -> int:
        """See :class:`Piece`."""
        return sum(factor.numel() * factor.element_size() for factor in (self.inputs, self.cotangents))

    @property
    def num_tokens(self) -> int:
        """Of all rows."""
        return self.num_rows * self.inputs.shape[1]

    @property
    @abstractmethod
    def width(self) -> int:
        """Operations that a product of two tokens takes."""

    @abstractmethod
    def like(self, row: int, inputs: Tensor, cotangents: Tensor) -> Self:
        """Other rows of the same parameter."""

    def part(self, rows: slice) -> Self:
        """Some of the rows, counted from the first one here."""
        return self.like(self.rows.start + rows.start, self.inputs[rows], self.cotangents[rows])

    def narrow(self, start: int, stop: int) -> Piece:
        """A slice."""
        return self.part(self.own_rows(start, stop))

    def parts(self, row_numbers: int = 0) -> list[Self]:
        """Itself in pieces of some rows whose factors, and so many numbers more of each row, are small in float64."""
        numbers = (self.inputs.numel() + self.cotangents.numel()) // self.num_rows + row_numbers
        parts = row_parts(self.num_rows, 8 * numbers)
        return [self] if len(parts) == 1 else [self.part(rows) for rows in parts]

    def weighted_parts(self, w: Tensor) -> list[tuple[Self, Tensor]]:
        """The same with what belongs to it of a vector of the rows; at a precision that loses no more than J itself."""
        parts = self.parts()
        w = w.to(torch.promote_types(self.cotangents.dtype, torch.float32))
        w = w.view(-1, *[1] * (self.cotangents.ndim - 1))
        if len(parts) == 1:
            return [(self, w)]
        return list(zip(parts, w.split([part.num_rows for part in parts]), strict=True))

    @abstractmethod
    def token_products(self, other: Self, *, memory_budget: int) -> Tensor:
        """Products of the tokens of all rows with those of another piece, float64."""

    def ghost_products(self, other: Self, *, memory_budget: int) -> Tensor:
        """Products of all rows with those of another piece, ``sum_ts <token_bt, token_cs>``; nothing multiplied out."""
        if not self.num_tokens * other.num_tokens:
            # Sums over no tokens.
            return torch.zeros(self.num_rows, other.num_rows, dtype=torch.float64, device=self.inputs.device)
        step = max(memory_budget // (32 * self.inputs.shape[1] * other.num_tokens), 1)
        blocks = []
        for start in range(0, self.num_rows, step):
            own = self if step >= self.num_rows else self.part(slice(start, start + step))
            products = own.token_products(other, memory_budget=memory_budget // 2)
            if own.num_tokens > own.num_rows or other.num_tokens > other.num_rows:
                products = products.view(own.num_rows, -1, other.num_rows, other.inputs.shape[1]).sum(dim=(1, 3))
            blocks.append(products)
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


class OuterPiece(FactorPiece):
    """Row b is ``sum_t g_bt (x) a_bt``, with tokens t.

    Args:
        inputs: a, ``(rows, tokens, d_in)``.
        cotangents: g, ``(rows, tokens, d_out)``.
    """

    def __init__(self, column: int, row: int, inputs: Tensor, cotangents: Tensor) -> None:
        d_in, d_out = inputs.shape[2], cotangents.shape[2]
        super().__init__(column, row, len(inputs), d_in * d_out, unit=d_in)
        self.inputs, self.cotangents = inputs, cotangents

    @property
    def width(self) -> int:
        """See :class:`FactorPiece`."""
        return self.inputs.shape[2] + self.cotangents.shape[2]

    def like(self, row: int, inputs: Tensor, cotangents: Tensor) -> "OuterPiece":
        """See :class:`FactorPiece`."""
        return OuterPiece(self.columns.start, row, inputs, cotangents)

    def dense(self, columns: slice = slice(None)) -> Tensor:
        """Multiplied out."""
        outputs = slice(columns.start // self.unit, columns.stop // self.unit) if columns.stop else columns
        numbers = self.unit * len(range(self.cotangents.shape[2])[outputs])
        return _joined(
            [
                torch.bmm(p.cotangents[..., outputs].mT.double(), p.inputs.double()).flatten(1)
                for p in self.parts(numbers)
            ]
        )

    def times(self, v: Tensor) -> Tensor:
        """``sum_t g_t . (V a_t)``."""
        matrix = v.view(-1, self.unit).T
        parts = self.parts(self.cotangents.shape[1] * self.cotangents.shape[2])
        return _joined([((p.inputs.double() @ matrix) * p.cotangents).sum(dim=(1, 2)) for p in parts])

    def transposed_times(self, w: Tensor) -> Tensor:
        """``sum_bt w_b g_bt (x) a_bt``, products of matrices."""
        return _summed(
            (p.cotangents * v).flatten(0, 1).T @ p.inputs.to(v.dtype).flatten(0, 1) for p, v in self.weighted_parts(w)
        ).flatten()

    def size(self) -> float:
        """``|sum_t |g_bt| |a_bt||`` over rows."""
        return (self.inputs.norm(dim=2) * self.cotangents.norm(dim=2)).sum(dim=1).norm().item()

    def token_products(self, other: "OuterPiece", *, memory_budget: int) -> Tensor:
        """``(g_bt . g_cs)(a_bt . a_cs)``."""
        products = _products(self.inputs, other.inputs, memory_budget)
        products *= _products(self.cotangents, other.cotangents, memory_budget)
        return products


class IndexPiece(FactorPiece):
    """Row b is ``sum_t e_bt (x) g_bt``, with unit vectors e given by indices: of a table that was looked up in.

    Args:
        inputs: the indices, ``(rows, tokens)``.
        cotangents: g, ``(rows, tokens, d)``.
        num_indices: of the table.
    """

    def __init__(self, column: int, row: int, inputs: Tensor, cotangents: Tensor, *, num_indices: int) -> None:
        width = cotangents.shape[2]
        super().__init__(column, row, len(inputs), num_indices * width, unit=width)
        self.inputs, self.cotangents, self.num_indices = inputs, cotangents, num_indices

    @property
    def width(self) -> int:
        """See :class:`FactorPiece`."""
        return self.unit

    def like(self, row: int, inputs: Tensor, cotangents: Tensor) -> "IndexPiece":
        """See :class:`FactorPiece`."""
        return IndexPiece(self.columns.start, row, inputs, cotangents, num_indices=self.num_indices)

    def dense(self, columns: slice = slice(None)) -> Tensor:
        """Zeros but for the rows of the table that were looked up."""
        low, high = (columns.start // self.unit, columns.stop // self.unit) if columns.stop else (0, self.num_indices)
        block = torch.zeros(self.num_rows, high - low, self.unit, dtype=torch.float64, device=self.cotangents.device)
        rows, tokens = ((self.inputs >= low) & (self.inputs < high)).nonzero(as_tuple=True)
        block.index_put_((rows, self.inputs[rows, tokens] - low), self.cotangents[rows, tokens].double(), True)
        return block.flatten(1)

    def times(self, v: Tensor) -> Tensor:
        """``sum_t g_t . V_t``, rows of the table."""
        table = v.view(-1, self.unit)
        return _joined([(table[p.inputs] * p.cotangents).sum(dim=(1, 2)) for p in self.parts()])

    def transposed_times(self, w: Tensor) -> Tensor:
        """What is looked up by several rows adds up."""
        parts = self.weighted_parts(w)
        total = parts[0][1].new_zeros(self.num_indices, self.unit)
        for p, v in parts:
            total.index_add_(0, p.inputs.flatten(), (p.cotangents * v).flatten(0, 1))
        return total.flatten()

    def size(self) -> float:
        """``|sum_t |g_bt||`` over rows."""
        return self.cotangents.norm(dim=2).sum(dim=1).norm().item()

    def token_products(self, other: "IndexPiece", *, memory_budget: int) -> Tensor:
        """``g_bt . g_cs`` where both looked up the same."""
        products = _products(self.cotangents, other.cotangents, memory_budget)
        return products.masked_fill_(self.inputs.reshape(-1, 1) != other.inputs.reshape(1, -1), 0.0)


class BlockPiece(FactorPiece):
    """Row b is ``sum_t g_btk (x) a_btk`` for each mode k: a parameter of one matrix per mode.

    Args:
        inputs: a, ``(rows, tokens, modes, d_fast)``.
        cotangents: g, ``(rows, tokens, modes, d_slow)``; of the parameter the last axis but one.
    """

    def __init__(self, column: int, row: int, inputs: Tensor, cotangents: Tensor) -> None:
        unit = inputs.shape[3] * cotangents.shape[3]
        super().__init__(column, row, len(inputs), inputs.shape[2] * unit, unit=unit)
        self.inputs, self.cotangents = inputs, cotangents

    @property
    def width(self) -> int:
        """See :class:`FactorPiece`."""
        return self.inputs.shape[2] * (self.inputs.shape[3] + self.cotangents.shape[3])

    def like(self, row: int, inputs: Tensor, cotangents: Tensor) -> "BlockPiece":
        """See :class:`FactorPiece`."""
        return BlockPiece(self.columns.start, row, inputs, cotangents)

    def dense(self, columns: slice = slice(None)) -> Tensor:
        """Multiplied out."""
        modes = slice(columns.start // self.unit, columns.stop // self.unit) if columns.stop else columns
        parts = self.parts(self.unit * len(range(self.inputs.shape[2])[modes]))
        factors = ((p.cotangents[:, :, modes].double(), p.inputs[:, :, modes].double()) for p in parts)
        return _joined([torch.einsum("btko,btki->bkoi", g, a).flatten(1) for g, a in factors])

    def times(self, v: Tensor) -> Tensor:
        """``sum_tk g_tk . (V_k a_tk)``."""
        matrices = v.view(self.inputs.shape[2], self.cotangents.shape[3], self.inputs.shape[3])
        parts = self.parts(self.cotangents.numel() // self.num_rows)
        images = ((torch.einsum("koi,btki->btko", matrices, p.inputs.double()), p.cotangents) for p in parts)
        return _joined([(image * g).sum(dim=(1, 2, 3)) for image, g in images])

    def transposed_times(self, w: Tensor) -> Tensor:
        """``sum_bt w_b g_btk (x) a_btk``."""
        return _summed(
            torch.einsum("btko,btki->koi", p.cotangents * v, p.inputs.to(v.dtype)) for p, v in self.weighted_parts(w)
        ).flatten()

    def size(self) -> float:
        """``|sum_t |g_btk| |a_btk||`` over rows and modes."""
        return (self.inputs.norm(dim=3) * self.cotangents.norm(dim=3)).sum(dim=1).norm().item()

    def token_products(self, other: "BlockPiece", *, memory_budget: int) -> Tensor:
        """``sum_k (g_btk . g_csk)(a_btk . a_csk)``, some modes at a time."""
        numbers = (
            2 * self.num_tokens * other.num_tokens
            + (self.num_tokens + other.num_tokens) * self.width // self.inputs.shape[2]
        )
        step = max(memory_budget // (8 * numbers), 1)

        def products(modes: slice) -> Tensor:
            inputs = _mode_products(self.inputs[:, :, modes], other.inputs[:, :, modes])
            return inputs.mul_(_mode_products(self.cotangents[:, :, modes], other.cotangents[:, :, modes])).sum(dim=0)

        return _summed(products(slice(start, start + step)) for start in range(0, self.inputs.shape[2], step))


def _products(left: Tensor, right: Tensor, memory_budget: int) -> Tensor:
    """Inner products of all tokens of one factor with all of another, float64."""
    rows, others = left.flatten(0, 1), right.flatten(0, 1)
    step = max(memory_budget // (16 * (len(rows) + len(others))), 1)
    if rows.dtype == torch.float64 or step >= rows.shape[1]:
        rows_64 = rows.double()
        return rows_64 @ (rows_64 if right is left else others.double()).T
    total = torch.zeros(len(rows), len(others), dtype=torch.float64, device=rows.device)
    for a, b in zip(rows.split(step, dim=1), others.split(step, dim=1), strict=True):
        total.addmm_(a.double(), b.double().T)
    return total


def _mode_products(left: Tensor, right: Tensor) -> Tensor:
    """The same for each mode, ``(modes, tokens, tokens)``."""
    rows, others = (factor.flatten(0, 1).transpose(0, 1).double() for factor in (left, right))
    return torch.bmm(rows, others.mT)


def _joined(parts: list[Tensor]) -> Tensor:
    """Rows one after the other."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _summed(parts: Iterator[Tensor]) -> Tensor:
    """Added up one after the other; only one is there beside the sum."""
    total = next(parts)
    for part in parts:
        total += part
    return total
