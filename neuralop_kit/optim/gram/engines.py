"""Engines: ways to get the Jacobian of a residual function. All are exact; they differ in what they cost."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from neuralop_kit.optim.gram.jacobian import DenseJacobian, FactoredJacobian, Jacobian
from neuralop_kit.optim.gram.pieces import MatrixPiece, Piece
from neuralop_kit.optim.gram.recorder import Recorder, UnrecordableError
from neuralop_kit.optim.gram.residual import ResidualFunction, Weights, check_graph, finite, joined, residual_blocks
from neuralop_kit.optim.gram.rows import Recording, first_rows, probe, record_rows, row_pieces
from neuralop_kit.optim.gram.vjp import dense_jacobian, flat_vjp, real_size
from neuralop_kit.solvers.errors import ArgumentError

Linearization = tuple[Tensor, Jacobian]

# Sums and chains of products lose some units more than the last one.
_LOST_UNITS = 100.0


class Engine(ABC):
    """Gives residual and Jacobian of a residual function.

    Args:
        memory_budget: bytes that a temporary may take; what of J has no factors is held as a matrix besides.
    """

    def __init__(self, *, memory_budget: int = 2**30) -> None:
        if memory_budget < 1:
            raise ArgumentError(f"expected a positive memory budget in bytes, got {memory_budget}; 2**30 is one GiB")
        self.memory_budget = memory_budget

    @abstractmethod
    def linearize(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """Residual ``(rows,)``, float64 and scaled, and its Jacobian; a parameter that is not used has zero columns.

        Raises:
            NonFiniteError: the residual is not finite; no Jacobian is formed.
        """

    def total(self, r: Tensor) -> Tensor:
        """The loss ``0.5 |r|^2``, from the scaled residuals that this process sees."""
        return 0.5 * r.square().sum()

    def whole(self, r: Tensor) -> Tensor:
        """The residual of all processes, from the scaled residuals that this one sees."""
        return r

    def norm(self, direction: Tensor) -> Tensor:
        """The length of a step in all parameters, from the part of it that this process has."""
        return direction.norm()

    def agreed(self, direction: Tensor) -> Tensor:
        """The step that all processes take."""
        return direction


class BatchedVJP(Engine):
    """Any residual function: one backward pass for each row, or for each parameter where these are fewer, in batches.

    A row costs a backward pass over the whole batch. With fewer parameters than rows, columns come instead from a
    backward pass through the backward pass, which is linear in its cotangent: ``J e_p = d/dw <J^T w, e_p>``.
    """

    def linearize(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """See :class:`Engine`."""
        blocks = residual_blocks(function(), weights)
        check_graph(blocks)
        r = finite(joined(blocks))
        matrix = dense_jacobian(torch.cat(list(blocks.values())), parameters, memory_budget=self.memory_budget)
        return r, DenseJacobian(matrix, memory_budget=self.memory_budget)


class Ghost(Engine):
    """Residuals whose rows belong to samples: two factors per layer and sample, from a single backward pass.

    Row b may depend on item b of a batch alone, also through derivatives with respect to the points; several calls
    with batches of their own (interior, boundary) make rows of their own. Whether it is so is checked against a plain
    backward pass whenever shapes change.

    Raises:
        ArgumentError: rows do not belong to samples, or the function gives other residuals when called again.
    """

    def __init__(self, *, memory_budget: int = 2**30) -> None:
        super().__init__(memory_budget=memory_budget)
        self._known: dict[Hashable, list[list[int]]] = {}
        self._needs_copies = False

    def linearize(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """See :class:`Engine`."""
        try:
            return self.record(function, parameters, weights)
        except UnrecordableError as error:
            raise ArgumentError(
                f"expected rows that belong to samples, got a residual that {error}; use BatchedVJP, or Automatic"
            ) from error

    def record(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """:meth:`linearize`, with an :class:`UnrecordableError` where it cannot be done."""
        recorder = Recorder(parameters, memory_budget=self.memory_budget)
        try:
            value = recorder.run(function, copies=self._needs_copies)
            if recorder.foreign and not self._needs_copies:
                # From now on in the first run.
                self._needs_copies, recorder = True, Recorder(parameters, memory_budget=self.memory_budget)
                value = recorder.run(function)
            blocks = residual_blocks(value, weights)
        except RuntimeError as error:
            # Function transforms inside the residual do not go through recorded products.
            raise UnrecordableError("cannot be recorded") from error
        check_graph(blocks)
        r = finite(joined(blocks))
        try:
            recordings = [record_rows(recorder, rows, torch.ones_like(rows)) for rows in blocks.values()]
        except CheckpointError as error:
            # What is computed again in the backward pass is not recorded.
            raise UnrecordableError("has checkpoints inside") from error
        if not any(recording.sizes for recording in recordings):
            raise UnrecordableError("uses no layer that can be recorded")
        key = tuple((len(rows), *rec.sizes) for rows, rec in zip(blocks.values(), recordings, strict=True))
        is_new = key not in self._known
        if is_new:
            self._known[key] = _identify(recorder, blocks, recordings)
        columns = [0]
        for parameter in parameters:
            columns.append(columns[-1] + real_size(parameter))
        pieces, row = list[Piece](), 0
        for recording, starts, rows in zip(recordings, self._known[key], blocks.values(), strict=True):
            pieces += row_pieces(recording, starts, row, columns)
            row += len(rows)
        if is_new or recorder.foreign:
            plain_blocks = residual_blocks(function(), weights)
            plain = torch.cat(list(plain_blocks.values()))
            foreign = sorted(recorder.foreign)
            others = [parameters[i] for i in foreign]
            if others:
                matrix = dense_jacobian(plain, others, memory_budget=self.memory_budget)
                parts = matrix.split([real_size(p) for p in others], dim=1)
                pieces += [MatrixPiece(columns[i], 0, part) for i, part in zip(foreign, parts, strict=True)]
        eps = max(torch.finfo(rows.dtype).eps for rows in blocks.values())
        jacobian = FactoredJacobian(
            len(r), columns[-1], pieces, factor_eps=eps, memory_budget=self.memory_budget, device=r.device
        )
        if is_new:
            try:
                _verify(jacobian, r, plain, parameters)
            except Exception:
                del self._known[key]
                raise
        return r, jacobian


class Automatic(Engine):
    """:class:`Ghost` where it can be done, else :class:`BatchedVJP` from then on."""

    def __init__(self, *, memory_budget: int = 2**30) -> None:
        super().__init__(memory_budget=memory_budget)
        self._ghost, self._fallback = Ghost(memory_budget=memory_budget), BatchedVJP(memory_budget=memory_budget)
        self.chosen: Engine = self._ghost

    def linearize(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """See :class:`Engine`."""
        if self.chosen is self._ghost:
            try:
                return self._ghost.record(function, parameters, weights)
            except UnrecordableError:
                self.chosen = self._fallback
        return self._fallback.linearize(function, parameters, weights)


def _identify(recorder: Recorder, blocks: Mapping[str, Tensor], recordings: Sequence[Recording]) -> list[list[int]]:
    """First rows of the batches of each block; a second backward pass where sizes do not say it."""
    layouts = []
    for rows, recording in zip(blocks.values(), recordings, strict=True):
        if all(size == len(rows) for size in recording.sizes):
            layouts.append([0] * len(recording.sizes))
        else:
            probed = record_rows(recorder, rows, probe(len(rows), rows))
            layouts.append(first_rows(recording, probed, len(rows)))
    return layouts


def _verify(jacobian: FactoredJacobian, r: Tensor, plain: Tensor, parameters: Sequence[Tensor]) -> None:
    """Compare residual and ``J^T w`` with those of a plain run, as far as they are more than rounding.

    What cancels leaves the rounding of its parts: eps times the norms of the factors of J, and for r times the weights.
    """
    tolerance = jacobian.factor_eps**0.5
    rounding = _LOST_UNITS * tolerance * math.hypot(*(piece.size() for piece in jacobian.pieces))
    weights = math.hypot(*(p.detach().norm().item() for p in parameters))
    if (plain.detach().double() - r).norm() > tolerance * (r.norm() + rounding * weights):
        raise ArgumentError(
            "expected the same residual from two calls of the residual function, got different ones; "
            "draw points outside of it, and switch dropout off"
        )
    w = probe(len(r), plain)
    expected = flat_vjp(plain, parameters, w)
    if (jacobian.transposed_times(w.double()) - expected).norm() > tolerance * (expected.norm() + rounding):
        raise UnrecordableError("has rows that depend on several samples")
