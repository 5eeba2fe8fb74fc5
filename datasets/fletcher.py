"""HDF5's Fletcher-32 checksum of many chunks at once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHECKSUM_BYTES = 4
_MODULUS = 65535
# Words are laid out in squares of this side, the largest of which a row or column adds up exactly in float32.
_SIDE = 256


def fletcher32(chunks: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Checksums of byte strings of equal, even length.

        s1 = sum_j w_j mod 65535,   s2 = sum_j (n - j) w_j mod 65535,   checksum = 65536 s2 + s1

    over the big-endian 16-bit words ``w_j`` of each string. With the words in rows of 256, ``j = 256 i + k``,
    ``s2 = sum_i (n - 256 i) row_i - sum_k k column_k``: sums of rows and columns are enough. Words are read as
    little-endian ones, which is faster: swapping the bytes of a word multiplies it by 256 modulo 65535. HDF5 reduces by
    folding and so may write 65535 for 0; :func:`matches` treats both as equal.

    No matrix product: its threads would get in each other's way in the processes of a data loader.

    Shape: ``(..., num_bytes) -> (...)``.
    Source: Fletcher (1982); HDF5, H5checksum.c.
    """
    words = chunks.view("<u2")
    lead, n = words.shape[:-1], words.shape[-1]
    first: Any = np.zeros(lead, dtype=np.int64)
    second: Any = np.zeros(lead, dtype=np.int64)
    for start in range(0, n, _SIDE**2):
        square = _rows(words[..., start : start + _SIDE**2])
        rows = np.einsum("...ik->...i", square).astype(np.int64)
        columns = np.einsum("...ik->...k", square).astype(np.int64)
        weights = (n - start - _SIDE * np.arange(square.shape[-2])) % _MODULUS
        first += rows.sum(axis=-1)
        second += (rows * weights).sum(axis=-1) % _MODULUS - (columns * np.arange(_SIDE)).sum(axis=-1)
    first, second = first * 256 % _MODULUS, second * 256 % _MODULUS
    checksums: NDArray[np.uint32] = (second * 65536 + first).astype(np.uint32)
    return checksums


def _rows(words: NDArray[np.uint16]) -> NDArray[np.float32]:
    """``(..., n) -> (..., rows, 256)``, zeros at the end."""
    lead, n = words.shape[:-1], words.shape[-1]
    rows = -(-n // _SIDE)
    square = np.empty((*lead, rows * _SIDE), dtype=np.float32)
    square[..., :n] = words
    square[..., n:] = 0.0
    return square.reshape(*lead, rows, _SIDE)


def matches(chunks: NDArray[np.uint8], stored: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether each chunk has the checksum that HDF5 stored for it."""
    halves = (stored >> 16) % _MODULUS * 65536 + (stored & 0xFFFF) % _MODULUS
    return np.equal(fletcher32(chunks), halves)
