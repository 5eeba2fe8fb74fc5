"""MATLAB files up to version 7: read by scipy, one variable at a time, after a look at what it declares."""

from typing import Any

import numpy as np
import scipy.io

from neuralop_kit.datasets.readers.container import Container, StoredArray
from neuralop_kit.datasets.safety import MAX_COMPRESSION
from neuralop_kit.solvers.errors import DataError

ITEM_BYTES = {
    "double": 8, "single": 4, "logical": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4,
    "int64": 8, "uint64": 8,
}  # fmt: skip


class MatlabContainer(Container):
    """A ``.mat`` file of version 5 to 7; places are names of variables. Version 7.3 is HDF5.

    Variables may be compressed as a whole, so that one that is asked for is kept in memory. Only arrays of numbers are
    read: no cells, structures, objects, function handles.
    """

    format = "MATLAB 5.0"
    damage = (Exception,)  # parsers of text and pickles raise anything

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        """MATLAB's text header."""
        return head.startswith(b"MATLAB 5.0")

    def names(self) -> tuple[str, ...]:
        """Variables that are arrays of numbers."""
        return tuple(sorted(name for name, (_, kind) in self._declared().items() if kind in ITEM_BYTES))

    def array(self, place: str) -> StoredArray:
        """One variable."""
        known = self.opened
        if place not in known:
            with self.explained():
                known[place] = self._load(place)
        return known[place]

    def _open(self) -> dict[str, Any]:
        return {}

    def _declared(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and class of every variable."""
        self.opened  # noqa: B018 - the file must be there
        with self.explained():
            return {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(str(self.path), appendmat=False)}

    def _load(self, place: str) -> Any:
        shape, kind = self._declared().get(place, ((), "nothing"))
        if kind not in ITEM_BYTES:
            raise DataError(f"expected numbers in variable {place!r} of {self.path}, got {kind}; it is not read")
        declared = float(np.prod(shape, dtype=float)) * ITEM_BYTES[kind]
        if min(shape, default=0) < 0 or declared > MAX_COMPRESSION * self.path.stat().st_size:
            raise DataError(f"expected {place!r} of {self.path} to fit into the file, got shape {shape}; its sizes lie")
        loaded = scipy.io.loadmat(
            str(self.path), appendmat=False, variable_names=[place], verify_compressed_data_integrity=True
        )
        array = loaded.get(place)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.shape != tuple(shape):
            raise DataError(
                f"expected numbers of shape {shape} in {place!r} of {self.path}, got {type(array).__name__}"
            )
        return array
