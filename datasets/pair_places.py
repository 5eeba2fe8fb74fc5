"""Where the pairs of a file are, found by one sum and one look-up: in small batches the interpreter takes the time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.datasets.fletcher import CHECKSUM_BYTES, matches
from neuralop_kit.datasets.positioned import read_pieces
from neuralop_kit.datasets.readers.frame_places import DirectFrames, ListedPlaces, RegularPlaces

NOWHERE = memoryview(bytearray(CHECKSUM_BYTES))

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class PairPlaces:
    """Pairs whose channels are frames of scalar quantities, all stored in the same way.

    Pieces of a pair are numbered as the channels of its input, then of its target.

    Args:
        source: of the frames.
        frames: which frame each piece is, ``(piece, pair)``.
        numbers: what each piece adds to the place of its sample, ``(piece, pair)``.
        step: from a sample to the next one.
        listed: where the places are listed that these are the numbers of; None if they are bytes of the file.
        bytes_each: of a piece.
        gap: bytes of its checksum, which follows it; zero without.
    """

    source: DirectFrames
    frames: Indices
    numbers: Indices
    step: int
    listed: Indices | None
    bytes_each: int
    gap: int

    @classmethod
    def of(cls, source: DirectFrames, given: Indices, asked: Indices) -> "PairPlaces | None":
        """Those of pairs of frames ``(pair, count)`` of a trajectory; None where they are not so simple."""
        count, first = len(source.variables), source.variables[0]
        columns = np.concatenate([given, asked], axis=1).T
        frames = np.ascontiguousarray(columns.repeat(count, axis=0))
        which = np.tile(np.arange(count), len(columns))[:, None]
        kinds = {(v.size, v.gap, v.num_last) for v in source.variables}
        if len(source.seen) != 1 or kinds != {(first.size, first.gap, 1)}:
            return None
        regular = [v for v in source.variables if isinstance(v, RegularPlaces)]
        if len(regular) == count and len({v.sample_step for v in regular}) == 1:
            starts, steps = (np.array([getattr(v, name) for v in regular]) for name in ("start", "frame_step"))
            numbers = starts[which] + steps[which] * frames
            return cls(source, frames, numbers, regular[0].sample_step, None, first.size, first.gap)
        listed = [v.offsets for v in source.variables if isinstance(v, ListedPlaces)]
        if len(listed) != count or first.gap not in (0, CHECKSUM_BYTES):
            return None
        places = np.concatenate([part.ravel() for part in listed])
        return cls(source, frames, which * listed[0].size + frames, listed[0].shape[1], places, first.size, first.gap)

    def read(self, fields: Sequence[memoryview], dtype: np.dtype[Any], samples: Indices, pairs: Indices) -> bool:
        """Fill the fields of some pairs, piece by piece; False if they are not known to be sound, and worth nothing."""
        if len(fields[0]) != self.bytes_each:
            return False
        places = self.numbers.take(pairs, axis=1) + self.step * samples
        if self.listed is not None:
            places = self.listed.take(places)
        seen, frames = self.source.seen[0], self.frames.take(pairs, axis=1)
        new = (~seen[samples, frames]).ravel().nonzero()[0]
        marks: Any = [NOWHERE] * len(fields) if self.gap else None
        checksums = np.empty((len(fields) if self.gap and len(new) else 0, CHECKSUM_BYTES), dtype=np.uint8)
        if len(checksums):
            marks = [checksum.data for checksum in checksums]
        read_pieces({0: self.source.file}, places.ravel(), fields, behind=marks)
        if len(new):
            content = np.stack([np.frombuffer(fields[k], dtype=np.uint8) for k in new.tolist()])
            if self.gap and not matches(content, checksums[new].view("<u4")[:, 0]).all():
                return False
            numbers = content.view(dtype)
            # A finite sum of squares is one of finite numbers; that of large ones may overflow.
            if not math.isfinite(np.vdot(numbers, numbers)):
                return False
            seen[samples, frames] = True
        return True
