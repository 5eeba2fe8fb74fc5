"""HDF5's Fletcher-32 checksum of many chunks at once."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHECKSUM_BYTES = 4
_MODULUS = 65535
# So many products of two 16-bit numbers add up without rounding in float64.
_BLOCK = 2**20


def fletcher32(chunks: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Checksums of byte strings of equal, even length.

        s1 = sum_j w_j mod 65535,   s2 = sum_j (n - j) w_j mod 65535,   checksum = 65536 s2 + s1

    over the big-endian 16-bit words ``w_0 ... w_{n-1}`` of each string. Words are read as little-endian ones, which is
    faster: swapping the bytes of a word multiplies it by 256 modulo 65535. HDF5 reduces by folding and so may write
    65535 for 0; :func:`matches` treats both as equal.

    Shape: ``(..., num_bytes) -> (...)``.
    Source: Fletcher (1982); HDF5, H5checksum.c.
    """
    words = chunks.view("<u2")
    n = words.shape[-1]
    first: Any = np.zeros(words.shape[:-1])
    second: Any = np.zeros(words.shape[:-1])
    for start in range(0, n, _BLOCK):
        block = words[..., start : start + _BLOCK].astype(np.float64)
        first = (first + block.sum(axis=-1)) % _MODULUS
        second = (second + block @ _weights(n - start, block.shape[-1])) % _MODULUS
    first, second = first * 256 % _MODULUS, second * 256 % _MODULUS
    checksums: NDArray[np.uint32] = (second * 65536 + first).astype(np.uint32)
    return checksums


@lru_cache(maxsize=8)
def _weights(first: int, count: int) -> NDArray[np.float64]:
    """``first, first - 1, ...`` modulo 65535."""
    weights: NDArray[np.float64] = (np.arange(first, first - count, -1) % _MODULUS).astype(np.float64)
    weights.flags.writeable = False
    return weights


def matches(chunks: NDArray[np.uint8], stored: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether each chunk has the checksum that HDF5 stored for it."""
    halves = (stored >> 16) % _MODULUS * 65536 + (stored & 0xFFFF) % _MODULUS
    return np.equal(fletcher32(chunks), halves)
