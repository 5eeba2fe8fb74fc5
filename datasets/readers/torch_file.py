"""What ``torch.save`` writes: a dictionary of tensors, mapped into memory, never unpickled into anything else."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.datasets.readers.container import Container, StoredArray
from neuralop_kit.solvers.errors import DataError

MAX_PICKLE_BYTES = 2**22


class TorchContainer(Container):
    """A ``.pt`` file with a dictionary of tensors; places are its keys.

    Loaded with ``weights_only=True``; the archive is looked at first, since torch believes what it says about sizes.
    """

    format = "torch"
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
        _check_archive(self.path)
        content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(content, dict):
            raise DataError(
                f"expected a dictionary of tensors in {self.path}, got {type(content).__name__}; lists of samples of "
                "different shape are not fields on one grid"
            )
        size = self.path.stat().st_size
        return {k: _numbers(v, size, self.path) for k, v in content.items() if isinstance(k, str) and type(v) is Tensor}


def _numbers(tensor: Tensor, file_bytes: int, path: Path) -> Any:
    """A tensor as an array on the same memory, if it is what a file of this size can hold."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not dense or tensor.is_complex() or not tensor.is_contiguous() or tensor.nbytes > file_bytes:
        raise DataError(
            f"expected a plain tensor of real numbers in {path}, got {tuple(tensor.shape)} {tensor.dtype} "
            f"{tensor.layout} on {tensor.device}; save a contiguous copy of it"
        )
    wide = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.detach()
    return np.asarray(wide)


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    size = path.stat().st_size
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE_BYTES:
        raise DataError(f"expected an archive of torch.save with one small data.pkl in {path}, got {len(pickles)}")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise DataError(f"expected an archive as torch writes it in {path}, got compressed entries; it is not read")
    if sum(entry.file_size for entry in entries) > size:
        raise DataError(f"expected at most {size} bytes of content in {path}, got more; its sizes lie")
