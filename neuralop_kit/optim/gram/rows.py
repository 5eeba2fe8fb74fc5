"""Which rows of the residual a recorded batch belongs to, and the pieces of the Jacobian that follow."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralop_kit.optim.base import real_view
from neuralop_kit.optim.gram.kernels import Gradient, Use
from neuralop_kit.optim.gram.pieces import MatrixPiece, Piece
from neuralop_kit.optim.gram.recorder import Recorder, UnrecordableError

# The first row of a batch, and after how many samples it starts again.
Place = tuple[int, int]


class PlaceError(UnrecordableError):
    """What need not be samples of a batch does not own a row each, in order.

    Args:
        index: the parameter; None where it is not known which.
    """

    def __init__(self, index: int | None) -> None:
        super().__init__("has samples that do not own one row each, in order")
        self.index = index


@dataclass(frozen=True)
class Recording:
    """One backward pass from a block of rows: the uses of layers, and the gradients per sample of other parameters."""

    entries: list[Use | Gradient]

    @property
    def sizes(self) -> list[int]:
        """Number of samples of each batch."""
        return [entry.size for entry in self.entries]

    def guess(self, num_rows: int) -> list[Place] | None:
        """All batches as that of all rows, once or several times; None where a size is another one."""
        sized = zip(self.sizes, self.entries, strict=True)
        if any(size != num_rows if entry.is_layer else size % num_rows for size, entry in sized):
            return None
        return [(0, num_rows)] * len(self.entries)

    @property
    def is_silent(self) -> bool:
        """Whether what need not be a batch got nothing yet, so that no comparison says what it is."""
        guessed = [entry for entry in self.entries if isinstance(entry, Use) and not entry.is_layer]
        return any(not factor.any() for entry in guessed for factor in entry.factors)

    def strengths(self) -> list[Tensor]:
        """For each batch and sample the product of the norms of its factors, proportional to cotangents of rows."""
        return [
            functools.reduce(torch.mul, [factor.flatten(1).norm(dim=1).double() for factor in entry.factors])
            for entry in self.entries
        ]


def record_rows(recorder: Recorder, rows: Tensor, cotangents: Tensor) -> Recording:
    """One backward pass from ``rows``; of copies per sample as far as their gradients fit."""
    copies = [(i, copy) for i, copy in recorder.copies if recorder.reserve(i, copy.numel() * copy.element_size())]
    with recorder.recording() as uses:
        gradients = torch.autograd.grad(
            rows, [recorder.anchor, *(copy for _, copy in copies)], grad_outputs=cotangents, retain_graph=True,
            allow_unused=True,
        )[1:]  # fmt: skip
    found = zip(copies, gradients, strict=True)
    # Of complex parameters the columns are real and imaginary parts.
    uses += [
        Gradient(index, real_view(gradient), is_layer=False) for (index, _), gradient in found if gradient is not None
    ]
    return Recording(uses)


def probe(num_rows: int, like: Tensor) -> Tensor:
    """Cotangents that tell rows apart: sizes in (1, 2] by row, signs at random."""
    generator = torch.Generator().manual_seed(num_rows)
    signs = torch.randint(0, 2, (num_rows,), generator=generator) * 2 - 1
    return (signs * (1 + torch.arange(1, num_rows + 1, dtype=torch.float64) / num_rows)).to(like)


def find_places(plain: Sequence[Tensor], probed: Recording, num_rows: int) -> list[Place]:
    """Where the samples of each batch stand among the rows; they follow in order.

    Sample b of a batch that belongs to row i got the i-th number of :func:`probe` times as much from it as from ones.

    Args:
        plain: the strengths from cotangents of one.
        probed: the recording from those of :func:`probe`.
        num_rows: of the block.

    Raises:
        UnrecordableError: a sample belongs to several rows, the order is another one, or nothing arrived.
    """
    found = zip(plain, probed.strengths(), probed.entries, strict=True)
    return [_place(b / a, num_rows, entry) for a, b, entry in found]


def _place(ratios: Tensor, num_rows: int, entry: Use | Gradient) -> Place:
    num_samples = len(ratios)
    # Samples that got nothing have no ratio.
    seen = ratios.isfinite().nonzero().squeeze(1)
    if num_samples == num_rows and (entry.is_layer or not len(seen)):
        return 0, num_rows
    if not len(seen):
        raise UnrecordableError("does not yet depend on one of its batches")
    nearest = ((ratios[seen] - 1) * num_rows).round().long() - 1
    repeats = [1] if entry.is_layer else [n for n in range(1, num_samples + 1) if num_samples % n == 0]
    for period in [num_samples // n for n in repeats]:
        starts = (nearest - seen % period).unique()
        if len(starts) == 1 and 0 <= starts[0] <= num_rows - period:
            return int(starts[0]), period
    if not entry.is_layer:
        raise PlaceError(entry.weight_index if isinstance(entry, Use) else entry.index)
    raise UnrecordableError("has samples that do not own one row each, in order")


def row_pieces(recording: Recording, places: Sequence[Place], row: int, columns: Sequence[int]) -> list[Piece]:
    """The pieces of J of one block of rows.

    Args:
        recording: from cotangents of one; is emptied, so that nothing is held twice.
        places: of each batch, within the block.
        row: first row of the block in J.
        columns: first column of each parameter.
    """
    pieces: list[Piece] = []
    tokens: dict[tuple[Any, ...], list[Use]] = {}
    for entry, (start, period) in zip(recording.entries, places, strict=True):
        first = row + start
        if isinstance(entry, Gradient):
            pieces.append(MatrixPiece(columns[entry.index], first, entry.values.flatten(1)))
            continue
        use = entry if entry.size == period else entry.folded(period)
        # Tokens of one sample and one weight add up: all uses together are one piece.
        key = (use.weight_index, first, period, use.inputs.ndim)
        tokens.setdefault(key, []).append(use)
        if use.bias_index is not None:
            # Of a single token there is nothing to add up, and nothing to copy.
            sums = use.cotangents.squeeze(1) if use.cotangents.shape[1] == 1 else use.cotangents.sum(dim=1)
            pieces.append(MatrixPiece(columns[use.bias_index], first, sums))
    recording.entries.clear()
    for key in list(tokens):
        uses = tokens.pop(key)
        inputs, cotangents = (
            parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            for parts in zip(*((u.inputs, u.cotangents) for u in uses), strict=True)
        )
        pieces.append(uses[0].piece(columns[uses[0].weight_index], key[1], inputs, cotangents))
    return pieces
