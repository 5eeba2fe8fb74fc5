"""Whole trajectories out of files of any layout."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neuralop_kit.datasets.lending import Lender
from neuralop_kit.datasets.positioned import read_run
from neuralop_kit.datasets.readers.field_file import FieldFile
from neuralop_kit.solvers.errors import ArgumentError


class TrajectoryDataset(Dataset[Tensor]):
    """Whole trajectories ``(time, channel, *space)`` of the states, one per item.

    Args:
        files, samples: as for :class:`TaskDataset`.
    """

    def __init__(self, files: Sequence[FieldFile], samples: Sequence[range]) -> None:
        self.files, self.samples = tuple(files), tuple(samples)
        self.contents = files[0].contents
        self.names = self.contents.channels("state")
        if self.contents.num_frames is None:
            raise ArgumentError(f"expected a problem in time, got {self.contents.name}, which is steady; use its pairs")
        self._ends = list(accumulate(len(s) for s in samples))
        self._lender = Lender()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Tensor:
        """One trajectory."""
        number, sample = self._find(index)
        file, sample = self.files[number], self.samples[number].start + sample
        source = file.direct(("state",))
        # What has been looked at and lies in one piece goes straight into the tensor.
        place = source.variables[0].run(sample) if source is not None and len(source.variables) == 1 else None
        if source is None or place is None or not source.all_seen(sample, slice(None)):
            block = file.read(range(sample, sample + 1), range(file.num_frames), ("state",))
            return torch.from_numpy(block[0])
        # One field of a batch of one: the whole trajectory.
        shape = (file.num_frames, len(self.names), *self.contents.shape)
        room = self._lender.lend(1, [1], shape, np.dtype(self.contents.dtype))
        (u,) = room.tensors()
        read_run(source.file, room.fields, place, len(room.fields[0]))
        return u[0, 0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lender": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lender=Lender())

    def times(self, index: int) -> Tensor:
        """Times of the frames of one trajectory, float64, ``(time,)``."""
        number, sample = self._find(index)
        times: Any = self.files[number].contents.times
        row = times if times.ndim == 1 else times[self.samples[number][sample]]
        return torch.from_numpy(np.array(row, dtype=np.float64))

    def _find(self, index: int) -> tuple[int, int]:
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index}")
        number = bisect_right(self._ends, place)
        return number, place - (self._ends[number - 1] if number else 0)
