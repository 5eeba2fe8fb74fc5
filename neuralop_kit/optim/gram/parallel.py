"""Gram steps over several processes: rows on different ranks, or parameters on different ranks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from neuralop_kit.optim.gram.engines import Automatic, Engine, Linearization
from neuralop_kit.optim.gram.factors import FactorPiece
from neuralop_kit.optim.gram.jacobian import DenseJacobian, FactoredJacobian, Jacobian
from neuralop_kit.optim.gram.pieces import MatrixPiece, Piece
from neuralop_kit.optim.gram.residual import ResidualFunction, ResidualValue, Weights
from neuralop_kit.solvers.errors import ArgumentError, NonFiniteError

_TOO_LARGE = (
    "expected a Jacobian within the memory budget of every rank, got one that had to be computed again each time; "
    "give the engine inside a larger memory_budget, or each rank fewer rows"
)


class DataParallel(Engine):
    """Every rank has the whole model and residuals of its own; the step is that of all residuals together, exactly.

        J = (J_1; J_2; ...; J_R),       r = (r_1; ...; r_R)

    What travels are the factors of the ghost Jacobian, ``rows * tokens * (d_in + d_out)`` numbers per layer, and never
    J; all ranks then solve the same small system. Rows of different ranks have products with each other, so that an
    average of the ranks' own steps, or of their own Gram matrices, is *not* this step. With :class:`BatchedVJP` inside,
    J itself travels. Ranks may have different numbers of rows. The step of rank 0 is given to all.

    Use the bare model, not ``DistributedDataParallel``: its hooks would average gradients that are not asked for.

    Args:
        engine: what each rank linearises its own residuals with; by default :class:`Automatic`. Its memory budget is
            for that; what comes from the other ranks is held besides.
        group: of processes; by default all.

    Raises:
        NonFiniteError: on every rank, when the residual of one is not finite.
        ArgumentError: the ranks' Jacobians are not made of the same layers, or one does not fit its memory budget.
    """

    def __init__(self, engine: Engine | None = None, *, group: dist.ProcessGroup | None = None) -> None:
        self.engine = engine or Automatic()
        super().__init__(memory_budget=self.engine.memory_budget)
        self.group = group
        self._scale, self._counts = torch.ones(0), [0]

    def linearize(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """See :class:`Engine`."""
        sizes: dict[str, int] = {}

        def watched() -> ResidualValue:
            value = function()
            if isinstance(value, Mapping):
                sizes.update({name: block.numel() for name, block in value.items()})
            return value

        failure: Exception | None = None
        try:
            r, jacobian = self.engine.linearize(watched, parameters, weights)
        except Exception as error:
            failure = error
        # A rank that fails alone would leave the others waiting for its factors.
        layouts: list[Any] = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(layouts, None if failure else _Layout.of(jacobian, sizes), group=self.group)
        if failure is not None:
            raise failure
        if None in layouts:
            raise NonFiniteError(f"expected finite residuals on all ranks, got a failure on rank {layouts.index(None)}")
        if any(layout.recomputes for layout in layouts):
            raise ArgumentError(_TOO_LARGE)
        if len({layout.kinds for layout in layouts}) > 1:
            raise ArgumentError("expected the same layers and blocks on all ranks, got different ones; use BatchedVJP")
        self._scale, self._counts = _scale(r, sizes, layouts), [layout.num_rows for layout in layouts]
        return self.whole(r), self._join(jacobian, layouts)

    def total(self, r: Tensor) -> Tensor:
        """Of the residuals of all ranks."""
        return _summed(super().total(r * self._scale), self.group)

    def whole(self, r: Tensor) -> Tensor:
        """Of all ranks, one after the other."""
        return self._gather(r * self._scale, self._counts)

    def agreed(self, direction: Tensor) -> Tensor:
        """That of the first rank of the group."""
        source = dist.get_global_rank(self.group, 0) if self.group is not None else 0
        dist.broadcast(direction, src=source, group=self.group)
        return direction

    def _join(self, jacobian: Jacobian, layouts: Sequence["_Layout"]) -> Jacobian:
        """The rows of all ranks."""
        counts = [layout.num_rows for layout in layouts]
        if isinstance(jacobian, DenseJacobian):
            matrix = self._gather(jacobian.matrix * self._scale[:, None], counts)
            return DenseJacobian(matrix, memory_budget=self.memory_budget)
        if not isinstance(jacobian, FactoredJacobian):
            raise ArgumentError("expected an exact engine, got one that gives a low rank; use Ghost or BatchedVJP")
        pieces: list[Piece] = []
        for index, piece in enumerate(jacobian.pieces):
            pieces += self._join_piece(piece, [layout.spans[index] for layout in layouts], counts)
        return FactoredJacobian(
            sum(counts), jacobian.num_columns, pieces, factor_eps=jacobian.factor_eps,
            memory_budget=self.memory_budget, device=jacobian.device,
        )  # fmt: skip

    def _join_piece(self, piece: Piece, spans: Sequence[tuple[int, int]], counts: Sequence[int]) -> list[Piece]:
        """The pieces of all ranks; one where each covers all rows of its rank."""
        sizes = [num_rows for _, num_rows in spans]
        covers_all = all(span == (0, count) for span, count in zip(spans, counts, strict=True))
        firsts = [sum(counts[:rank]) + first for rank, (first, _) in enumerate(spans)]
        column, scale = piece.columns.start, self._scale[piece.rows]
        if isinstance(piece, FactorPiece):
            inputs = self._gather(piece.inputs, sizes)
            scale = scale.to(piece.cotangents.dtype).view(-1, *[1] * (piece.cotangents.ndim - 1))
            cotangents = self._gather(piece.cotangents * scale, sizes)
            if covers_all:
                return [piece.like(0, inputs, cotangents)]
            parts = zip(firsts, inputs.split(sizes), cotangents.split(sizes), strict=True)
            return [piece.like(row, a, g) for row, a, g in parts if len(a)]
        matrix = self._gather(piece.dense() * scale[:, None], sizes)
        if covers_all:
            return [MatrixPiece(column, 0, matrix)]
        return [MatrixPiece(column, row, m) for row, m in zip(firsts, matrix.split(sizes), strict=True) if len(m)]

    def _gather(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """Rows of all ranks, one after the other; padded on the way, since collectives take equal sizes."""
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class Sharded(Engine):
    """Every rank has parameters of its own and the same residuals: tensor-parallel models, sharded by hand.

        J = (J_1 J_2 ... J_R),       J J^T = sum_k J_k J_k^T

    What travels is a matrix of rows by rows, and one vector of rows for each product with J. All ranks must see the
    same residual, and ``autograd`` on each must give the derivative with respect to its own parameters, counted once.

    Args:
        engine: what each rank linearises with; by default :class:`Automatic`.
        group: of processes; by default all.

    Raises:
        ArgumentError: there are more residuals than parameters, the filter's tolerance needs J as a matrix, or the part
            of a rank does not fit its memory budget.
    """

    def __init__(self, engine: Engine | None = None, *, group: dist.ProcessGroup | None = None) -> None:
        self.engine = engine or Automatic()
        super().__init__(memory_budget=self.engine.memory_budget)
        self.group = group

    def linearize(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """See :class:`Engine`."""
        r, jacobian = self.engine.linearize(function, parameters, weights)
        return r, ShardedJacobian(jacobian, self.group)

    def norm(self, direction: Tensor) -> Tensor:
        """Over the parameters of all ranks."""
        return _summed(direction.square().sum(), self.group).sqrt()


class ShardedJacobian(Jacobian):
    """Some columns of J; the others are on other ranks.

    Args:
        own: the columns of this rank.
        group: of processes.
    """

    def __init__(self, own: Jacobian, group: dist.ProcessGroup | None) -> None:
        own_numbers = torch.tensor([own.num_columns, own.recomputes], dtype=torch.float64)
        columns, num_too_large = _summed(own_numbers, group).tolist()
        if num_too_large:
            # Its passes would have to run in step with those of the other ranks.
            raise ArgumentError(_TOO_LARGE)
        super().__init__(
            own.num_rows, int(columns), factor_eps=own.factor_eps, memory_budget=own.memory_budget
        )  # fmt: skip
        self.own, self.group = own, group

    def dense(self) -> Tensor:
        """Nowhere together."""
        raise ArgumentError("expected a step on the side of rows, got one that needs J as a matrix; raise rtol to 1e-6")

    def gram(self) -> Tensor:
        """``J J^T``."""
        return _summed(self.own.gram(), self.group)

    def normal(self) -> Tensor:
        """Nowhere together."""
        raise ArgumentError(
            f"expected at most as many residuals as parameters, got {self.num_rows} and {self.num_columns}; "
            "sharded parameters are solved for on the side of rows"
        )

    def times(self, v: Tensor) -> Tensor:
        """``J v``, with this rank's part of ``v``."""
        return _summed(self.own.times(v), self.group)

    def transposed_times(self, w: Tensor) -> Tensor:
        """This rank's part of ``J^T w``."""
        return self.own.transposed_times(w)

    @property
    def dense_fits(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class _Layout:
    """What ranks must know of each other's Jacobians before they can join them."""

    num_rows: int
    kinds: tuple[object, ...]  # equal on all ranks
    spans: tuple[tuple[int, int], ...]  # first row and number of rows of each piece
    sizes: dict[str, int]  # of the named blocks
    recomputes: bool

    @classmethod
    def of(cls, jacobian: Jacobian, sizes: dict[str, int]) -> "_Layout":
        pieces = jacobian.pieces if isinstance(jacobian, FactoredJacobian) else []
        kinds: list[object] = [type(jacobian).__name__, *sizes]
        for piece in pieces:
            widths = (piece.inputs.shape[1:], piece.cotangents.shape[1:]) if isinstance(piece, FactorPiece) else ()
            kinds.append((type(piece).__name__, piece.columns.start, *map(tuple, widths)))
        spans = tuple((piece.rows.start, piece.num_rows) for piece in pieces)
        return cls(jacobian.num_rows, tuple(kinds), spans, sizes, jacobian.recomputes)


def _scale(r: Tensor, sizes: Mapping[str, int], layouts: Sequence[_Layout]) -> Tensor:
    """Named blocks are means of squares: over the rows of all ranks, not of this one."""
    scale = torch.ones_like(r)
    start = 0
    for name, size in sizes.items():
        scale[start : start + size] = math.sqrt(size / sum(layout.sizes[name] for layout in layouts))
        start += size
    return scale


def _summed(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    values = values.contiguous().clone()
    dist.all_reduce(values, group=group)
    return values
