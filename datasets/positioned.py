"""Many small reads at given places, of which neighbours become one."""

import os
from collections.abc import Sequence

# The system takes no more buffers, and returns no more bytes, from one call.
MAX_BUFFERS = 1024
MAX_BYTES = 2**31 - 2**13


def read_adjacent(descriptor: int, places: Sequence[int], buffers: Sequence[memoryview]) -> int:
    """Fill two buffers from each place, a block and what follows it, with one call for blocks that lie side by side.

    Reads at a place, unlike seek and read, can share a descriptor with forked processes.

    Args:
        descriptor: of an open file.
        places: where the blocks begin, in any order.
        buffers: two for each place; all pairs have the same sizes.

    Returns:
        how many bytes were read; fewer than asked for if the file ends early.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     _ = file.write(b"one.two!six?")
    ...     file.flush()
    ...     parts = [memoryview(bytearray(n)) for n in (3, 1, 3, 1)]
    ...     read_adjacent(file.fileno(), [8, 4], parts), [bytes(part) for part in parts]
    (8, [b'six', b'?', b'two', b'!'])
    """
    if not places:
        return 0
    step = len(buffers[0]) + len(buffers[1])
    longest = min(MAX_BUFFERS // 2, max(1, MAX_BYTES // step))
    done, batch, begin, end = 0, list[memoryview](), 0, -1
    for k in sorted(range(len(places)), key=places.__getitem__):
        if places[k] != end or len(batch) == 2 * longest:
            done += os.preadv(descriptor, batch, begin) if batch else 0
            batch, begin, end = [], places[k], places[k]
        batch += buffers[2 * k : 2 * k + 2]
        end += step
    return done + os.preadv(descriptor, batch, begin)
