"""Numpy's ``.npy``: one array; its header is read, its numbers stay in the file until they are asked for."""

from typing import Any

import numpy as np

from neuralop_kit.datasets.guarded import GuardedFile
from neuralop_kit.datasets.readers.container import Container, StoredArray
from neuralop_kit.datasets.readers.contents import Numbers
from neuralop_kit.datasets.readers.contiguous import ContiguousArray
from neuralop_kit.solvers.errors import DataError

MAX_HEADER = 10_000
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NumpyContainer(Container):
    """A ``.npy`` file; its one place is ``"u"``. Arrays of Python objects are pickles, and refused."""

    format = "npy"
    copies = True
    damage = (Exception,)  # parsers of text raise anything

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        """Numpy's magic."""
        return head.startswith(b"\x93NUMPY")

    def names(self) -> tuple[str, ...]:
        """The one."""
        return ("u",)

    def array(self, place: str) -> StoredArray:
        """The array."""
        if place != "u":
            raise DataError(f"expected the place 'u', got {place!r}; a .npy file holds one array")
        return self.opened

    def _open(self) -> Any:
        file = GuardedFile(self.path)
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise DataError(f"expected version 1.0 or 2.0 of the format in {self.path}, got {version}; it is not read")
        shape, is_reversed, dtype = HEADERS[version](file, max_header_size=MAX_HEADER)
        if dtype.kind not in "biuf" or min(shape, default=1) < 1:
            raise DataError(f"expected real numbers in {self.path}, got {dtype} {shape}; it is not read")
        stored = shape[::-1] if is_reversed else shape
        array = ContiguousArray(file, shape=stored, dtype=dtype, place=file.tell())
        return ReversedArray(array) if is_reversed else array


class ReversedArray:
    """An array that is stored with its axes in the reverse order, the first one fastest.

    Args:
        array: as it is stored.
    """

    def __init__(self, array: ContiguousArray) -> None:
        self._array, self.shape, self.dtype = array, array.shape[::-1], array.dtype

    def __getitem__(self, index: tuple[slice | int, ...]) -> Numbers:
        """A part of it, in memory."""
        whole = index + (slice(None),) * (len(self.shape) - len(index))
        return self._array[whole[::-1]].T
