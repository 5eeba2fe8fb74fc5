"""Numpy's ``.npy``: one array; its header is read, its numbers stay in the file until they are asked for."""

from typing import Any

import numpy as np

from neuralop_kit.datasets.readers.container import Container, StoredArray
from neuralop_kit.solvers.errors import DataError

MAX_HEADER = 10_000


class NumpyContainer(Container):
    """A ``.npy`` file; its one place is ``"u"``. Arrays of Python objects are pickles, and refused."""

    format = "npy"
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
        # A map is refused by the system when the header declares more than the file has.
        array = np.load(self.path, mmap_mode="r", allow_pickle=False, max_header_size=MAX_HEADER)
        if not isinstance(array, np.memmap) or array.dtype.kind not in "biuf":
            raise DataError(f"expected real numbers in {self.path}, got {array.dtype}; it is not read")
        return array
