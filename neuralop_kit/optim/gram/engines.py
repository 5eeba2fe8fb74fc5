"""Engines: ways to get the Jacobian of a residual function. All are exact; they differ in what they cost."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from neuralop_kit.optim.gram.jacobian import DenseJacobian, FactoredJacobian, Jacobian
from neuralop_kit.optim.gram.passes import dense_jacobian
from neuralop_kit.optim.gram.pieces import MatrixPiece, Piece
from neuralop_kit.optim.gram.recomputed import RecomputedJacobian
from neuralop_kit.optim.gram.recorder import Recorder, UnrecordableError
from neuralop_kit.optim.gram.residual import ResidualFunction, Weights, check_graph, finite, joined, residual_blocks
from neuralop_kit.optim.gram.rows import Place, PlaceError, Recording, find_places, probe, record_rows, row_pieces
from neuralop_kit.optim.gram.vjp import flat_rows, real_size
from neuralop_kit.solvers.errors import ArgumentError

Linearization = tuple[Tensor, Jacobian]

# Sums and chains of products lose some units more than the last one.
_LOST_UNITS = 100.0
# Columns of J that differ by more than this are never taken for the same.
_COARSEST = 0.01
# Part of a budget for what is held of J; products with it take the rest.
_HELD = 0.75


class Engine(ABC):
    """Gives residual and Jacobian of a residual function.

    Args:
        memory_budget: bytes that a step takes for J: its factors, gradients per sample, parts of J and of products with
            it, and the cotangents of passes that run side by side. What does not fit is not held but computed again
            whenever it is needed, which takes more passes.

    Beside that a step needs what no budget is for: the graphs of the residual and of a trial, and in order to compute J
    again that of a backward pass; some matrices of rows by rows, or of parameters by parameters if these are fewer;
    some vectors of parameters. A budget that is too small is exceeded by one row or column of J with the cotangents of
    its pass, and by 4 MiB in which factors become float64. Filters with an rtol that is too fine for a Gram matrix take
    J and a factor of its size as matrices; where these do not fit, the Gram matrix with its coarser singular values is
    taken.
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
    backward pass through the backward pass, which is linear in its cotangent: ``J e_p = d/dw <J^T w, e_p>``. Where J
    does not fit the budget it is not held: see :class:`RecomputedJacobian`.
    """

    def linearize(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """See :class:`Engine`."""
        blocks = residual_blocks(function(), weights)
        check_graph(blocks)
        r, rows = finite(joined(blocks)), torch.cat(list(blocks.values()))
        num_bytes = 8 * len(rows) * sum(map(real_size, parameters))
        if num_bytes > _HELD * self.memory_budget:
            return r, RecomputedJacobian(rows, parameters, weights=parameters, memory_budget=self.memory_budget)
        spare = self.memory_budget - num_bytes
        matrix = dense_jacobian(rows, parameters, memory_budget=spare, dtype=torch.float64)
        eps = torch.finfo(rows.dtype).eps
        return r, DenseJacobian(matrix, factor_eps=eps, memory_budget=self.memory_budget)


class Ghost(Engine):
    """Residuals whose rows belong to samples: two factors per layer and sample, from a single backward pass.

    Row b may depend on item b of a batch alone, also through derivatives with respect to the points; several calls
    with batches of their own (interior, boundary) make rows of their own. Whether it is so is checked against a plain
    backward pass whenever shapes change, or the calls of torch that are made.

    Raises:
        ArgumentError: rows do not belong to samples, or the function gives other residuals when called again.
    """

    def __init__(self, *, memory_budget: int = 2**30) -> None:
        super().__init__(memory_budget=memory_budget)
        self._known: dict[Hashable, list[list[Place]]] = {}
        self._needs_copies = False
        self._no_layers: set[int] = set()
        self._no_copies: set[int] = set()
        self._may_guess = True

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
        while True:
            try:
                return self._attempt(function, parameters, weights)
            except PlaceError as error:
                if error.index is None:
                    self._may_guess = False
                else:
                    (self._no_copies if error.index in self._no_layers else self._no_layers).add(error.index)

    def _attempt(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """:meth:`record`, with a :class:`PlaceError` where it has to be done in another way."""
        recorder, blocks = self._run(function, parameters, weights)
        check_graph(blocks)
        r, sizes = finite(joined(blocks)), [len(rows) for rows in blocks.values()]
        eps = max(torch.finfo(rows.dtype).eps for rows in blocks.values())
        recordings = _record(recorder, blocks)
        if recorder.left_out <= recorder.foreign and not any(recording.sizes for recording in recordings):
            raise UnrecordableError("uses no layer that can be recorded")
        found = zip(sizes, recordings, strict=True)
        key = (recorder.trace, *((size, *recording.sizes) for size, recording in found))
        is_new = key not in self._known
        is_silent = is_new and any(recording.is_silent for recording in recordings)
        guesses = [recording.guess(size) for size, recording in zip(sizes, recordings, strict=True)] if is_new else []
        is_guess = is_new and self._may_guess and None not in guesses
        if not is_new:
            places = self._known[key]
        elif is_guess:
            places = [guess for guess in guesses if guess is not None]
        else:
            places = _identify(recorder, blocks, recordings)
            recordings = _record(recorder, blocks)
        columns = list(itertools.accumulate(map(real_size, parameters), initial=0))
        pieces, row = list[Piece](), 0
        for recording, block_places, size in zip(recordings, places, sizes, strict=True):
            pieces += row_pieces(recording, block_places, row, columns)
            row += size
        left_out = sorted(recorder.left_out)
        # The graph of the recorded run is given up before there is one of a plain run.
        del recorder, blocks
        plain = torch.empty(0)
        if is_new or left_out:
            plain = torch.cat(list(residual_blocks(function(), weights).values()))
        slices = [slice(columns[i], columns[i + 1]) for i in left_out]
        rest = self._rest(plain, [parameters[i] for i in left_out], parameters, pieces)
        if isinstance(rest, Tensor):
            parts = rest.split([columns.stop - columns.start for columns in slices], dim=1)
            pieces += [MatrixPiece(columns.start, 0, part) for columns, part in zip(slices, parts, strict=True)]
            rest, slices = None, []
        jacobian = FactoredJacobian(
            len(r), columns[-1], pieces, factor_eps=eps, memory_budget=self.memory_budget, device=r.device,
            rest=rest, rest_columns=slices,
        )  # fmt: skip
        if is_new:
            try:
                is_seen = _verify(jacobian, r, plain, parameters)
            except UnrecordableError as error:
                raise (PlaceError(None) if is_guess else error) from error
            if is_seen and not is_silent:
                self._known[key] = places
        return r, jacobian

    def _rest(
        self, plain: Tensor, parameters: Sequence[Tensor], weights: Sequence[Tensor], pieces: Sequence[Piece]
    ) -> Tensor | RecomputedJacobian | None:
        """The columns of parameters without pieces; held if they take half of what is left of the budget."""
        if not parameters:
            return None
        spare = max(self.memory_budget - sum(piece.num_bytes for piece in pieces), 0)
        num_bytes = plain.element_size() * len(plain) * sum(map(real_size, parameters))
        if num_bytes > spare // 2:
            return RecomputedJacobian(plain, parameters, weights=weights, memory_budget=spare)
        return dense_jacobian(plain, parameters, memory_budget=spare - num_bytes)

    def _run(
        self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights
    ) -> tuple[Recorder, dict[str, Tensor]]:
        """A recorded run."""
        options: dict[str, Any] = {
            "memory_budget": int(_HELD * self.memory_budget), "no_layers": self._no_layers, "no_copies": self._no_copies
        }  # fmt: skip
        recorder = Recorder(parameters, **options)
        try:
            value = recorder.run(function, copies=self._needs_copies)
            if recorder.foreign and not self._needs_copies:
                # From now on in the first run.
                self._needs_copies, recorder = True, Recorder(parameters, **options)
                value = recorder.run(function)
            return recorder, residual_blocks(value, weights)
        except RuntimeError as error:
            # Function transforms inside the residual do not go through recorded products.
            raise UnrecordableError("cannot be recorded") from error


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


def _record(recorder: Recorder, blocks: Mapping[str, Tensor]) -> list[Recording]:
    """From cotangents of one; of a parameter all uses or none."""
    recorder.left_out |= recorder.foreign
    while True:
        before = len(recorder.left_out)
        recorder.release()
        try:
            recordings = [record_rows(recorder, rows, torch.ones_like(rows)) for rows in blocks.values()]
        except CheckpointError as error:
            # What is computed again in the backward pass is not recorded.
            raise UnrecordableError("has checkpoints inside") from error
        if len(recorder.left_out) == before:
            return recordings
        del recordings


def _identify(recorder: Recorder, blocks: Mapping[str, Tensor], recordings: list[Recording]) -> list[list[Place]]:
    """Places of the batches of each block, by another backward pass; ``recordings`` are given up for it."""
    strengths = [recording.strengths() for recording in recordings]
    # Of two recordings only one is held at a time.
    recordings.clear()
    places = []
    for rows, plain in zip(blocks.values(), strengths, strict=True):
        recorder.release()
        places.append(find_places(plain, record_rows(recorder, rows, probe(len(rows), rows)), len(rows)))
    return places


def _verify(jacobian: FactoredJacobian, r: Tensor, plain: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Compare residual and ``J^T w`` with those of a plain run, as far as they are more than rounding.

    What cancels leaves the rounding of its parts: eps times the norms of the factors of J, and for r times the weights.

    Returns:
        Whether that says something of each parameter; not of one before a layer of zeros, or of tiny numbers.
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
    gradients = torch.autograd.grad(plain, parameters, w, retain_graph=True, allow_unused=True)
    expected = flat_rows([None if g is None else g.unsqueeze(0) for g in gradients], parameters, 1)[0].double()
    # Of numbers of two digits the square root of the rounding would let anything pass.
    finer = min(1.0, _COARSEST / tolerance)
    least = finer * tolerance * (expected.norm() + finer * rounding)
    difference = jacobian.transposed_times(w.double()) - expected
    if difference.norm() > least:
        raise UnrecordableError("has rows that depend on several samples")
    sizes = [real_size(p) for p in parameters]
    parts = zip(gradients, expected.split(sizes), difference.split(sizes), strict=True)
    # What is smaller than that counts where it agrees in itself.
    return all(g is None or part.norm() > min(least, excess.norm() / tolerance) for g, part, excess in parts)
