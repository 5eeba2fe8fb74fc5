"""An array of numbers that lies in a file in one piece: its parts are read where they are, without HDF5."""

import math
from itertools import product
from operator import mul
from typing import Any

import h5py
import numpy as np

from neuralop_kit.datasets.guarded import GuardedFile
from neuralop_kit.datasets.readers.contents import Numbers

# Many short runs are gathered faster by HDF5.
MIN_RUN_BYTES = 2**12


class ContiguousArray:
    """A dataset of HDF5 that is stored without chunks, filters or conversion.

    It is read by position, never mapped into memory: a file that is cut later is an error, not the end of the process.

    Args:
        file: where it is.
        data: the dataset, which reads what is too scattered for this class.
        place: of its first byte.

    Attributes:
        strides: bytes from an item to the next one, per axis.
    """

    def __init__(self, file: GuardedFile, data: h5py.Dataset, *, place: int) -> None:
        self.shape: tuple[int, ...] = data.shape
        self.dtype: np.dtype[Any] = data.dtype
        self.file, self._data, self.place = file, data, place
        self.strides = [math.prod(self.shape[axis + 1 :]) * self.dtype.itemsize for axis in range(len(self.shape))]

    @classmethod
    def of(cls, file: GuardedFile, data: h5py.Dataset) -> "ContiguousArray | None":
        """The same dataset, read like this; None where it is stored in any other way."""
        creation = data.id.get_create_plist()
        if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_nfilters() or creation.get_external_count():
            return None
        # The type must be numpy's own to the last bit: HDF5 also knows numbers with gaps and shifted exponents.
        if data.dtype.kind not in "iuf" or not data.id.get_type().equal(h5py.h5t.py_create(data.dtype)):
            return None
        place, size = data.id.get_offset(), math.prod(data.shape) * data.dtype.itemsize
        if not place or not data.shape or size != data.id.get_storage_size() or place + size > file.size:
            return None
        return cls(file, data, place=place)

    def __getitem__(self, index: tuple[slice | int, ...]) -> Numbers:
        """A part of it, in memory."""
        whole = index + (slice(None),) * (len(self.shape) - len(index))
        pairs = zip(whole, self.shape, strict=True)
        chosen = [range(n)[i : i + 1 or None] if isinstance(i, int) else range(n)[i] for i, n in pairs]
        shape = tuple(len(numbers) for numbers in chosen)
        # Of the last axes that are read whole, and of the neighbours on the axis before, one run is made.
        outer = len(shape)
        while outer and chosen[outer - 1] == range(self.shape[outer - 1]):
            outer -= 1
        outer -= bool(outer) and chosen[outer - 1].step == 1
        values = np.empty(shape, dtype=self.dtype)
        num_runs = math.prod(shape[:outer])
        if not values.size or (num_runs > 1 and values.nbytes < num_runs * MIN_RUN_BYTES):
            return np.asarray(self._data[index])
        first = self.place + (chosen[outer].start * self.strides[outer] if outer < len(shape) else 0)
        for run, numbers in zip(values.reshape(num_runs, -1).view(np.uint8), product(*chosen[:outer]), strict=True):
            self.file.read_at(first + sum(map(mul, numbers, self.strides)), run.data)
        return values.reshape([n for n, i in zip(shape, whole, strict=True) if not isinstance(i, int)])
