"""Pairs of fields, and whole trajectories, out of files of any public layout."""

from collections.abc import Sequence
from itertools import accumulate, count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.datasets.direct_pairs import Frames, Output, read_pairs
from neuralop_kit.datasets.field_dataset import FieldDataset
from neuralop_kit.datasets.lending import Batch, Lender
from neuralop_kit.datasets.pair_places import PairPlaces
from neuralop_kit.datasets.positioned import MAX_OPEN_FILES
from neuralop_kit.datasets.readers.contents import Contents, Numbers, Role
from neuralop_kit.datasets.readers.field_file import FieldFile
from neuralop_kit.datasets.readers.frame_places import DirectFrames
from neuralop_kit.datasets.statistics import ChannelStatistics, DatasetStatistics
from neuralop_kit.datasets.tasks import Task
from neuralop_kit.datasets.trajectories import TrajectoryDataset
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DataError

VERIFY_BYTES = 2**24

# Of a batch: row, and number of the pair in its sample.
Chosen = list[tuple[int, int]]
Indices = NDArray[np.int64]


class TaskDataset(FieldDataset):
    """Pairs ``(input, target)`` that a task cuts out of trajectories, or the pairs of a steady problem.

    Args:
        files: with the same channels on the same grid; trajectories may differ in length.
        samples: which samples of each file.
        task: which frames are given and which are asked for; has no meaning for a steady problem.
        statistics: that came with the files.

    Attributes:
        contents: of the first file: equation, parameters, assumptions and defects.
        trajectories: the same data as whole trajectories ``(time, channel, *space)``.

    Made by :func:`open_dataset`.
    """

    def __init__(
        self,
        files: Sequence[FieldFile],
        samples: Sequence[range],
        *,
        task: Task,
        statistics: tuple[ChannelStatistics, ChannelStatistics] | None = None,
    ) -> None:
        _check_alike(files)
        self.files, self.samples, self.task = tuple(files), tuple(samples), task
        self.contents: Contents = files[0].contents
        pairs = zip(self.files, self.samples, strict=True)
        self._pairs_each = [1 if self._steady else task.num_pairs(file.num_frames) for file in self.files]
        self._ends = np.array(list(accumulate(len(s) * k for (_, s), k in zip(pairs, self._pairs_each, strict=True))))
        self._tables: dict[int, tuple[Indices, Indices]] = {}
        self._pair_places: dict[int, tuple[DirectFrames, PairPlaces | None]] = {}
        self._lender = Lender()
        if not len(self):
            raise ArgumentError(
                f"expected a task that fits into {[file.num_frames for file in self.files][:8]} frames, got {task}; "
                "ask for fewer frames"
            )
        self._counts = (len(self.input_names), len(self.target_names))
        self.statistics = None if statistics is None else self._statistics(*statistics)

    @property
    def domain(self) -> Domain:
        """Where the functions live."""
        return self.contents.domain

    @property
    def shape(self) -> tuple[int, ...]:
        """Points per axis."""
        return self.contents.shape

    @property
    def input_names(self) -> tuple[str, ...]:
        """One per input channel; a state at several times is named once for each, oldest first."""
        if self._steady:
            return self.contents.channels("input", "state")
        given, _ = self.task.frames(0, self._longest)
        return self.contents.channels("state") * len(given) + self.contents.channels("input")

    @property
    def target_names(self) -> tuple[str, ...]:
        """One per target channel."""
        if self._steady:
            return self.contents.channels("target", "state")
        _, asked = self.task.frames(0, self._longest)
        return self.contents.channels("state") * len(asked)

    @property
    def units(self) -> dict[str, str]:
        """Unit of each field by name, ``"1"`` where it has none."""
        return self.contents.units

    @property
    def trajectories(self) -> "TrajectoryDataset":
        """Whole trajectories of the states."""
        return TrajectoryDataset(self.files, self.samples)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch: inputs and targets, ``(batch, channel, *space)`` each, in the order of ``indices``."""
        places = self._positions(indices)
        batch = self._lender.lend(len(places), self._counts, self.shape, np.dtype(self.contents.dtype))
        inputs, targets = batch.tensors()
        for number, rows in self._by_file(places):
            first = int(self._ends[number - 1]) if number else 0
            samples, pairs = np.divmod(places[rows] - first, self._pairs_each[number])
            samples += self.samples[number].start
            if not self._read_frames(batch, number, rows, samples, pairs):
                given, asked, file = inputs.numpy(), targets.numpy(), self.files[number]
                if not self._read_directly(given, asked, file, rows, samples, pairs):
                    self._read_by_sample(given, asked, file, rows, samples, pairs)
            if len(self.files) > MAX_OPEN_FILES:
                self.files[number].release()
        return inputs, targets

    def verify(self) -> None:
        """Read every frame of every sample once, in bounded memory."""
        for file, samples in zip(self.files, self.samples, strict=True):
            for block in blocks(file, samples, max_bytes=VERIFY_BYTES):
                file.read(*block, ("state", "input", "target"))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pair_places": {}, "_lender": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lender=Lender())

    def __repr__(self) -> str:
        fields = f"{', '.join(self.input_names)} -> {', '.join(self.target_names)}"
        return (
            f"TaskDataset({self.contents.layout}, {self.contents.name}: {len(self)} pairs {fields} on {self.shape}, "
            f"{self.domain})"
        )

    @property
    def _steady(self) -> bool:
        return self.contents.num_frames is None

    @property
    def _longest(self) -> int:
        return max(file.num_frames for file in self.files)

    def _by_file(self, places: Indices) -> list[tuple[int, Indices]]:
        """Number of each file that is needed, and the rows of a batch that come from it."""
        if len(self.files) == 1 and len(places):
            return [(0, np.arange(len(places)))]
        numbers = self._ends.searchsorted(places, side="right")
        return [(number, (numbers == number).nonzero()[0]) for number in sorted(set(numbers.tolist()))]

    def _read_frames(self, batch: Batch, number: int, rows: Indices, samples: Indices, pairs: Indices) -> bool:
        """Fill rows with pairs of states of one file, if they are as simple as they can be; False otherwise."""
        source = None if self._steady or self.contents.of_role("input") else self.files[number].direct(("state",))
        if source is None:
            return False
        known = self._pair_places.get(number)
        if known is None or known[0] is not source:
            known = source, PairPlaces.of(source, *self._frames(self.files[number].num_frames))
            self._pair_places[number] = known
        fields, count = batch.fields, batch.rows
        if len(rows) < count:
            fields = [fields[first + row] for first in range(0, len(fields), count) for row in rows.tolist()]
        return known[1] is not None and known[1].read(fields, batch.dtype, samples, pairs)

    def _read_directly(
        self, given: Numbers, asked: Numbers, file: FieldFile, rows: Indices, samples: Indices, pairs: Indices
    ) -> bool:
        """Fill rows with pairs of one file, where its frames lie in one piece each; False if they do not."""
        if self._steady:
            zero = np.zeros((len(rows), 1), dtype=np.int64)
            wanted: Any = ([(("input", "state"), zero)], [(("target", "state"), zero)])
        else:
            before, after = (table[pairs] for table in self._frames(file.num_frames))
            wanted = ([(("state",), before), (("input",), before[:, -1:])], [(("state",), after)])
        outputs = []
        for array, parts in zip((given, asked), wanted, strict=True):
            known = [(file.direct(roles), frames) for roles, frames in parts if self.contents.of_role(*roles)]
            outputs.append(Output(array, [Frames(source, frames) for source, frames in known if source is not None]))
            if len(outputs[-1].parts) < max(1, len(known)):
                return False
        return read_pairs(outputs, rows.tolist(), samples)

    def _frames(self, num_frames: int) -> tuple[Indices, Indices]:
        """Which frames every pair of so long a trajectory has."""
        if num_frames not in self._tables:
            self._tables[num_frames] = self.task.table(num_frames)
        return self._tables[num_frames]

    def _read_by_sample(
        self, given: Numbers, asked: Numbers, file: FieldFile, rows: Indices, samples: Indices, pairs: Indices
    ) -> None:
        """Fill rows with pairs of one file, whatever it is."""
        chosen: dict[int, Chosen] = {}
        for row, sample, pair in zip(rows.tolist(), samples.tolist(), pairs.tolist(), strict=True):
            chosen.setdefault(sample, []).append((row, pair))
        fill = self._fill_steady if self._steady else self._fill
        for sample, some in chosen.items():
            fill(given, asked, file, range(sample, sample + 1), some)

    def _fill_steady(self, given: Numbers, asked: Numbers, file: FieldFile, one: range, chosen: Chosen) -> None:
        rows = [row for row, _ in chosen]
        given[rows] = file.read(one, range(1), ("input", "state"))[0]
        asked[rows] = file.read(one, range(1), ("target", "state"))[0]

    def _fill(self, given: Numbers, asked: Numbers, file: FieldFile, one: range, chosen: Chosen) -> None:
        cuts = [(row, *self.task.frames(pair, file.num_frames)) for row, pair in chosen]
        states = _Frames(file, one, {k for _, before, after in cuts for k in (*before, *after)}, "state")
        for row, before, after in cuts:
            states.copy(before, given[row])
            states.copy(after, asked[row])
        if self.contents.of_role("input"):
            inputs = _Frames(file, one, {before[-1] for _, before, _ in cuts}, "input")
            for row, before, _ in cuts:
                inputs.copy(before[-1:], given[row, len(before) * states.num_channels :])

    def _statistics(self, states: ChannelStatistics, inputs: ChannelStatistics) -> DatasetStatistics:
        """Those of the channels of a pair."""
        repeats = (len(self.input_names) - len(inputs.mean)) // max(1, len(states.mean))
        given = ChannelStatistics(states.mean * repeats + inputs.mean, states.std * repeats + inputs.std)
        repeats = len(self.target_names) // max(1, len(states.mean))
        return DatasetStatistics(given, ChannelStatistics(states.mean * repeats, states.std * repeats), {})


class _Frames:
    """Some frames of one sample in memory; neighbours are read together, each frame once."""

    def __init__(self, file: FieldFile, one: range, frames: set[int], role: Role) -> None:
        runs: list[range] = []
        self.places = {k: place for place, k in enumerate(sorted(frames))}
        for k in self.places:
            if runs and k == runs[-1].stop:
                runs[-1] = range(runs[-1].start, k + 1)
            else:
                runs.append(range(k, k + 1))
        blocks = [file.read(one, run, (role,))[0] for run in runs]
        self.block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        self.num_channels = self.block.shape[1]

    def copy(self, frames: range, channels: Numbers) -> None:
        """Put frames into the first channels of an array ``(channel, *space)``, one after the other."""
        for first, k in zip(count(0, self.num_channels), frames, strict=False):
            channels[first : first + self.num_channels] = self.block[self.places[k]]


def blocks(file: FieldFile, samples: range, *, max_bytes: int) -> "list[tuple[range, range]]":
    """Blocks of samples and frames that cover a file, each of about ``max_bytes`` and at least one frame."""
    frame = np.dtype(file.contents.dtype).itemsize * int(np.prod(file.contents.shape, dtype=object))
    frame *= max(1, sum(variable.num_components for variable in file.contents.variables))
    per_block = max(1, max_bytes // frame)
    if per_block >= file.num_frames:
        step = per_block // file.num_frames
        return [(samples[k : k + step], range(file.num_frames)) for k in range(0, len(samples), step)]
    starts = range(0, file.num_frames, per_block)
    parts = [range(k, min(k + per_block, file.num_frames)) for k in starts]
    return [(samples[k : k + 1], part) for k in range(len(samples)) for part in parts]


def _check_alike(files: Sequence[FieldFile]) -> None:
    first = files[0].contents
    for file in files[1:]:
        other = file.contents
        same = other.channels("state", "input", "target") == first.channels("state", "input", "target")
        if not same or other.shape != first.shape or other.dtype != first.dtype:
            raise DataError(
                f"expected files with equal channels and grids, got {first.shape} in {files[0].container.path} and "
                f"{other.shape} in {file.container.path}; open them one by one"
            )
