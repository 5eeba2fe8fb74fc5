"""Reading a dataset from the page cache, against the raw sequential read of the same files and against plain h5py.

The raw read is ``preadv`` of the files' bytes in order, a batch at a time into one buffer that was made before and is
written over: nothing is allocated, nothing is looked at, nothing is delivered. Ours fills tensors that callers keep.
Pairs deliver every frame twice, as input and as target; there the raw read also goes over the file twice, so that both
sides move the bytes that are delivered.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from benchmarks import AgainstReference, Call, Comparison
from neuralop_kit import Domain
from neuralop_kit.datasets import FieldDataset, Problem, Samples, generate, open_dataset


class Noise(Problem):
    """White noise: nothing to solve, nothing to compress."""

    name = "noise"
    equation = "v = 2 u"
    source = "this benchmark"
    domain = Domain.periodic((1.0, 1.0))
    input_names = ("u",)
    target_names = ("v",)
    units = {"u": "1", "v": "1"}  # noqa: RUF012
    parameters = {}  # noqa: RUF012

    def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
        """One field per generator."""
        u = torch.stack([torch.randn(1, *shape, generator=generator) for generator in generators])
        return Samples(u, 2 * u, torch.ones(len(u), dtype=torch.bool))


@dataclass(frozen=True)
class ReadCase:
    """One pass over the dataset in batches, in order or shuffled."""

    num_samples: int
    num_points: int
    batch: int = 16
    shuffled: bool = False

    def inputs(self, generator: torch.Generator) -> tuple[tuple[tuple[int, ...], ...]]:
        """The batches, as tuples of indices."""
        shuffled = torch.randperm(self.num_samples, generator=generator)
        order = (shuffled if self.shuffled else torch.arange(self.num_samples)).split(self.batch)
        return (tuple(tuple(indices.tolist()) for indices in order),)


Batches = tuple[tuple[int, ...], ...]
Reader = Callable[[Batches], tuple[Tensor, ...]]


@cache
def folder_of(num_samples: int, num_points: int) -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """Files on disk, written once per size, and the handle that removes them at exit."""
    handle = tempfile.TemporaryDirectory()
    path = generate(Noise(), handle.name, samples=num_samples, resolution=num_points, splits={"train": 1.0})
    return path, handle


def folder(case: ReadCase) -> Path:
    """Where the files are."""
    return folder_of(case.num_samples, case.num_points)[0]


def one_pass(data: FieldDataset, batches: Batches) -> tuple[Tensor, ...]:
    """Reads everything, keeps the last batch."""
    for batch in batches:
        last = data.read(batch)
    return last


def ours(case: ReadCase) -> Reader:
    """Every epoch but the first: the dataset is open, its samples have been verified."""
    data = open_dataset(folder(case))
    one_pass(data, case.inputs(torch.Generator())[0])
    return lambda batches: one_pass(data, batches)


def first_pass(case: ReadCase) -> Reader:
    """The first epoch: files are opened, checksums and finiteness of all samples verified."""
    return lambda batches: one_pass(open_dataset(folder(case)), batches)


def raw(case: ReadCase) -> Callable[[Batches], None]:
    """The bytes of all files, in order, a batch at a time."""
    files = sorted(folder(case).rglob("*.hdf5"))
    return lambda batches: read_raw(files, case.batch * 2 * 4 * case.num_points**2)


def read_raw(files: Sequence[Path], size: int, *, passes: int = 1) -> None:
    """Every file from its beginning to its end, ``size`` bytes at a time into one buffer."""
    buffer = raw_buffer(size)
    for path in list(files) * passes:
        with path.open("rb", buffering=0) as file:
            place = 0
            while count := os.preadv(file.fileno(), [buffer], place):
                place += count


@cache
def raw_buffer(size: int) -> bytearray:
    """Made once."""
    return bytearray(size)


def plain_h5py(case: ReadCase) -> Reader:
    """Sample by sample through HDF5's own checksum filter, as most loaders do it; files stay open."""
    files = [h5py.File(path, "r", locking=False) for path in sorted(folder(case).rglob("*.hdf5"))]
    shards = [file["t0_fields"] for file in files]
    places = [(shard, row) for shard in shards for row in range(len(shard["u"]))]

    def read(batches: Batches) -> tuple[Tensor, ...]:
        for batch in batches:
            last = tuple(
                torch.from_numpy(np.stack([places[i][0][name][places[i][1]] for i in batch])[:, None])
                for name in Noise.input_names + Noise.target_names
            )
        return last

    return read


def exactly(case: ReadCase) -> AgainstReference:
    """The last batch, by plain h5py; not one bit may differ."""
    return AgainstReference(lambda batches: plain_h5py(case)(batches[-1:]), tolerance=0.0)


IN_ORDER, SHUFFLED = ReadCase(num_samples=512, num_points=128), ReadCase(num_samples=512, num_points=128, shuffled=True)

READING = [
    Comparison(
        name=f"datasets/reading/512x128x128-{label}",
        ours=reader,
        peer=raw,
        peer_name="raw sequential read",
        case=case,
        measure=(Call(),),
        accuracy=exactly(case),
        target=target,
    )
    for label, reader, case, target in (
        ("in-order", ours, IN_ORDER, 0.8),
        ("shuffled", ours, SHUFFLED, 0.8),
        ("first-pass-verified", first_pass, IN_ORDER, None),
    )
]

AGAINST_H5PY = Comparison(
    name="datasets/reading/512x128x128-shuffled-h5py",
    ours=ours,
    peer=plain_h5py,
    peer_name="h5py, sample by sample",
    case=SHUFFLED,
    measure=(Call(),),
    accuracy=exactly(SHUFFLED),
)


@dataclass(frozen=True)
class ForeignCase:
    """One pass over a file in a layout of PDEBench, as pairs of neighbouring frames or as whole trajectories."""

    num_samples: int
    num_frames: int = 201
    num_points: int = 1024
    pairs_per_batch: int = 0
    shuffled: bool = False

    def inputs(self, generator: torch.Generator) -> tuple[Batches]:
        """The batches, as tuples of indices of trajectories, one by one, or of pairs."""
        count = self.num_samples * (self.num_frames - 1 if self.pairs_per_batch else 1)
        order = torch.randperm(count, generator=generator) if self.shuffled else torch.arange(count)
        return (tuple(tuple(part.tolist()) for part in order.split(max(1, self.pairs_per_batch))),)


@cache
def foreign_file(num_samples: int, num_frames: int, num_points: int) -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """A travelling wave as PDEBench stores it: one array without chunks or filters."""
    handle = tempfile.TemporaryDirectory()
    path = Path(handle.name) / "1D_Advection_Sols_beta0.4.hdf5"
    x, t = (torch.arange(num_points) + 0.5) / num_points, 0.01 * torch.arange(num_frames)
    phases = torch.arange(float(num_samples))[:, None, None]
    with h5py.File(path, "w") as file:
        file["tensor"] = torch.sin(2 * torch.pi * (x - 0.4 * t[:, None]) + phases).numpy()
        file["x-coordinate"], file["t-coordinate"] = x.numpy(), t.numpy()
        file.attrs["beta"] = 0.4
    return path, handle


def file_of(case: ForeignCase) -> Path:
    """Where the file is."""
    return foreign_file(case.num_samples, case.num_frames, case.num_points)[0]


def foreign_ours(case: ForeignCase) -> Reader:
    """Every epoch but the first, in which every number has been looked at."""
    data = open_dataset(file_of(case))
    data.verify()
    if case.pairs_per_batch:
        return lambda batches: one_pass(data, batches)
    trajectories = data.trajectories

    def read(batches: Batches) -> tuple[Tensor, ...]:
        for (index,) in batches:
            last = trajectories[index]
        return (last,)

    return read


def foreign_raw(case: ForeignCase) -> Callable[[Batches], None]:
    """The bytes of the file, in order, a trajectory at a time; twice for pairs."""
    passes = 2 if case.pairs_per_batch else 1
    return lambda batches: read_raw([file_of(case)], 4 * case.num_frames * case.num_points, passes=passes)


def foreign_h5py(case: ForeignCase) -> Reader:
    """Item by item with h5py; the file stays open, nothing is looked at."""
    array = h5py.File(file_of(case), "r", locking=False)["tensor"]

    def read(batches: Batches) -> tuple[Tensor, ...]:
        for batch in batches:
            if not case.pairs_per_batch:
                last: tuple[Tensor, ...] = (torch.from_numpy(array[batch[0]])[:, None],)
                continue
            places = [divmod(index, case.num_frames - 1) for index in batch]
            frames = torch.from_numpy(np.stack([array[sample, k : k + 2] for sample, k in places]))
            last = (frames[:, :1], frames[:, 1:])
        return last

    return read


def foreign_exactly(case: ForeignCase) -> AgainstReference:
    """The last batch, by plain h5py; not one bit may differ."""
    return AgainstReference(lambda batches: foreign_h5py(case)(batches[-1:]), tolerance=0.0)


WHOLE = ForeignCase(num_samples=64)
# Frames of 4 KiB, in which the interpreter takes most of the time, and of 256 KiB, as of a field of 256 x 256.
PAIRS, SHUFFLED_PAIRS = (
    ForeignCase(num_samples=64, pairs_per_batch=32, shuffled=shuffled) for shuffled in (False, True)
)
LARGE, SHUFFLED_LARGE = (
    ForeignCase(num_samples=8, num_frames=33, num_points=2**16, pairs_per_batch=8, shuffled=shuffled)
    for shuffled in (False, True)
)

FOREIGN = [
    Comparison(
        name=f"datasets/reading/pdebench-1d-{label}",
        ours=foreign_ours,
        peer=peer,
        peer_name=peer_name,
        case=case,
        measure=(Call(),),
        accuracy=foreign_exactly(case),
        target=target,
    )
    for label, case, peer, peer_name, target in (
        ("trajectories", WHOLE, foreign_raw, "raw sequential read", 0.8),
        ("trajectories-h5py", WHOLE, foreign_h5py, "h5py, item by item", None),
        ("pairs-in-order", PAIRS, foreign_raw, "raw sequential read", None),
        ("pairs-shuffled", SHUFFLED_PAIRS, foreign_raw, "raw sequential read", None),
        ("large-pairs-in-order", LARGE, foreign_raw, "raw sequential read", 0.8),
        ("large-pairs-shuffled", SHUFFLED_LARGE, foreign_raw, "raw sequential read", 0.8),
        ("pairs-in-order-h5py", PAIRS, foreign_h5py, "h5py, item by item", None),
        ("pairs-shuffled-h5py", SHUFFLED_PAIRS, foreign_h5py, "h5py, item by item", None),
    )
]
