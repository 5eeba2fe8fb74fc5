"""Memory for batches that is used again as soon as nobody holds a tensor in it, and never before."""

import math
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Tensors begin at multiples of this, as torch's own do.
ALIGNMENT = 64
# One batch that is being looked at, one that is being read.
MAX_KEPT = 2


class Batch:
    """Room for some tensors ``(rows, count, *shape)`` side by side in one piece of memory.

    Args:
        rows: samples.
        counts: channels of each tensor.
        shape: points per axis.
        dtype: of all of them.

    Attributes:
        key: what it was made from.
        fields: the bytes of each field: tensor by tensor, channel by channel, row by row.
    """

    def __init__(self, rows: int, counts: Sequence[int], shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.key = (rows, tuple(counts), tuple(shape), dtype)
        self.rows, self.dtype = rows, dtype
        self._shapes = [(rows, count, *shape) for count in counts]
        field, starts = math.prod(shape) * dtype.itemsize, [0]
        for count in counts:
            starts.append(-(-(starts[-1] + rows * count * field) // ALIGNMENT) * ALIGNMENT)
        self._memory = np.empty(starts.pop() + ALIGNMENT, dtype=np.uint8)
        first = -self._memory.ctypes.data % ALIGNMENT
        self._starts = [first + start for start in starts]
        content = self._memory.data
        self.fields = [
            content[place : place + field]
            for start, count in zip(self._starts, counts, strict=True)
            for channel in range(start, start + count * field, field)
            for place in range(channel, channel + rows * count * field, count * field)
        ]
        self._idle_count = self._count()

    @property
    def is_free(self) -> bool:
        """Whether nothing but this object leads to the memory.

        A tensor's storage, and so its views, numpy's views of it and what a graph has saved, keeps the array alive that
        it was made from, which is counted here. Who holds none of them cannot come by one.
        """
        return self._count() == self._idle_count

    def tensors(self) -> list[Tensor]:
        """New tensors in this memory, each with a storage of its own."""
        places = zip(self._shapes, self._starts, strict=True)
        return [torch.from_numpy(np.ndarray(shape, self.dtype, self._memory, start)) for shape, start in places]

    def _count(self) -> int:
        return sys.getrefcount(self._memory)


class Lender(threading.local):
    """Lends out room for batches, and keeps the last two that it made, for each thread its own.

    New memory costs more than a call: the system clears every page of it, which takes longer than to read the file.

    >>> lender, shape = Lender(), ((2, [1, 1], (8,), np.dtype("float32")))
    >>> u, v = lender.lend(*shape).tensors()
    >>> u.data_ptr() == lender.lend(*shape).tensors()[0].data_ptr()
    False
    >>> place, row = u.data_ptr(), v[1]
    >>> del u, v
    >>> place == lender.lend(*shape).tensors()[0].data_ptr()   # for the row is still there
    False
    """

    def __init__(self) -> None:
        self._kept: list[Batch] = []

    def lend(self, rows: int, counts: Sequence[int], shape: Sequence[int], dtype: np.dtype[Any]) -> Batch:
        """Room that is free; make tensors in it before the next call."""
        key = (rows, tuple(counts), tuple(shape), dtype)
        for batch in self._kept:
            if batch.key == key and batch.is_free:
                return batch
        self._kept = [*self._kept[1 - MAX_KEPT :], Batch(rows, counts, shape, dtype)]
        return self._kept[-1]
