"""Finding entries: every `Comparison` or `Study`, alone or in a list or tuple, at the top of a file in a folder."""

import fnmatch
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from benchmarks.entry import Comparison, Entry, Study

ENTRIES = Path(__file__).parent / "entries"


@dataclass
class Found:
    """Entries by name, and files that could not be imported with the reason."""

    entries: dict[str, Entry] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def discover(folder: Path = ENTRIES) -> Found:
    """Import every file of the folder and collect its entries; a file that fails to import does not hide the others."""
    found = Found()
    for path in sorted(folder.glob("*.py")):
        if path.stem == "__init__":
            continue
        try:
            module = load(path)
        except Exception:
            found.broken[path.name] = traceback.format_exc(limit=-1).strip()
            continue
        for entry in entries_of(module):
            if entry.name in found.entries and found.entries[entry.name] is not entry:
                raise ValueError(f"expected unique names, got {entry.name!r} twice; rename the one in {path.name}")
            found.entries[entry.name] = entry
    return found


def load(path: Path) -> ModuleType:
    """Import one file under the name it has as part of ``benchmarks.entries``."""
    name = f"benchmarks.entries.{path.stem}" if path.parent == ENTRIES else f"benchmark_entries_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"expected a Python file, got {path.name}; remove it from the folder")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up while they are made
    specification.loader.exec_module(module)
    return module


def entries_of(module: ModuleType) -> Iterable[Entry]:
    """Entries among the public names of a module."""
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, Comparison | Study):
                yield item


def select(entries: Iterable[Entry], patterns: Sequence[str]) -> list[Entry]:
    """Entries whose name contains one of the patterns or matches it as a glob; all of them if there is no pattern.

    >>> [entry.name for entry in select([], ["layers/*"])]
    []
    """
    return sorted((entry for entry in entries if matches(entry.name, patterns)), key=lambda entry: entry.name)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is asked for."""
    return not patterns or any(pattern in name or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
