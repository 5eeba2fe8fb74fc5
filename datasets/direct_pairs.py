"""Pairs of frames that go from the file straight into the tensors of a batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.datasets.positioned import OpenFile, read_pieces, row_slices
from neuralop_kit.datasets.readers.contents import Numbers
from neuralop_kit.datasets.readers.frame_places import DirectFrames, FramePlaces

NOWHERE = memoryview(bytearray(16))

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Frames:
    """Frames that follow each other in the channels of a row.

    Args:
        source: all quantities of some roles.
        numbers: of the frames, ``(row, count)``.
    """

    source: DirectFrames
    numbers: Indices


@dataclass(frozen=True)
class Output:
    """What becomes of some frames.

    Args:
        array: ``(batch, channel, *space)``, contiguous.
        parts: of each row that is filled, in the order of the channels.
    """

    array: Numbers
    parts: Sequence[Frames]


def read_pairs(outputs: Sequence[Output], rows: Sequence[int], samples: Indices) -> bool:
    """Fill rows of arrays with numbers that are all in one file.

    Args:
        outputs: the arrays.
        rows: which, in ascending order.
        samples: of each of these rows.

    Returns:
        whether they are filled with numbers that are known to be sound; if not, they are worth nothing.
    """
    parts = [part for output in outputs for part in output.parts]
    new = [part for part in parts if not part.source.all_seen(samples[:, None], part.numbers)]
    if any(places.gap for part in new for places in part.source.variables):
        return False
    pieces = _Pieces(rows, samples)
    for output in outputs:
        pieces.add(output)
    pieces.read(parts[0].source.file)
    if new:
        for output in outputs:
            chosen = output.array if len(rows) == len(output.array) else output.array[rows]
            # A finite sum of squares is one of finite numbers; that of large ones may overflow.
            if not math.isfinite(np.vdot(chosen, chosen)):
                return False
        for part in new:
            for seen in part.source.seen:
                seen[samples[:, None], part.numbers] = True
    return True


class _Pieces:
    """Where pieces of a file go, by their size and that of the gap behind them."""

    def __init__(self, rows: Sequence[int], samples: Indices) -> None:
        self._rows, self._samples = rows, samples
        self._places: dict[tuple[int, int], list[Indices]] = {}
        self._buffers: dict[tuple[int, int], list[memoryview]] = {}
        # Channels of some rows, and what is read for them with the channels last.
        self._turned: list[tuple[Numbers, Numbers]] = []

    def add(self, output: Output) -> None:
        """Those that an array needs."""
        num_rows, row_bytes, first = len(output.array), output.array[0].nbytes, 0
        content = output.array.data.cast("B")
        for part in output.parts:
            for column in part.numbers.T:
                for kind in part.source.variables:
                    key = (kind.size, kind.gap)
                    self._places.setdefault(key, []).append(kind.at(self._samples, column))
                    if kind.num_last == 1:
                        slices = row_slices(num_rows, row_bytes, first, kind.size)
                        chosen = slices if len(self._rows) == num_rows else [slices[k] for k in self._rows]
                        buffers = map(content.__getitem__, chosen)
                    else:
                        buffers = map(memoryview, self._aside(output.array, first, kind))
                    self._buffers.setdefault(key, []).extend(buffers)
                    first += kind.size

    def _aside(self, array: Numbers, first: int, kind: FramePlaces) -> NDArray[np.uint8]:
        """Room for rows whose channels, from byte ``first`` of each on, are stored behind the axes of space."""
        channel = first // array[0, 0].nbytes
        turned = np.empty((len(self._rows), *array.shape[2:], kind.num_last), dtype=array.dtype)
        self._turned.append((array[:, channel : channel + kind.num_last], turned))
        return turned.reshape(len(turned), -1).view(np.uint8)

    def read(self, file: OpenFile) -> None:
        """Fill them."""
        for key, places in self._places.items():
            buffers, (_, gap) = self._buffers[key], key
            behind = [NOWHERE[:gap]] * len(buffers) if gap else None
            read_pieces({0: file}, np.concatenate(places), buffers, behind=behind)
        for channels, turned in self._turned:
            where: Any = slice(None) if len(turned) == len(channels) else self._rows
            channels[where] = np.moveaxis(turned, -1, 1)
