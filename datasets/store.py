"""Writing one shard so that a killed process loses at most the sample it was working on.

    1. Samples are appended to a journal beside the shards, one record and one checksum each (see journal.py).
    2. When the last one is there, the HDF5 file is made in memory, ``complete`` last (see layout.py).
    3. It is written under a temporary name, synced, renamed, and the folder is synced (see atomic.py).
    4. The journal is removed.

A writer that finds a journal goes on behind its last whole record; one that finds the shard has nothing to do. The
shard's bytes depend on its samples only, not on how often the writer was killed.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from neuralop_kit.datasets.description import Description
from neuralop_kit.datasets.journal import Journal
from neuralop_kit.datasets.layout import shard_image
from neuralop_kit.datasets.manifest import ShardEntry
from neuralop_kit.datasets.shard import Shard
from neuralop_kit.datasets.statistics import Array, FieldStatistics
from neuralop_kit.solvers.atomic import explained, reached, write_bytes
from neuralop_kit.solvers.errors import DataError, NeuralopKitError, NonFiniteError, ShapeError

# Folder of journals inside the dataset's; it is there as long as the dataset is unfinished.
UNFINISHED = "unfinished"


class ShardWriter:
    """Collects samples and turns them into one HDF5 file.

    Args:
        folder: of the dataset.
        file: where the shard goes, relative to ``folder``; missing folders are made.
        description: what the fields are.
        num_samples: how many samples the shard will have.
        generator: how they are made, anything JSON can hold. It identifies the shard: a journal that was begun with
            another one is not continued.
        notes: more that goes into the file and does not identify it, such as versions.

    Raises:
        DataError: the folder cannot be written, the disk is full, or another process writes this shard.

    >>> import tempfile
    >>> from neuralop_kit import Domain
    >>> units = {"u": "1", "v": "1"}
    >>> description = Description("double", "v = 2 u", Domain.periodic((1.0,)), (4,), ("u",), ("v",), units)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ShardWriter(Path(folder), "one.hdf5", description, num_samples=2, generator={"seed": 0}) as writer:
    ...         for k in range(2):
    ...             writer.append(np.full((2, 4), k, dtype=np.float32))
    ...         entry, statistics = writer.finish()
    >>> entry.samples, statistics["u"].mean
    (2, 0.5)
    """

    def __init__(
        self,
        folder: Path,
        file: str,
        description: Description,
        *,
        num_samples: int,
        generator: Mapping[str, Any],
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = folder / file
        self.description = description
        self.num_samples = num_samples
        self._folder, self._file = folder, file
        self._identity = shard_identity(description, num_samples, generator)
        self._generator = {**generator, **(notes or {}), "identity": self._identity}
        journal = folder / UNFINISHED / ("-".join(Path(file).with_suffix("").parts) + ".journal")
        with explained(DataError, f"to write into {folder}"):
            journal.parent.mkdir(parents=True, exist_ok=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._journal = Journal(
                journal, identity=bytes.fromhex(self._identity), record_bytes=description.sample_bytes
            )

    @property
    def num_done(self) -> int:
        """Samples that are safe already."""
        return min(self._journal.num_records, self.num_samples)

    def append(self, sample: Array) -> None:
        """Add one sample ``(field, [time,] *space)``, inputs before targets, in the dtype of the description.

        Raises:
            ShapeError: wrong shape or dtype.
            NonFiniteError: NaN or infinity.
            DataError: the disk is full or gone.
        """
        shape = (len(self.description.field_names), *self.description.sample_shape)
        if sample.shape != shape or sample.dtype.name != self.description.dtype:
            raise ShapeError(
                f"expected a {self.description.dtype} sample of shape {shape}, got {sample.dtype} {sample.shape}; "
                "cast or reshape it"
            )
        if not np.isfinite(sample).all():
            raise NonFiniteError(f"expected finite numbers, got NaN or infinity for {self.path}; check the solver")
        with explained(DataError, f"to write {self.path}"):
            self._journal.append(sample.tobytes())

    def finish(self) -> tuple[ShardEntry, dict[str, FieldStatistics]]:
        """Write the file; returns its entry for the manifest and the statistics of its fields."""
        if self.num_done < self.num_samples:
            raise DataError(
                f"expected {self.num_samples} samples for {self.path}, got {self.num_done}; append the rest"
            )
        fields = self._fields()
        weights = self.description.domain.weights(self.description.shape).double().numpy()
        frames = (-1, *self.description.shape)
        statistics = {name: FieldStatistics.of(values.reshape(frames), weights) for name, values in fields.items()}
        image = shard_image(self.description, fields, statistics=statistics, generator=self._generator)
        with explained(DataError, f"to write {self.path}"):
            write_bytes(self.path, image)
            reached("shard in place")
            self._journal.remove()
        with suppress(OSError):
            (self._folder / UNFINISHED).rmdir()  # if nothing else is unfinished there
        digest = hashlib.sha256(image).hexdigest()
        return ShardEntry(self._file, self.num_samples, len(image), digest), statistics

    def _fields(self) -> dict[str, Array]:
        names, shape = self.description.field_names, self.description.sample_shape
        samples = np.empty((len(names), self.num_samples, *shape), dtype=self.description.dtype)
        for i in range(self.num_samples):
            record = np.frombuffer(self._journal.read(i), dtype=self.description.dtype)
            samples[:, i] = record.reshape(len(names), *shape)
        return dict(zip(names, samples, strict=True))

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()


def shard_identity(description: Description, num_samples: int, generator: Mapping[str, Any]) -> str:
    """Sixty-four hexadecimal digits that say which samples a shard holds."""
    content = [description.to_json(), num_samples, dict(generator)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finished_shard(folder: Path, file: str, identity: str) -> tuple[ShardEntry, dict[str, FieldStatistics]] | None:
    """Entry and statistics of a shard that is there already, or None: missing, damaged in any byte, or another one."""
    path = folder / file
    if not path.exists():
        return None
    try:
        shard = Shard(path)
        if shard.generator.get("identity") != identity:
            return None
        shard.verify()
        content = path.read_bytes()
    except (NeuralopKitError, OSError):
        return None
    return ShardEntry(file, shard.num_samples, len(content), hashlib.sha256(content).hexdigest()), shard.statistics
