"""How fast the datasets of reading.py can be read at all, into tensors that somebody keeps, and in any order.

The raw read of reading.py fills one buffer over and over, in order. Here the other side does what a reader must: it
makes tensors for each batch, and goes to each sample where it is. It is told the places, and looks at nothing.
"""

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks import Call, Comparison
from benchmarks.entries.reading import (
    IN_ORDER,
    PAIRS,
    SHUFFLED,
    SHUFFLED_PAIRS,
    Batches,
    ForeignCase,
    ReadCase,
    Reader,
    exactly,
    file_of,
    folder,
    foreign_exactly,
    foreign_ours,
    ours,
)
from neuralop_kit.datasets.shard import Shard


def raw_into_tensors(case: ReadCase) -> Callable[[Batches], None]:
    """The bytes of all files, in order, a batch at a time, each into a tensor of its own."""
    files = [path.open("rb", buffering=0) for path in sorted(folder(case).rglob("*.hdf5"))]
    numbers = case.batch * 2 * case.num_points**2

    def read(batches: Batches) -> None:
        for file in files:
            place, count = 0, 1
            while count:
                tensor = torch.empty(numbers)
                count = os.preadv(file.fileno(), [tensor.numpy().data.cast("B")], place)
                place += count

    return read


def sample_by_sample(case: ReadCase) -> Reader:
    """One read for each field, at places that are known, into tensors of each batch."""
    paths = sorted(folder(case).rglob("*.hdf5"))
    files = [path.open("rb", buffering=0) for path in paths]
    offsets = [Shard(path).offsets.T.tolist() for path in paths]
    places = [(file, u, v) for file, part in zip(files, offsets, strict=True) for u, v in part]
    size = 4 * case.num_points**2

    def read(batches: Batches) -> tuple[Tensor, ...]:
        for batch in batches:
            last = tuple(torch.empty(len(batch), 1, case.num_points, case.num_points) for _ in range(2))
            inputs, targets = (tensor.numpy().data.cast("B") for tensor in last)
            for start, index in zip(range(0, size * len(batch), size), batch, strict=True):
                file, u, v = places[index]
                os.preadv(file.fileno(), [inputs[start : start + size]], u)
                os.preadv(file.fileno(), [targets[start : start + size]], v)
        return last

    return read


def gathered(case: ForeignCase) -> Reader:
    """One look-up in a map of the file for the inputs and one for the targets; a file that is cut ends the process."""
    numbers = case.num_samples * case.num_frames * case.num_points
    start = file_of(case).read_bytes().find(first_frame(case))
    frames = np.memmap(file_of(case), np.float32, "r", start, (numbers,)).reshape(-1, case.num_points)
    frames = np.asarray(frames)

    def read(batches: Batches) -> tuple[Tensor, ...]:
        for batch in batches:
            pairs = np.asarray(batch)
            places = pairs + pairs // (case.num_frames - 1)
            last = tuple(torch.from_numpy(frames.take(places + k, axis=0)[:, None]) for k in range(2))
        return last

    return read


def first_frame(case: ForeignCase) -> bytes:
    """By whose bytes the array is found."""
    return next(iter(foreign_ours(case)(((0,),)))).numpy().tobytes()


IN_TENSORS, AT_PLACES, MAPPED = "raw sequential read, a tensor per batch", "bare reads", "numpy's look-up in a map"

FLOORS = [
    Comparison(
        name=f"datasets/reading_floors/{name}",
        ours=reader,
        peer=peer,
        peer_name=peer_name,
        case=case,
        measure=(Call(),),
        accuracy=accuracy(case),
        target=target,
    )
    for name, reader, peer, peer_name, case, accuracy, target in (
        ("512x128x128-in-order", ours, raw_into_tensors, IN_TENSORS, IN_ORDER, exactly, 0.8),
        ("512x128x128-shuffled", ours, sample_by_sample, AT_PLACES, SHUFFLED, exactly, 0.8),
        ("pdebench-1d-pairs-in-order", foreign_ours, gathered, MAPPED, PAIRS, foreign_exactly, None),
        ("pdebench-1d-pairs-shuffled", foreign_ours, gathered, MAPPED, SHUFFLED_PAIRS, foreign_exactly, None),
    )
]
