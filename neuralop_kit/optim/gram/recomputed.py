"""RecomputedJacobian: a Jacobian that is never held, for less memory and more time."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from neuralop_kit.optim.gram.jacobian import Jacobian
from neuralop_kit.optim.gram.passes import ColumnPasses, OnceError, RowPasses
from neuralop_kit.optim.gram.vjp import flat_vjp, real_size

Kind = type[RowPasses] | type[ColumnPasses]

_EPS = torch.finfo(torch.float64).eps
# Backward passes that one row or column is worth.
_COSTS: dict[Kind, int] = {RowPasses: 1, ColumnPasses: 2}


class RecomputedJacobian(Jacobian):
    """J as the graph of the residual: every product with it takes passes through that.

    ``J^T w`` and ``J v`` are one pass each. ``J J^T`` goes over pairs of blocks of rows: with k blocks, each half of
    the budget, ``(k + 1) / 2`` passes per row; or over the few columns, once each; or, in float64, over rows and then
    over products with them, two passes per row, one of which is through a backward pass. ``J^T J`` is the same with
    rows and columns exchanged. The way that is the cheapest is taken.

    A graph looks at weights where they are. Products are those at the weights that J was taken at, wherever trial steps
    have moved them: they are put back meanwhile.

    Args:
        rows: the residual with its graph, which is kept as long as this object.
        parameters: those of the columns.
        weights: all that the residual depends on and that moves, copied here.
        memory_budget: bytes that parts of J may take, and cotangents on the way; one row or column at least is held.
    """

    recomputes = True

    def __init__(
        self, rows: Tensor, parameters: Sequence[Tensor], *, weights: Sequence[Tensor], memory_budget: int
    ) -> None:
        num_columns = sum(map(real_size, parameters))
        eps = torch.finfo(rows.dtype).eps
        super().__init__(len(rows), num_columns, factor_eps=eps, memory_budget=memory_budget)
        self.rows, self.parameters, self.weights = rows, list(parameters), [w.data for w in weights]
        self.start = [w.clone() for w in self.weights]

    def dense(self) -> Tensor:
        """All rows; within no budget."""
        return self.some_rows(0, self.num_rows, memory_budget=self.memory_budget)

    def some_rows(self, start: int, stop: int, *, memory_budget: int) -> Tensor:
        """The rows ``start`` to ``stop``, which are held besides the budget."""
        with self._at_start():
            matrix = torch.empty(stop - start, self.num_columns, dtype=torch.float64, device=self.rows.device)
            return RowPasses(self.rows, self.parameters).fill(matrix, start, memory_budget=memory_budget)

    def gram(self) -> Tensor:
        """``J J^T``."""
        return self._square(RowPasses, ColumnPasses)

    def normal(self) -> Tensor:
        """``J^T J``."""
        return self._square(ColumnPasses, RowPasses)

    def times(self, v: Tensor) -> Tensor:
        """``J v``, at the precision of the residual."""
        with self._at_start():
            try:
                columns = ColumnPasses(self.rows, self.parameters)
                return columns.combinations(v.to(columns.input_dtype)[None])[0].double()
            except OnceError:
                rows = RowPasses(self.rows, self.parameters)
                slabs = rows.slabs(0, rows.count, memory_budget=self.memory_budget, kept_bytes=8)
                return torch.cat([slab.double() @ v for _, slab in slabs])

    def transposed_times(self, w: Tensor) -> Tensor:
        """``J^T w``, at the precision of the residual."""
        with self._at_start():
            return flat_vjp(self.rows, self.parameters, w.to(self.rows.dtype))

    def _square(self, own: Kind, other: Kind) -> Tensor:
        """The products of all rows, or columns, with each other, the way that takes the fewest passes."""
        sizes = {RowPasses: self.num_rows, ColumnPasses: self.num_columns}
        num_blocks = -(-sizes[own] // self._block(sizes[other]))
        costs = {
            self._by_pairs: _COSTS[own] * sizes[own] * (num_blocks + 1) / 2,
            self._by_sums: _COSTS[other] * sizes[other],
            # In less than float64 sums of products would be as coarse as what they are made of.
            self._by_products: math.inf if self.factor_eps > _EPS else (_COSTS[own] + _COSTS[other]) * sizes[own],
        }
        by_rows = self._by_pairs if own is RowPasses else self._by_sums
        way = min(costs, key=lambda candidate: costs[candidate])
        with self._at_start():
            try:
                return way(own, other)
            except OnceError:
                return by_rows(own, other)

    def _block(self, length: int) -> int:
        """How many rows, or columns, of a length half of the budget holds."""
        return max(self.memory_budget // (2 * self.rows.element_size() * length), 1)

    def _by_pairs(self, own: Kind, other: Kind) -> Tensor:
        """A block is held while those after it come by, a few at a time."""
        passes, share = own(self.rows, self.parameters), self.memory_budget // 4
        total, block = self._zeros(passes.count), min(self._block(passes.length), passes.count)
        matrix = torch.empty(block, passes.length, dtype=passes.dtype, device=passes.device)
        for start in range(0, passes.count, block):
            stop = min(start + block, passes.count)
            held = passes.fill(matrix[: stop - start], start, memory_budget=share)
            total[start:stop, start:stop] = _products(held, held, memory_budget=share)
            for first, slab in passes.slabs(stop, passes.count, memory_budget=share):
                products = _products(slab, held, memory_budget=share)
                total[first : first + len(slab), start:stop] = products
                total[start:stop, first : first + len(slab)] = products.T
        return total

    def _by_sums(self, own: Kind, other: Kind) -> Tensor:
        """``X^T X`` from rows of X that are computed once each."""
        passes = other(self.rows, self.parameters)
        total = self._zeros(passes.length)
        for _, slab in passes.slabs(0, passes.count, memory_budget=self.memory_budget, kept_bytes=8):
            slab = slab.double()
            total.addmm_(slab.T, slab)
        return total

    def _by_products(self, own: Kind, other: Kind) -> Tensor:
        """``J (J^T e_b)`` for all unit vectors, or ``J^T (J e_p)``: no two blocks need meet."""
        first, second = own(self.rows, self.parameters), other(self.rows, self.parameters)
        total, share = self._zeros(first.count), self.memory_budget // 2
        kept = second.pass_bytes() // first.length + 1
        for start, slab in first.slabs(0, first.count, memory_budget=share, kept_bytes=kept):
            total[start : start + len(slab)] = second.combinations(slab)
        return total

    @contextmanager
    def _at_start(self) -> Iterator[None]:
        """Inside, weights are those that J was taken at, and what is computed has a graph."""
        now = [None if torch.equal(w, start) else w.clone() for w, start in zip(self.weights, self.start, strict=True)]
        moved = [(w, start, n) for w, start, n in zip(self.weights, self.start, now, strict=True) if n is not None]
        for weight, start, _ in moved:
            weight.copy_(start)
        try:
            with torch.enable_grad():
                yield
        finally:
            for weight, _, there in moved:
                weight.copy_(there)

    def _zeros(self, size: int) -> Tensor:
        return torch.zeros(size, size, dtype=torch.float64, device=self.rows.device)


def _products(left: Tensor, right: Tensor, *, memory_budget: int) -> Tensor:
    """``left @ right^T``, float64; what is not yet float64 becomes so in slices of columns."""
    if left.dtype == torch.float64:
        return left @ right.T
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    step = max(memory_budget // (8 * (len(left) + len(right))), 1)
    for a, b in zip(left.split(step, dim=1), right.split(step, dim=1), strict=True):
        total.addmm_(a.double(), b.double().T)
    return total
