"""A file for HDF5 that ends where it ends, and whose text heaps are looked at before HDF5 does."""

import io
import os
import struct
from pathlib import Path

from neuralop_kit.solvers.errors import DataError

HEAP_SIGNATURE = b"GCOL"
# Signature, version, size; then objects: index, number of references, size.
_HEAP_HEADER, _OBJECT_HEADER = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ")


class GuardedFile(io.RawIOBase):
    """What h5py is given instead of a path, so that every byte that HDF5 sees has passed through here.

    HDF5 2.0 walks through a heap of texts of variable length by the sizes that the heap itself states, and loops
    forever when one of them is zero. Such a heap is always read from its beginning, in one piece, so that it can be
    walked through first. A read beyond the end is an error, never zeros.

    Raises:
        DataError: nothing can be opened at ``path``, or a heap is damaged (at the read that meets it).

    Source: HDF5 file format specification 3.0, section III.E.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size
        self._place = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    @property
    def descriptor(self) -> int:
        """Of the open file, for reads at a place."""
        return self._descriptor

    def tell(self) -> int:
        """Where the next read begins."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move there."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fill all of ``buffer``."""
        target = memoryview(buffer).cast("B")
        self.read_at(self._place, target)
        if target[:4] == HEAP_SIGNATURE:
            _check_heap(target, self.path)
        self._place += len(target)
        return len(target)

    def read_at(self, place: int, target: memoryview) -> None:
        """Fill all of a buffer of bytes with numbers that begin at ``place``; their content is not looked at."""
        self.check(place, len(target))
        done = 0
        while done < len(target):
            count = os.preadv(self._descriptor, [target[done:]], place + done)
            if count == 0:
                raise DataError(f"expected {self.size} bytes in {self.path}, got fewer; it was cut while open")
            done += count

    def check(self, place: int, count: int) -> None:
        """Raise a :class:`DataError` unless there were so many bytes at ``place`` when the file was opened."""
        if not 0 <= place <= self.size - count:
            raise DataError(f"expected bytes up to {place + count} in {self.path}, got {self.size}")

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def __repr__(self) -> str:
        # h5py makes the name of the file from this, which its messages and ours show.
        return str(self.path)


def _check_heap(content: memoryview, path: Path) -> None:
    """Walk through a heap as HDF5 will; a first read that holds only part of it is followed by one of all of it."""
    damaged = DataError(f"expected intact text in {path}, got a damaged heap; fetch the file again")
    if len(content) < _HEAP_HEADER.size:
        raise damaged
    _, version, size = _HEAP_HEADER.unpack_from(content)
    if version != 1 or size < _HEAP_HEADER.size + _OBJECT_HEADER.size:
        raise damaged
    if size > len(content):
        return
    place = _HEAP_HEADER.size
    while place + _OBJECT_HEADER.size <= size:
        index, _, length = _OBJECT_HEADER.unpack_from(content, place)
        # The free space at the end has index zero and counts its own header; objects are padded to eight bytes.
        step = length if index == 0 else _OBJECT_HEADER.size + (length + 7) // 8 * 8
        if step < _OBJECT_HEADER.size or place + step > size:
            raise damaged
        place += step
