"""What ``torch.save`` writes: a dictionary of tensors, read where they are, never unpickled into anything else."""

import struct
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.datasets.guarded import GuardedFile
from neuralop_kit.datasets.readers.container import Container, StoredArray
from neuralop_kit.datasets.readers.contents import Numbers
from neuralop_kit.datasets.readers.contiguous import ContiguousArray
from neuralop_kit.solvers.errors import DataError

MAX_PICKLE_BYTES = 2**22
LOCAL_HEADER_BYTES = 30


class TorchContainer(Container):
    """A ``.pt`` file with a dictionary of tensors; places are its keys.

    Loaded with ``weights_only=True``; the archive is looked at first, since torch believes what it says about sizes.
    """

    format = "torch"
    copies = True
    damage = (Exception,)  # parsers of text and pickles raise anything

    @classmethod
    def recognizes(cls, head: bytes) -> bool:
        """A zip archive."""
        return head.startswith(b"PK\x03\x04")

    def names(self) -> tuple[str, ...]:
        """Keys of tensors."""
        return tuple(sorted(self.opened))

    def array(self, place: str) -> StoredArray:
        """One tensor."""
        if place not in self.opened:
            raise DataError(f"expected a tensor {place!r} in {self.path}, got {list(self.opened)[:8]}")
        return self.opened[place]

    def _open(self) -> dict[str, Any]:
        file = GuardedFile(self.path)
        records = _records(file)
        # Tensors without memory, which know where theirs is in the file. Torch would swap the bytes that they lack.
        reader: Any = torch.PyTorchFileReader(str(self.path))
        if reader.has_record("byteorder") and reader.get_record("byteorder") != sys.byteorder.encode():
            raise DataError(f"expected numbers in this machine's order of bytes in {self.path}, got others")
        content = torch.load(self.path, map_location="meta", weights_only=True)
        if not isinstance(content, dict):
            raise DataError(
                f"expected a dictionary of tensors in {self.path}, got {type(content).__name__}; lists of samples of "
                "different shape are not fields on one grid"
            )
        tensors = {k: v for k, v in content.items() if isinstance(k, str) and type(v) is Tensor}
        return {k: _stored(v, file, records) for k, v in tensors.items()}


class BrainFloats:
    """An array of bfloat16, of which numpy knows nothing, as float32.

    Args:
        words: the upper halves of the numbers, as unsigned integers of two bytes.
    """

    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, words: ContiguousArray) -> None:
        self._words, self.shape = words, words.shape

    def __getitem__(self, index: tuple[slice | int, ...]) -> Numbers:
        """A part of it, in memory."""
        return (self._words[index].astype(np.uint32) << 16).view(np.float32)


def _stored(tensor: Tensor, file: GuardedFile, records: Mapping[int, int]) -> StoredArray:
    """Where a tensor is in the file, if it is a plain one that is there."""
    plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()
    if not plain or not tensor.is_contiguous():
        raise DataError(
            f"expected a plain tensor of real numbers in {file.path}, got {tuple(tensor.shape)} {tensor.dtype} "
            f"{tensor.layout}; save a contiguous copy of it"
        )
    storage: Any = tensor.untyped_storage()
    start, size = storage._checkpoint_offset, storage.nbytes()
    first = tensor.storage_offset() * tensor.element_size()
    if records.get(start) != size or first + tensor.nbytes > size:
        raise DataError(
            f"expected {size} bytes of a tensor at {start} of {file.path}, got others; save it once more with torch"
        )
    wide = tensor.dtype == torch.bfloat16
    dtype = np.dtype(np.uint16) if wide else torch.empty(0, dtype=tensor.dtype).numpy().dtype
    array = ContiguousArray(file, shape=tensor.shape, dtype=dtype, place=start + first)
    return BrainFloats(array) if wide else array


def _records(file: GuardedFile) -> dict[int, int]:
    """The size of each record of an archive, by where its content begins."""
    with zipfile.ZipFile(file.path) as archive:
        entries = archive.infolist()
        pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE_BYTES:
            raise DataError(f"expected an archive of torch.save with one small data.pkl, got {len(pickles)}")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise DataError(f"expected an archive as torch writes it in {file.path}, got compressed entries")
        if sum(entry.file_size for entry in entries) > file.size:
            raise DataError(f"expected at most {file.size} bytes in {file.path}, got more; its sizes lie")
    records = {}
    for entry in entries:
        # The lengths of two more texts, which are not always those in the directory.
        file.seek(entry.header_offset + LOCAL_HEADER_BYTES - 4)
        texts = sum(struct.unpack("<HH", file.read(4)))
        records[entry.header_offset + LOCAL_HEADER_BYTES + texts] = entry.file_size
    return records
