"""Opening an HDF5 file from a stranger: nothing outside it is read, and nothing is believed about its size."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from neuralop_kit.datasets.guarded import GuardedFile
from neuralop_kit.solvers.atomic import explained
from neuralop_kit.solvers.errors import DataError, NeuralopKitError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_OBJECTS = 10_000
MAX_ATTRIBUTE_BYTES = 2**20
# The best that deflate can do is about 1032 to 1; what claims more is a bomb.
MAX_COMPRESSION = 1100

KINDS = {bool: "a boolean", int: "an integer", float: "a number", bytes: "text of fixed length"}

# Everything that h5py is known to raise when a file is damaged.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError, OverflowError)


@contextmanager
def open_safely(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, after a look at every object in it; later damage is a :class:`DataError` too.

    Refused are: links that leave the file or the tree (soft, external), external storage, virtual datasets, types other
    than numbers, booleans and text, and datasets that declare more than the file can hold.

    Raises:
        DataError: ``path`` is no regular file, no HDF5 file, is damaged, or holds something refused.
    """
    path = Path(path)
    with explained(DataError, f"to read {path}"):
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a device or pipe" if path.exists() else "nothing"
            raise DataError(f"expected an HDF5 file at {path}, got {what}; check the path")
        with path.open("rb") as file:
            if file.read(len(SIGNATURE)) != SIGNATURE:
                raise DataError(f"expected an HDF5 file, got other content in {path}; it may be cut or of another kind")
    with damage_explained(path), GuardedFile(path) as guarded, h5py.File(guarded, "r") as file:
        _check_tree(file, path.stat().st_size)
        yield file


@contextmanager
def damage_explained(path: str | Path) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into a :class:`DataError`."""
    try:
        yield
    except NeuralopKitError:
        raise
    except DAMAGE as reason:
        text = " ".join(str(reason).split())
        raise DataError(
            f"expected an intact HDF5 file, got damage in {path} ({type(reason).__name__}: {text}); "
            "make it or fetch it again"
        ) from reason


def attribute(item: h5py.Group | h5py.Dataset, name: str, kind: type) -> Any:
    """An attribute of the expected kind: ``bool``, ``int``, ``float``, or ``bytes`` for text of fixed length.

    Text of variable length is refused without a look at it: HDF5 can hang on a damaged heap of such texts.

    Raises:
        DataError: it is missing, too large, or of another kind.
    """
    if name not in item.attrs:
        raise DataError(f"expected attribute {name!r} at {item.name} of {item.file.filename}, got none; not our layout")
    stored = item.attrs.get_id(name)
    if stored.get_storage_size() > MAX_ATTRIBUTE_BYTES:
        raise DataError(f"expected a small attribute {name!r} at {item.name} of {item.file.filename}, got a huge one")
    found = str(stored.dtype)
    if stored.dtype.kind in "biufS" and stored.shape == ():
        value = item.attrs[name].item()
        if type(value) is kind:
            return value
        found = type(value).__name__
    raise DataError(
        f"expected {KINDS[kind]} as attribute {name!r} at {item.name} of {item.file.filename}, got {found}; "
        "the file was changed or comes from elsewhere"
    )


def _check_tree(file: h5py.File, file_bytes: int) -> None:
    seen: set[Any] = set()
    waiting: list[h5py.Group] = [file]
    while waiting:
        group = waiting.pop()
        for name in group:
            key = name.encode("utf-8", "surrogateescape")
            if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise DataError(
                    f"expected plain data, got a link at {group.name}/{name} of {file.filename}; "
                    "links are not followed: copy what it points to into the file"
                )
            item = h5py.h5o.open(group.id, key)
            address = h5py.h5o.get_info(item).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MAX_OBJECTS:
                raise DataError(f"expected at most {MAX_OBJECTS} objects, got more in {file.filename}; not our layout")
            if isinstance(item, h5py.h5g.GroupID):
                waiting.append(h5py.Group(item))
            elif isinstance(item, h5py.h5d.DatasetID):
                check_dataset(h5py.Dataset(item), file_bytes)
            else:
                raise DataError(f"expected groups and datasets, got another object, {name!r}, in {file.filename}")


def check_dataset(data: h5py.Dataset, file_bytes: int) -> None:
    """Refuse a dataset that lies outside the file, is no array of numbers or text, or cannot be as large as it says."""
    where = f"{data.name} of {data.file.filename}"
    if data.external is not None:
        raise DataError(f"expected data inside the file, got external storage at {where}; it is not read")
    if data.is_virtual:
        raise DataError(f"expected data inside the file, got a virtual dataset at {where}; it is not read")
    if data.dtype.kind not in "biuf" and h5py.check_string_dtype(data.dtype) is None:
        raise DataError(f"expected numbers, booleans or text, got type {data.dtype} at {where}; it is not read")
    if data.shape is None:
        raise DataError(f"expected an array, got an empty dataset at {where}; it is not read")
    declared = math.prod(data.shape) * data.dtype.itemsize
    stored = data.id.get_storage_size()
    packed = data.compression is not None or data.scaleoffset is not None
    limit = MAX_COMPRESSION * stored if packed else stored
    if declared > limit or stored > file_bytes:
        raise DataError(
            f"expected {declared} bytes as declared by shape {data.shape} at {where}, got {stored} stored in a file of "
            f"{file_bytes}; the shape lies or the file is incomplete"
        )
