"""Tables that the examples share: the same rows as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from neuralop_kit.solvers.atomic import write_bytes

Row = Mapping[str, str | int | float]


def markdown(rows: Sequence[Row]) -> str:
    """Rows of equal keys as a Markdown table; floats with three significant digits."""
    columns = list(rows[0])
    cells = [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join("| " + " | ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) + " |" for line in lines)


def save_table(folder: Path, rows: Sequence[Row], *, settings: Mapping[str, object]) -> None:
    """Write ``results.md`` and ``results.json``; the latter with the settings that gave the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "results.md", f"{markdown(rows)}\n".encode())
    content = {"settings": {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}, "rows": list(rows)}
    write_bytes(folder / "results.json", f"{json.dumps(content, indent=2)}\n".encode())


def _text(value: str | int | float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
