"""What a run leaves behind: one self-contained JSON file per entry, from which every table is made."""

import dataclasses
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Ratio, Spread

SCHEMA = "neuralop_kit.benchmarks/1"

OK = "ok"
FAILED = "failed"  # it ran, but an accuracy or a claim does not hold
ERROR = "error"  # it did not run


@dataclass(frozen=True)
class Side:
    """One side of a measurement: seconds per call, error, extra bytes at the peak; ``None`` where unknown."""

    seconds: Spread
    error: float | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Measurement:
    """One row of a comparison. ``order`` has one letter per sample: A is ours, B the peer."""

    measure: str
    ours: Side
    peer: Side | None
    ratio: Ratio | None
    accurate: bool | None
    order: str
    calls_per_sample: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class Record:
    """One entry, run once: what it was, where it ran, what came out."""

    kind: str
    name: str
    status: str
    message: str
    config: dict[str, Any]
    setting: dict[str, Any]
    environment: dict[str, Any]
    started: str
    seconds: float
    columns: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    schema: str = SCHEMA

    @property
    def group(self) -> str:
        """The table this record belongs to: its name without the last part."""
        return self.name.rsplit("/", 1)[0]

    def path_in(self, folder: Path) -> Path:
        """``folder/NAME.json``."""
        return folder / f"{self.name}.json"

    def save(self, folder: Path) -> Path:
        """Write :meth:`path_in` of the folder, atomically."""
        path = self.path_in(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        temporary.write_text(json.dumps(plain(self), indent=1, allow_nan=False) + "\n")
        temporary.replace(path)
        return path


def load_records(folder: Path) -> list[Record]:
    """All records of a folder, by name; files of another schema are refused.

    A folder inside of it that has records of its own, as ``results/latest`` has, keeps them.
    """
    records = []
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text())
        except ValueError as reason:
            raise ValueError(f"expected JSON in {path.name}, got something else ({reason}); delete it") from reason
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA!r} in {path.name}, got another file; move or delete it")
        record = Record(**content)
        if path == record.path_in(folder):
            records.append(record)
    return sorted(records, key=lambda record: record.name)


def plain(value: Any) -> Any:
    """A value in JSON's terms: dataclasses become objects, numbers that are not finite become text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def describe(value: Any) -> Any:
    """An entry's settings in JSON's terms; functions by name, nested dataclasses with their type."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = {item.name: describe(getattr(value, item.name)) for item in dataclasses.fields(value)}
        return {"type": type(value).__name__, **inside}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return plain(value)
    if isinstance(value, torch.dtype):
        return str(value)
    return name_of(value)


def name_of(value: Callable[..., Any] | Any) -> str:
    """A function's or class's qualified name; an object's type, since its repr may hold an address."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
