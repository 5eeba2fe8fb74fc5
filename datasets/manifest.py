"""``dataset.json``: what a folder holds, which shards make up which split, and what their bytes must be."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neuralop_kit.datasets.description import Description
from neuralop_kit.datasets.layout import FORMAT, FORMAT_VERSION
from neuralop_kit.datasets.statistics import FieldStatistics
from neuralop_kit.solvers.atomic import explained, write_bytes
from neuralop_kit.solvers.errors import DataError

MANIFEST = "dataset.json"
WELL_STATISTICS = "stats.yaml"
MAX_MANIFEST_BYTES = 2**28
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class ShardEntry:
    """One shard of a dataset: its path inside the folder, how many samples it holds, and its bytes."""

    file: str
    samples: int
    size: int
    sha256: str

    def verify(self, folder: Path) -> None:
        """Compare the file with this entry, reading all of it; a :class:`DataError` says what differs."""
        self.check_size(folder)
        with explained(DataError, f"to read {folder / self.file}"), (folder / self.file).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.sha256:
            raise DataError(
                f"expected sha256 {self.sha256} for {folder / self.file}, got {digest}; generate or fetch it again"
            )

    def check_size(self, folder: Path) -> None:
        """A :class:`DataError` when the file is missing or has another size."""
        with explained(DataError, f"to find {folder / self.file}"):
            size = (folder / self.file).stat().st_size
        if size != self.size:
            raise DataError(
                f"expected {self.size} bytes in {folder / self.file}, got {size}; generate or fetch it again"
            )


@dataclass(frozen=True)
class Manifest:
    """The content of ``dataset.json``.

    Args:
        description: what the fields are.
        generation: how they were made: seed, number of samples, versions; the same command compares it.
        splits: shards in order of their samples, by the name of the split.
        statistics: of the training split, by field; empty when there is none.
    """

    description: Description
    generation: Mapping[str, Any]
    splits: Mapping[str, tuple[ShardEntry, ...]]
    statistics: Mapping[str, FieldStatistics]

    def num_samples(self, split: str) -> int:
        """Samples in a split."""
        return sum(entry.samples for entry in self.splits[split])

    def save(self, folder: Path) -> None:
        """Write ``dataset.json`` atomically, and before it The Well's ``stats.yaml``; raises :class:`OSError`."""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "description": self.description.to_json(),
            "generation": dict(self.generation),
            "splits": {name: [asdict(entry) for entry in entries] for name, entries in self.splits.items()},
            "statistics": {name: part.to_json() for name, part in self.statistics.items()},
        }
        if self.statistics:
            write_bytes(folder / WELL_STATISTICS, _well_statistics(self.statistics).encode())
        write_bytes(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read ``dataset.json``.

        Raises:
            DataError: there is none, it is damaged, of a newer version, or names files outside the folder.
        """
        path = folder / MANIFEST
        with explained(DataError, f"to find a finished dataset with a {MANIFEST} in {folder}"):
            if path.stat().st_size > MAX_MANIFEST_BYTES:
                raise DataError(f"expected at most {MAX_MANIFEST_BYTES} bytes in {path}, got more; this is no manifest")
            content = path.read_bytes()
        try:
            document = json.loads(content)
            if document["format"] != FORMAT or document["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format {document['format']!r}, version {document['format_version']!r}")
            return cls(
                description=Description.from_json(document["description"]),
                generation=dict(document["generation"]),
                splits={_split(name): tuple(map(_entry, rows)) for name, rows in document["splits"].items()},
                statistics={name: FieldStatistics.from_json(row) for name, row in document["statistics"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataError(
                f"expected a manifest of {FORMAT!r}, version {FORMAT_VERSION}, got damage in {path} ({reason}); "
                "generate or fetch it again"
            ) from error


def _split(name: str) -> str:
    if name not in SPLITS:
        raise ValueError(f"split {name!r} is not among {SPLITS}")
    return name


def _entry(row: Mapping[str, Any]) -> ShardEntry:
    entry = ShardEntry(str(row["file"]), int(row["samples"]), int(row["size"]), str(row["sha256"]))
    path = Path(entry.file)
    if path.is_absolute() or ".." in path.parts or entry.samples < 1 or entry.size < 1:
        raise ValueError(f"entry {row!r} is not of a file inside the folder")
    if not re.fullmatch("[0-9a-f]{64}", entry.sha256):
        raise ValueError(f"entry {row!r} has no sha256")
    return entry


def _well_statistics(statistics: Mapping[str, FieldStatistics]) -> str:
    """The Well's statistics file, so that its own loader can normalize; steady fields have no differences in time."""
    lines = []
    for key in ("mean", "std", "rms"):
        # JSON strings are YAML strings; the exponent format is one that YAML 1.1 reads as a number.
        rows = [f"  {json.dumps(name)}: {getattr(part, key):.17e}" for name, part in statistics.items()]
        lines += [f"{key}:", *rows]
    lines += [f"{key}: {{}}" for key in ("mean_delta", "std_delta", "rms_delta")]
    return "\n".join(lines) + "\n"
