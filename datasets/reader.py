"""Datasets for torch's data loaders: lazy, bounded in memory, safe under fork and spawn."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.datasets.description import Description
from neuralop_kit.datasets.field_dataset import FieldDataset
from neuralop_kit.datasets.fletcher import CHECKSUM_BYTES
from neuralop_kit.datasets.lending import Batch, Lender
from neuralop_kit.datasets.manifest import Manifest, ShardEntry
from neuralop_kit.datasets.positioned import MAX_OPEN_FILES, read_pieces
from neuralop_kit.datasets.shard import Shard
from neuralop_kit.datasets.statistics import DatasetStatistics, FieldStatistics
from neuralop_kit.datasets.tasks import Steps, Task
from neuralop_kit.datasets.trajectory_shard import open_trajectories
from neuralop_kit.solvers.atomic import explained
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DataError

# Where the checksums of verified samples go; nobody looks at them.
NOWHERE = memoryview(bytearray(CHECKSUM_BYTES))


def open_folder(path: Path, split: str, task: Task | None) -> FieldDataset:
    """Open one split of a generated dataset, the folder that holds ``dataset.json``."""
    manifest = Manifest.load(path)
    if split not in manifest.splits:
        raise ArgumentError(f"expected a split among {list(manifest.splits)} of {path}, got {split!r}; take one")
    for entry in manifest.splits[split]:
        entry.check_size(path)
    return _open(path, manifest.description, manifest.splits[split], manifest.statistics, task)


def open_shard(path: Path, task: Task | None) -> FieldDataset:
    """Open a single shard."""
    shard = Shard(path)
    entry = ShardEntry(path.name, shard.num_samples, size=path.stat().st_size, sha256="")
    return _open(path.parent, shard.description, [entry], shard.statistics, task)


def _open(
    folder: Path,
    description: Description,
    entries: Sequence[ShardEntry],
    statistics: Mapping[str, FieldStatistics],
    task: Task | None,
) -> FieldDataset:
    """Pairs as they are stored, or as the task cuts them out of trajectories."""
    if description.times:
        return open_trajectories(folder, description, entries, statistics=statistics, task=task or Steps())
    if task is not None:
        raise ArgumentError(f"expected trajectories for {task}, got pairs of {description.name!r}; leave it out")
    return ShardDataset(folder, description, entries, DatasetStatistics.of(description, statistics))


class ShardDataset(FieldDataset):
    """Pairs ``(input, target)`` of a dataset of ours.

    Nothing is read before it is asked for, and no sample is kept: memory is that of two batches, used again when nobody
    holds a part of them, and of the places of the samples, 8 bytes per field each. The first
    time a process reads a sample, its checksum and finiteness are verified. Works with any number of loader workers.
    Forked ones share what is open, which is safe because reads carry their own position; spawned ones open their own.

    Attributes:
        description: equation, parameters, source; everything that is not numbers on a grid.
        statistics: of the training split, per channel, whichever split this is; None for a dataset without one.

    >>> import tempfile
    >>> from neuralop_kit.datasets import generate, open_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = open_dataset(generate("darcy", folder, samples=10, resolution=16), "test")
    ...     u, v = data[0]
    ...     inputs, targets = data.read([0])
    >>> data.input_names, data.target_names, u.shape, targets.shape
    (('permeability',), ('pressure',), torch.Size([1, 16, 16]), torch.Size([1, 1, 16, 16]))
    """

    def __init__(
        self,
        folder: Path,
        description: Description,
        entries: Sequence[ShardEntry],
        statistics: DatasetStatistics | None,
    ) -> None:
        self.description = description
        self.statistics = statistics
        self._folder = folder
        self._entries = tuple(entries)
        self._ends = np.array(list(accumulate(entry.samples for entry in entries)), dtype=np.int64)
        self._shards: dict[int, Shard] = {}
        self._recent: OrderedDict[int, Shard] = OrderedDict()
        self._known: _Known | None = None
        self._counts = (len(description.input_names), len(description.target_names))
        self._dtype = np.dtype(description.dtype)
        self._lender = Lender()

    @property
    def domain(self) -> Domain:
        """Where the functions live."""
        return self.description.domain

    @property
    def shape(self) -> tuple[int, ...]:
        """Points per axis."""
        return self.description.shape

    @property
    def input_names(self) -> tuple[str, ...]:
        """One per input channel."""
        return self.description.input_names

    @property
    def target_names(self) -> tuple[str, ...]:
        """One per target channel."""
        return self.description.target_names

    @property
    def units(self) -> dict[str, str]:
        """Unit of each field by name, ``"1"`` where it has none."""
        return dict(self.description.units)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch: inputs and targets, ``(batch, channel, *space)`` each, in the order of ``indices``.

        Raises:
            IndexError: an index is outside ``-len(self) ... len(self) - 1``.
            DataError, NonFiniteError: a file is damaged; the message names it.
        """
        samples = self._positions(indices)
        batch = self._lender.lend(len(samples), self._counts, self.shape, self._dtype)
        inputs, targets = batch.tensors()
        numbers = self._ends.searchsorted(samples, side="right")
        files, known = sorted(set(numbers.tolist())), self._tables()
        if 0 < len(files) <= MAX_OPEN_FILES and known.verified[samples].all():
            self._read_verified(known.offsets.take(samples, axis=1), numbers, files, batch)
            return inputs, targets
        out = [(0, inputs.numpy()), (inputs.shape[1], targets.numpy())]
        for number in files:
            rows = np.flatnonzero(numbers == number)
            first = self._ends[number] - self._entries[number].samples
            self._shard(number).read(samples[rows] - first, rows, out)
            self._close_old()
        return inputs, targets

    def _read_verified(
        self, places: NDArray[np.int64], numbers: NDArray[np.intp], files: Sequence[int], batch: Batch
    ) -> None:
        """Of samples that were looked at before: straight into the tensors, all files in one go."""
        with explained(DataError, f"to read {self._folder}"):
            if len(files) == 1:
                opened, owners = {0: self._shard(files[0]).opened()}, None
            else:
                opened = {number: self._shard(number).opened() for number in files}
                owners = np.concatenate([numbers] * len(places))
            read_pieces(opened, places.ravel(), batch.fields, owners=owners, behind=[NOWHERE] * len(batch.fields))
        self._close_old()

    def verify(self) -> None:
        """Compare every file with the manifest's sha256 and read every sample; raises at the first damage."""
        for number, entry in enumerate(self._entries):
            if entry.sha256:
                entry.verify(self._folder)
            self._shard(number).verify()
            self._close_old()

    def __getstate__(self) -> dict[str, Any]:
        # Open files stay with the process that opened them; another one looks for itself.
        return {**self.__dict__, "_shards": {}, "_recent": OrderedDict(), "_known": None, "_lender": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lender=Lender())

    def __repr__(self) -> str:
        fields = f"{', '.join(self.input_names)} -> {', '.join(self.target_names)}"
        return f"ShardDataset({self.description.name}: {len(self)} samples of {fields} on {self.shape}, {self.domain})"

    def _shard(self, number: int) -> Shard:
        shard = self._shards.get(number)
        if shard is None:
            shard = self._shards[number] = self._index(number)
        self._recent[number] = shard
        self._recent.move_to_end(number)
        return shard

    def _close_old(self) -> None:
        while len(self._recent) > MAX_OPEN_FILES:
            self._recent.popitem(last=False)[1].close()

    def _index(self, number: int) -> Shard:
        entry = self._entries[number]
        shard = Shard(self._folder / entry.file)
        if shard.description != self.description or shard.num_samples != entry.samples:
            raise DataError(
                f"expected {entry.samples} samples as described by the manifest in {shard.path}, "
                f"got {shard.num_samples} of {shard.description.name!r}; files were mixed up: generate again"
            )
        known, end = self._tables(), int(self._ends[number])
        part = slice(end - entry.samples, end)
        shard.keep_in(known.offsets[:, part], known.verified[part])
        return shard

    def _tables(self) -> "_Known":
        if self._known is None:
            shape = (len(self.description.field_names), len(self))
            self._known = _Known(np.zeros(shape, dtype=np.int64), np.zeros(len(self), dtype=bool))
        return self._known


class _Known(NamedTuple):
    """What is known of the samples of all shards that were opened.

    Args:
        offsets: where each begins in its file, ``(field, sample)``.
        verified: whether each has been looked at, ``(sample,)``.
    """

    offsets: NDArray[np.int64]
    verified: NDArray[np.bool_]
