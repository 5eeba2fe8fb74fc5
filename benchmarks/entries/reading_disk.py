"""Reading a dataset that is not in the page cache: a later epoch on data larger than memory.

Before each pass the system is asked to forget the files, which it does for those on a disk of this machine, and not for
those in memory. The raw read goes over the bytes of the same files in order, a quarter of a MiB at a time.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import Setting, Study
from benchmarks.entries.reading import (
    ForeignCase,
    ReadCase,
    file_of,
    folder,
    foreign_ours,
    ours,
    read_raw,
)
from benchmarks.entry import Row

PIECE_BYTES = 2**18


@dataclass(frozen=True)
class DiskSize:
    """How much is read, how often."""

    samples: int
    trajectories: int
    repeats: int


def forget(files: Sequence[Path]) -> None:
    """Have the system drop its copies of files, which are on the disk by then."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(files: Sequence[Path], work: Callable[[], object]) -> float:
    """Of one pass that finds nothing in memory."""
    forget(files)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_from_disk(size: DiskSize, setting: Setting) -> Iterator[Row]:
    """Every case in alternation with the raw read of its files."""
    for shuffled in (False, True):
        own = ReadCase(num_samples=size.samples, num_points=128, shuffled=shuffled)
        whole, pairs = (
            ForeignCase(num_samples=size.trajectories, pairs_per_batch=count, shuffled=shuffled) for count in (0, 32)
        )
        cases = [
            ("ours, 128 x 128, batches of 16", sorted(folder(own).rglob("*.hdf5")), ours(own), own),
            ("PDEBench, trajectories of 201 x 1024", [file_of(whole)], foreign_ours(whole), whole),
            ("PDEBench, pairs of 1024, batches of 32", [file_of(pairs)], foreign_ours(pairs), pairs),
        ]
        for name, files, reader, case in cases:
            (batches,) = case.inputs(torch.Generator().manual_seed(setting.seed))
            works = partial(read_raw, files, PIECE_BYTES), partial(reader, batches)
            spent = [[seconds(files, work) for work in works] for _ in range(size.repeats)]
            raw, own_time = (statistics.median(column) for column in zip(*spent, strict=True))
            megabytes = sum(path.stat().st_size for path in files) / 1e6
            yield {
                "data": f"{name}, {'shuffled' if shuffled else 'in order'}", "MB": megabytes,
                "MB/s raw": megabytes / raw, "MB/s ours": megabytes / own_time, "ours to raw": raw / own_time,
            }  # fmt: skip


DISK = Study(
    name="datasets/reading_from_disk",
    run=read_from_disk,
    columns=("data", "MB", "MB/s raw", "MB/s ours", "ours to raw"),
    quick=DiskSize(samples=512, trajectories=64, repeats=3),
    full=DiskSize(samples=2048, trajectories=256, repeats=5),
    caption="A pass over data that are on the disk and not in the page cache, against the raw sequential read of their "
    "files. Pairs hold every frame twice, which is read once from the disk. 0.8 is promised for what is read in order; "
    "shuffled, the disk has to go to every sample by itself.",
)
