"""Our own trajectories, in the words in which files of others are read: tasks, cards and exports are the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralop_kit.datasets.description import Description
from neuralop_kit.datasets.fletcher import CHECKSUM_BYTES
from neuralop_kit.datasets.manifest import ShardEntry
from neuralop_kit.datasets.readers.contents import Contents, Numbers, Role, Variable
from neuralop_kit.datasets.readers.field_file import FieldFile
from neuralop_kit.datasets.readers.frame_places import DirectFrames, ListedPlaces
from neuralop_kit.datasets.readers.hdf5 import Hdf5Container
from neuralop_kit.datasets.shard import Shard
from neuralop_kit.datasets.statistics import DatasetStatistics, FieldStatistics
from neuralop_kit.datasets.task_dataset import TaskDataset
from neuralop_kit.datasets.tasks import Task
from neuralop_kit.solvers.errors import DataError

# The name of our layout, beside those of others.
LAYOUT = "neuralop_kit"


class TrajectoryShard(FieldFile):
    """One shard of trajectories: checked when first read, every frame verified once.

    Args:
        path: the file.
        description: what it must hold.
        num_samples: how many.
    """

    def __init__(self, path: Path, description: Description, *, num_samples: int) -> None:
        super().__init__(Hdf5Container(path), contents_of(description, num_samples=num_samples))
        self._description = description
        self._shard: Shard | None = None
        self._frames: DirectFrames | None = None

    def read(self, samples: range, frames: range, roles: Sequence[Role]) -> Numbers:
        """A block ``(sample, time, channel, *space)``; raises as :meth:`Shard.read`."""
        description, count = self._description, len(self._description.target_names)
        shape = (len(samples), len(frames), count if "state" in roles else 0, *description.shape)
        block = np.empty(shape, dtype=description.dtype)
        if block.size:
            places = np.add.outer(np.array(samples) * description.num_frames, np.array(frames)).ravel()
            rows = np.arange(len(places))
            self.shard.read(places, rows, [(0, block.reshape(-1, count, *description.shape))])
            self.release()
        return block

    def direct(self, roles: tuple[Role, ...]) -> DirectFrames | None:
        """Where the frames are, each with its checksum behind it."""
        shard, size = self.shard, self._description.field_bytes
        file = shard.opened()
        if self._frames is not None and self._frames.file == file:
            return self._frames
        shape = (shard.num_samples, self.num_frames)
        offsets = [part.reshape(shape) for part in shard.offsets]
        places = tuple(ListedPlaces(size, CHECKSUM_BYTES, part) for part in offsets)
        self._frames = DirectFrames(file, places, (shard.verified.reshape(shape),))
        return self._frames

    def release(self) -> None:
        """Close the file; a dataset may have thousands, and opening one again costs less than reading a frame."""
        if self._shard is not None:
            self._shard.close()

    @property
    def shard(self) -> Shard:
        """The open file."""
        if self._shard is None:
            shard = Shard(self.container.path)
            if shard.description != self._description or shard.num_samples != self.contents.num_samples:
                raise DataError(
                    f"expected {self.contents.num_samples} trajectories as described by the manifest in {shard.path}, "
                    f"got {shard.num_samples} of {shard.description.name!r}; files were mixed up: generate again"
                )
            self._shard = shard
        return self._shard

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_shard": None, "_frames": None}


def contents_of(description: Description, *, num_samples: int) -> Contents:
    """A description of ours as contents."""
    variables = tuple(
        Variable(name, "nt" + "xyzw"[: len(description.shape)], (f"t0_fields/{name}",), unit=description.units[name])
        for name in description.target_names
    )
    return Contents(
        layout=LAYOUT,
        name=description.name,
        equation=description.equation,
        domain=description.domain,
        shape=description.shape,
        variables=variables,
        num_samples=num_samples,
        num_frames=len(description.times),
        times=np.array(description.times),
        dtype=description.dtype,
        parameters=description.parameters,
    )


def open_trajectories(
    folder: Path,
    description: Description,
    entries: Sequence[ShardEntry],
    *,
    statistics: Mapping[str, FieldStatistics],
    task: Task,
) -> TaskDataset:
    """Pairs out of the trajectories of some shards."""
    files = [TrajectoryShard(folder / e.file, description, num_samples=e.samples) for e in entries]
    known = DatasetStatistics.of(description, statistics)
    channels = None if known is None else (known.target, known.input)
    return TaskDataset(files, [range(e.samples) for e in entries], task=task, statistics=channels)
