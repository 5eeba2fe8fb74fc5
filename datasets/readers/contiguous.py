"""An array of numbers that lies in a file in one piece: its parts are read where they are, without any library."""

import math
from collections.abc import Sequence
from itertools import product
from operator import mul
from typing import Any

import h5py
import numpy as np

from neuralop_kit.datasets.guarded import GuardedFile
from neuralop_kit.datasets.readers.contents import Numbers

# Runs at most so far apart are read with what is between them: that takes less time than another call.
NEAR_BYTES = 2**15
# Room for such a read.
BLOCK_BYTES = 2**18


class ContiguousArray:
    """Numbers side by side in a file, the last axis fastest.

    They are read by position, never mapped into memory. A file that is cut later is then an error and not the end of
    the process, and rows in random order are fetched from a disk as they are, not each with all that is around it.

    Args:
        file: where it is.
        shape, dtype: of the whole array.
        place: of its first byte.

    Attributes:
        strides: bytes from an item to the next one, per axis.

    Raises:
        DataError: it does not fit into the file.
    """

    def __init__(self, file: GuardedFile, *, shape: Sequence[int], dtype: np.dtype[Any], place: int) -> None:
        self.file, self.shape, self.dtype, self.place = file, tuple(shape), dtype, place
        file.check(place, math.prod(shape) * dtype.itemsize)
        self.strides = [math.prod(self.shape[axis + 1 :]) * dtype.itemsize for axis in range(len(self.shape))]

    @classmethod
    def of(cls, file: GuardedFile, data: h5py.Dataset) -> "ContiguousArray | None":
        """A dataset of HDF5 that is stored without chunks, filters or conversion; None for any other."""
        creation = data.id.get_create_plist()
        if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_nfilters() or creation.get_external_count():
            return None
        # The type must be numpy's own to the last bit: HDF5 also knows numbers with gaps and shifted exponents.
        if data.dtype.kind not in "iuf" or not data.id.get_type().equal(h5py.h5t.py_create(data.dtype)):
            return None
        place, size = data.id.get_offset(), math.prod(data.shape) * data.dtype.itemsize
        if not place or not data.shape or size != data.id.get_storage_size() or place + size > file.size:
            return None
        return cls(file, shape=data.shape, dtype=data.dtype, place=place)

    def __getitem__(self, index: tuple[slice | int, ...]) -> Numbers:
        """A part of it, in memory; steps are positive."""
        whole = index + (slice(None),) * (len(self.shape) - len(index))
        pairs = zip(whole, self.shape, strict=True)
        chosen = [range(k := range(n)[i], k + 1) if isinstance(i, int) else range(n)[i] for i, n in pairs]
        values = np.empty([len(numbers) for numbers in chosen], dtype=self.dtype)
        if values.size:
            self._fill(values, chosen)
        return values.reshape([n for n, i in zip(values.shape, whole, strict=True) if not isinstance(i, int)])

    def _fill(self, values: Numbers, chosen: Sequence[range]) -> None:
        # Of the last axes that are read whole, and of the neighbours on the axis before, one run is made.
        outer = len(chosen)
        while outer and chosen[outer - 1] == range(self.shape[outer - 1]):
            outer -= 1
        outer -= bool(outer) and chosen[outer - 1].step == 1
        near = outer
        for axis in reversed(range(outer)):
            if len(chosen[axis]) > 1:
                if self.strides[axis] * chosen[axis].step > NEAR_BYTES:
                    break
                near = axis
        starts = (self.place + sum(map(mul, numbers, self.strides)) for numbers in product(*chosen[:near]))
        for start, part in zip(starts, values.reshape(-1, 1, *values.shape[near:]), strict=True):
            if near < outer:
                self._pick(part[0], start, chosen[near:])
            else:
                first = chosen[outer].start * self.strides[outer] if outer < len(chosen) else 0
                self.file.read_at(start + first, _bytes(part))

    def _pick(self, values: Numbers, start: int, chosen: Sequence[range]) -> None:
        """Fill an array with a part of what begins at ``start``, of which a block at a time is read."""
        axis = len(self.shape) - len(chosen)
        stride, (head, *rest) = self.strides[axis], chosen
        inner = [slice(numbers.start, numbers.stop, numbers.step) for numbers in rest]
        count = max(1, BLOCK_BYTES // (stride * head.step))
        for k in range(0, len(head), count):
            some = head[k : k + count]
            block = np.empty((some[-1] - some[0] + 1, *self.shape[axis + 1 :]), dtype=self.dtype)
            self.file.read_at(start + some[0] * stride, _bytes(block))
            values[k : k + count] = block[(slice(None, None, head.step), *inner)]


def _bytes(values: Numbers) -> memoryview:
    return values.reshape(-1).view(np.uint8).data
