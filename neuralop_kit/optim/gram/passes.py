"""Rows or columns of a Jacobian from passes through the graph of the residual, some at a time."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from neuralop_kit.optim.gram.residual import finite_jacobian
from neuralop_kit.optim.gram.rows import probe
from neuralop_kit.optim.gram.vjp import flat_rows, real_size

# Functions take working space of their own, in batches more of it: up to twice what goes in and comes out was seen.
_WORK = 3
# More passes at once than fit the caches of a processor are slower: PINNs took twice as long on one core.
_CACHE = 2**26


class OnceError(RuntimeError):
    """There are no columns: a backward pass has no backward pass."""


class Passes(ABC):
    """All rows, or all columns, of J; each takes a pass of its own, which may run beside others.

    Args:
        count: how many there are.
        length: numbers in each.
        dtype, device: of the numbers.
        input_dtype: of what sums are taken with.
    """

    def __init__(
        self, count: int, length: int, *, dtype: torch.dtype, input_dtype: torch.dtype, device: torch.device
    ) -> None:
        self.count, self.length, self.dtype, self.input_dtype, self.device = count, length, dtype, input_dtype, device

    @abstractmethod
    def pass_bytes(self) -> int:
        """What one takes: cotangents and working space on the way, a result, one in the making and one before."""

    @abstractmethod
    def combinations(self, coefficients: Tensor) -> Tensor:
        """Sums of all rows, or columns, ``(n, count) -> (n, length)``, by n passes side by side."""

    def slab(self, start: int, stop: int) -> Tensor:
        """Those from ``start`` to ``stop``."""
        units = torch.zeros(stop - start, self.count, dtype=self.input_dtype, device=self.device)
        units.diagonal(start).fill_(1.0)
        return self.combinations(units)

    def slabs(self, start: int, stop: int, *, memory_budget: int, kept_bytes: int = 0) -> Iterator[tuple[int, Tensor]]:
        """As many as fit the budget at once, but one at least, and where they start.

        Args:
            start, stop: which ones.
            memory_budget: bytes.
            kept_bytes: what the caller makes of each number of a slab.
        """
        pass_bytes = self.pass_bytes()
        step = memory_budget // (pass_bytes + kept_bytes * self.length)
        if self.device.type == "cpu":
            step = min(step, _CACHE // pass_bytes)
        step = max(step, 1)
        for first in range(start, stop, step):
            yield first, self.slab(first, min(first + step, stop))

    def fill(self, matrix: Tensor, start: int, *, memory_budget: int) -> Tensor:
        """Write those from ``start`` on into the rows of a matrix."""
        for first, slab in self.slabs(start, start + len(matrix), memory_budget=memory_budget):
            matrix[first - start : first - start + len(slab)] = slab
        return matrix

    def whole(self, *, memory_budget: int, dtype: torch.dtype | None = None) -> Tensor:
        """All of them; by default as they come."""
        matrix = torch.empty(self.count, self.length, dtype=dtype or self.dtype, device=self.device)
        return self.fill(matrix, 0, memory_budget=memory_budget)


class RowPasses(Passes):
    """Rows: one backward pass each.

    Args:
        rows: the residual, with its graph, which is kept.
        parameters: those of the columns.
    """

    def __init__(self, rows: Tensor, parameters: Sequence[Tensor]) -> None:
        dtype = functools.reduce(torch.promote_types, [p.dtype.to_real() for p in parameters])
        num_columns = sum(map(real_size, parameters))
        super().__init__(len(rows), num_columns, dtype=dtype, input_dtype=rows.dtype, device=rows.device)
        self.rows, self.parameters = rows, parameters

    def pass_bytes(self) -> int:
        """See :class:`Passes`."""
        return _WORK * cotangent_bytes(self.rows, self.parameters) + 3 * self.dtype.itemsize * self.length

    def combinations(self, coefficients: Tensor) -> Tensor:
        """See :class:`Passes`."""
        gradients = torch.autograd.grad(
            self.rows, self.parameters, coefficients, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        return flat_rows(gradients, self.parameters, len(coefficients))


class ColumnPasses(Passes):
    """Columns: one backward pass each through the backward pass, ``J e_p = d/dw <J^T w, e_p>``.

    Args:
        rows: the residual, with its graph, which is kept; so is that of its backward pass.
        parameters: those of the columns.

    Raises:
        OnceError: the residual cannot be differentiated twice; also from :meth:`combinations`.
    """

    def __init__(self, rows: Tensor, parameters: Sequence[Tensor]) -> None:
        self.w = probe(len(rows), rows).requires_grad_(True)
        gradients = torch.autograd.grad(rows, parameters, self.w, create_graph=True, allow_unused=True)
        self.flat = flat_rows([None if g is None else g.unsqueeze(0) for g in gradients], parameters, 1)[0]
        if not self.flat.requires_grad:
            raise OnceError("nothing of a backward pass can be differentiated")
        if any("Error" in node.name() for node in _reachable(self.flat.grad_fn)):
            # Autograd would leave out what goes through these functions, and not say so.
            raise OnceError("a function in the residual can be differentiated but once")
        super().__init__(
            len(self.flat), len(rows), dtype=rows.dtype, input_dtype=self.flat.dtype, device=rows.device
        )  # fmt: skip

    def pass_bytes(self) -> int:
        """See :class:`Passes`; what goes in is as long as a row."""
        ends = self.flat.element_size() * (self.count + 3 * self.length)
        return _WORK * cotangent_bytes(self.flat, [self.w]) + ends

    def combinations(self, coefficients: Tensor) -> Tensor:
        """See :class:`Passes`."""
        try:
            (images,) = torch.autograd.grad(
                self.flat, self.w, coefficients, retain_graph=True, is_grads_batched=True, allow_unused=True
            )
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            raise OnceError("a backward pass has no derivative in torch") from error
        if images is None:
            raise OnceError("nothing of a backward pass can be differentiated")
        w, flat = self.w.detach(), self.flat.detach()
        # <J v, w> = <v, J^T w>, unless a backward pass hides from autograd what it computes, and J v lacks that.
        excess = (images @ w - (coefficients @ flat).to(w)).norm()
        if excess > torch.finfo(w.dtype).eps ** 0.5 * flat.norm() * coefficients.norm():
            raise OnceError("a function in the residual has a backward pass that is cut off")
        return images


def dense_jacobian(
    rows: Tensor, parameters: Sequence[Tensor], *, memory_budget: int, dtype: torch.dtype | None = None
) -> Tensor:
    """The Jacobian ``(rows, parameters)`` of a vector with a graph; passes within the budget, J itself besides.

    Args:
        rows, parameters: of J.
        memory_budget: bytes.
        dtype: of the result; by default that of the derivatives.

    Raises:
        NonFiniteError: a derivative is not finite.
    """
    by_rows = len(rows) <= 2 * sum(map(real_size, parameters))
    if not by_rows:
        try:
            columns = ColumnPasses(rows, parameters).whole(memory_budget=memory_budget, dtype=dtype)
            return finite_jacobian(columns.T)
        except OnceError:
            # Rows need no second derivatives.
            pass
    return finite_jacobian(RowPasses(rows, parameters).whole(memory_budget=memory_budget, dtype=dtype))


def cotangent_bytes(output: Tensor, leaves: Sequence[Tensor]) -> int:
    """The cotangents that a backward pass to ``leaves`` holds at its worst moment, those of the leaves aside.

    Functions run as in autograd, the latest first.
    """
    order = _reachable(output.grad_fn)
    targets = {id(leaf) for leaf in leaves}
    leads = {node for node in order if _is_leaf(node) and id(node.variable) in targets}
    for node in reversed(order):
        if any(after in leads for after, _ in node.next_functions):
            leads.add(node)
    arrived: dict[Any, int] = {}
    held = peak = 0
    for node in order:
        for after, _ in node.next_functions:
            if after in leads and after not in arrived and not _is_leaf(after):
                arrived[after] = sum(math.prod(slot.shape) * slot.dtype.itemsize for slot in after._input_metadata)
                held += arrived[after]
        peak = max(peak, held)
        held -= arrived.get(node, 0)
    return peak


def _reachable(root: Any) -> list[Any]:
    """The functions of a graph in the order of a backward pass, leaves last."""
    found, waiting = {root} - {None}, [root] if root is not None else []
    while waiting:
        for after, _ in waiting.pop().next_functions:
            if after is not None and after not in found:
                found.add(after)
                waiting.append(after)
    return sorted(found, key=lambda node: (_is_leaf(node), -node._sequence_nr()))


def _is_leaf(node: Any) -> bool:
    return hasattr(node, "variable")
