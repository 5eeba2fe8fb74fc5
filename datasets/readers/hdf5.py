"""HDF5 files from strangers: each object is checked before it is used, nothing outside the file is followed."""

import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuralop_kit.datasets.guarded import GuardedFile
from neuralop_kit.datasets.readers.container import Container, StoredArray
from neuralop_kit.datasets.readers.contiguous import ContiguousArray
from neuralop_kit.datasets.safety import MAX_ATTRIBUTE_BYTES, SIGNATURE, check_dataset
from neuralop_kit.solvers.errors import DataError

# MATLAB puts a block of its own in front.
USER_BLOCK = 512
MAX_CHUNK_BYTES = 2**30
MAX_DEPTH = 16


class Hdf5Container(Container):
    """An HDF5 file; places are paths such as ``"t0_fields/density"``."""

    format = "HDF5"
    copies = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            self.has_user_block = file.read(len(SIGNATURE)) != SIGNATURE
        self._checked: set[str] = set()
        # Of the file that is open now.
        self._arrays: dict[str, StoredArray] = {}

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        """The signature at 0, or behind MATLAB's block."""
        return head.startswith(SIGNATURE) or head[USER_BLOCK:].startswith(SIGNATURE)

    def names(self, place: str = "/") -> tuple[str, ...]:
        """Names in a group."""
        group = self.item(place)
        if not isinstance(group, h5py.Group):
            raise DataError(f"expected a group at {place} of {self.path}, got a dataset; the file was changed")
        with self.explained():
            return tuple(sorted(group))

    def has(self, place: str, kind: type = h5py.Dataset) -> bool:
        """Whether there is a dataset (or a group) at ``place``, reached through plain links."""
        with self.explained():
            group: Any = self.opened
            for part in place.split("/"):
                if not _holds(group, part):
                    return False
                self._check_link(group, part)
                group = group[part]
            return isinstance(group, kind)

    def array(self, place: str) -> StoredArray:
        """The dataset at ``place``."""
        if not self._is_open or place not in self._arrays:
            item = self.item(place)
            if not isinstance(item, h5py.Dataset):
                raise DataError(f"expected a dataset at {place} of {self.path}, got a group; the file was changed")
            with self.explained():
                self._arrays[place] = ContiguousArray.of(self._guard, item) or item
        return self._arrays[place]

    def item(self, place: str) -> Any:
        """A group or dataset, every link on the way checked, the dataset too."""
        with self.explained():
            if place not in self._checked:
                self._check(place)
                self._checked.add(place)
            return self.opened[place]

    def attribute(self, place: str, name: str, default: Any = None) -> Any:
        """An attribute as Python's own type: a number, a boolean, text, or a list of these."""
        item = self.item(place)
        with self.explained():
            if name not in item.attrs:
                return default
            stored = item.attrs.get_id(name)
            if stored.shape is None:
                return default
            if math.prod(stored.shape) * stored.dtype.itemsize > MAX_ATTRIBUTE_BYTES:
                raise DataError(f"expected a small attribute {name!r} at {place} of {self.path}, got a huge one")
            if stored.dtype.kind not in "biufS" and h5py.check_string_dtype(stored.dtype) is None:
                return default
            return plain(item.attrs[name])

    def number(self, place: str, name: str, default: float = np.nan) -> float:
        """An attribute that is one number, also when it is stored as an array of one."""
        value = np.ravel(self.attribute(place, name, default))
        return float(value[0]) if value.size == 1 and value.dtype.kind in "biuf" else default

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        self._arrays = {}
        super().close()

    def __getstate__(self) -> Mapping[str, Any]:
        return {**super().__getstate__(), "_arrays": {}, "_guard": None}

    def _open(self) -> h5py.File:
        self._arrays = {}
        self._guard = GuardedFile(self.path)
        file = h5py.File(self._guard, "r")
        # HDF5 closes its files after Python's end, and would then call what is not there any more.
        weakref.finalize(self, file.close)
        return file

    def _check(self, place: str) -> None:
        group, parts = self.opened, [part for part in place.split("/") if part]
        if len(parts) > MAX_DEPTH:
            raise DataError(f"expected at most {MAX_DEPTH} groups inside each other, got {place} in {self.path}")
        for part in parts:
            if not _holds(group, part):
                raise DataError(f"expected {place} in {self.path}, got none; it is cut or of another layout")
            self._check_link(group, part)
            group = group[part]
        if isinstance(group, h5py.Dataset):
            check_dataset(group, self.path.stat().st_size)
            if group.chunks and np.prod(group.chunks, dtype=float) * group.dtype.itemsize > MAX_CHUNK_BYTES:
                raise DataError(f"expected chunks below {MAX_CHUNK_BYTES} bytes, got {group.chunks} at {place}")

    def _check_link(self, group: h5py.Group, name: str) -> None:
        if group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type != h5py.h5l.TYPE_HARD:
            raise DataError(
                f"expected plain data, got a link at {group.name}/{name} of {self.path}; links are not followed: copy "
                "what it points to into the file"
            )


def _holds(group: Any, name: str) -> bool:
    """Whether a group has a link of this name; unlike ``in``, this does not follow it."""
    return (
        isinstance(group, h5py.Group) and name != "." and group.id.links.exists(name.encode("utf-8", "surrogateescape"))
    )


def plain(value: Any) -> Any:
    """A numpy scalar or array, or text in bytes, as Python's own types."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()] if value.ndim else plain(value.item())
    return plain(value.item()) if isinstance(value, np.generic) else value


def texts(value: Any) -> list[str]:
    """A list of str: from one text, from a list, or from the array of numbers that h5py makes of an empty list."""
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [item for item in values if isinstance(item, str)]
