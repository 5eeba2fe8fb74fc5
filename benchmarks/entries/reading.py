"""Reading a dataset from the page cache, against the raw sequential read of the same files and against plain h5py."""

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
    """The same bytes, in order, a batch at a time into fresh memory; nothing is looked at."""
    files = sorted(folder(case).rglob("*.hdf5"))
    size = case.batch * 2 * 4 * case.num_points**2

    def read(batches: Batches) -> None:
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(torch.empty(size, dtype=torch.uint8).numpy().data):  # the allocator that ours uses
                    pass

    return read


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
