"""Which rows of the residual a recorded batch belongs to, and the pieces of the Jacobian that follow."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.optim.base import real_view
from neuralop_kit.optim.gram.kernels import Use
from neuralop_kit.optim.gram.pieces import MatrixPiece, OuterPiece, Piece
from neuralop_kit.optim.gram.recorder import Recorder, UnrecordableError


@dataclass(frozen=True)
class Recording:
    """One backward pass from a block of rows: the uses of layers, and the gradients of copies per sample."""

    uses: list[Use]
    copies: list[tuple[int, Tensor]]

    @property
    def batches(self) -> list[tuple[Tensor, ...]]:
        """The factors ``(batch, ...)`` of what each batch got; linear in the cotangents of the rows, taken together."""
        return [(use.inputs, use.cotangents) for use in self.uses] + [(gradient,) for _, gradient in self.copies]

    @property
    def sizes(self) -> list[int]:
        """Number of samples of each batch."""
        firsts = [use.inputs for use in self.uses] + [gradient for _, gradient in self.copies]
        return [first.shape[0] for first in firsts]


def record_rows(recorder: Recorder, rows: Tensor, cotangents: Tensor) -> Recording:
    """One backward pass from ``rows``."""
    leaves = [copy for _, copy in recorder.copies]
    with recorder.recording() as uses:
        gradients = torch.autograd.grad(
            rows, [recorder.anchor, *leaves], grad_outputs=cotangents, retain_graph=True, allow_unused=True
        )[1:]
    found = zip(recorder.copies, gradients, strict=True)
    # Of complex parameters the columns are real and imaginary parts.
    copies = [(index, real_view(gradient)) for (index, _), gradient in found if gradient is not None]
    return Recording(uses, copies)


def probe(num_rows: int, like: Tensor) -> Tensor:
    """Cotangents that tell rows apart: sizes in (1, 2] by row, signs at random."""
    generator = torch.Generator().manual_seed(num_rows)
    signs = torch.randint(0, 2, (num_rows,), generator=generator) * 2 - 1
    return (signs * (1 + torch.arange(1, num_rows + 1, dtype=torch.float64) / num_rows)).to(like)


def first_rows(plain: Recording, probed: Recording, num_rows: int) -> list[int]:
    """For each batch the row of its first sample; the others follow in order.

    Sample b of a batch that belongs to row i got the i-th number of :func:`probe` times as much from it as from ones.

    Raises:
        UnrecordableError: a sample belongs to several rows, the order is another one, or nothing arrived.
    """
    return [_first_row(a, b, num_rows) for a, b in zip(plain.batches, probed.batches, strict=True)]


def _first_row(plain: tuple[Tensor, ...], probed: tuple[Tensor, ...], num_rows: int) -> int:
    num_samples = len(plain[0])
    if num_samples == num_rows:
        return 0
    ratios = torch.ones(num_samples, dtype=torch.float64, device=plain[0].device)
    for ones, others in zip(plain, probed, strict=True):
        ones, others = ones.flatten(1).double(), others.flatten(1).double()
        ratios = ratios * (ones * others).sum(dim=1) / ones.square().sum(dim=1)
    # Samples that got nothing have no ratio.
    seen = ratios.isfinite().nonzero().squeeze(1)
    if not len(seen):
        raise UnrecordableError("does not yet depend on one of its batches")
    nearest = ((ratios[seen].abs() - 1) * num_rows).round().long() - 1
    starts = (nearest - seen).unique()
    start = int(starts[0])
    if len(starts) > 1 or not 0 <= start <= num_rows - num_samples:
        raise UnrecordableError("has samples that do not own one row each, in order")
    return start


def row_pieces(recording: Recording, starts: Sequence[int], row: int, columns: Sequence[int]) -> list[Piece]:
    """The pieces of J of one block of rows.

    Args:
        recording: from cotangents of one.
        starts: first row of each batch, within the block.
        row: first row of the block in J.
        columns: first column of each parameter.
    """
    pieces: list[Piece] = []
    tokens: dict[tuple[int, int, int, int], list[Use]] = {}
    for use, start in zip(recording.uses, starts, strict=False):
        if use.weight_index is not None:
            # Tokens of one sample and one weight add up: all uses together are one piece.
            key = (use.weight_index, row + start, use.inputs.shape[0], use.inputs.shape[2])
            tokens.setdefault(key, []).append(use)
        if use.bias_index is not None:
            # Of a single token there is nothing to add up, and nothing to copy.
            sums = use.cotangents.squeeze(1) if use.cotangents.shape[1] == 1 else use.cotangents.sum(dim=1)
            pieces.append(MatrixPiece(columns[use.bias_index], row + start, sums))
    for (index, first, _, _), uses in tokens.items():
        inputs, cotangents = (
            parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            for parts in zip(*((u.inputs, u.cotangents) for u in uses), strict=True)
        )
        pieces.append(OuterPiece(columns[index], first, inputs, cotangents))
    for (index, gradient), start in zip(recording.copies, starts[len(recording.uses) :], strict=True):
        pieces.append(MatrixPiece(columns[index], row + start, gradient.flatten(1)))
    return pieces
