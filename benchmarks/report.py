"""Markdown tables out of records; nothing is shown that is not in the JSON files."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from benchmarks.records import ERROR, OK, Record

HOW_TO_READ = """\
Times are medians per call; ours and the peer alternate in one process. **Ratio** is the median over pairs of the
peer's time divided by ours (above 1: ours is faster), with a 95 % bootstrap interval. **Error** is what the entry's
accuracy check measures in float64, usually a relative L2 distance. **Memory** is what one call needs at its peak on
top of inputs and parameters; what an optimizer keeps between its steps counts. A dash means: not measured. How it is
done: `benchmarks/README.md`."""


def render(records: Sequence[Record]) -> str:
    """The whole report."""
    parts = ["# Benchmark results", HOW_TO_READ]
    ordered = sorted(records, key=lambda record: (record.group, natural(record.name)))
    for group, members in itertools.groupby(ordered, key=lambda record: record.group):
        rows = list(members)
        parts.append(f"## {group}")
        parts += comparison_table([record for record in rows if record.kind == "comparison"])
        for record in rows:
            if record.kind == "study":
                parts += study_table(record)
        parts += problems(rows)
    parts += environments(ordered)
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_table(records: Sequence[Record]) -> list[str]:
    """One table for a group of comparisons, with the geometric mean of its ratios below."""
    if not any(record.rows for record in records):
        return []
    head = ["case", "measure", "ours", "peer", "ratio", "error ours", "error peer", "memory ours", "memory peer"]
    peers = list(dict.fromkeys(record.config["peer_name"] for record in records if record.config["peer"]))
    # One peer is named once, above the table; several are named in their cells.
    against = [f"Peer: {peers[0]}."] if len(peers) == 1 else []
    lines = [comparison_row(record, row, several=len(peers) > 1) for record in records for row in record.rows]
    return [*against, table(head, lines), *geometric_means(records), *notes(records)]


def comparison_row(record: Record, row: dict[str, Any], *, several: bool) -> list[str]:
    """The cells of one measurement."""
    ours, peer = row["ours"], row["peer"] or {}
    seconds = peer.get("seconds")
    label = f" ({record.config['peer_name']})" if several else ""
    return [
        record.name.rsplit("/", 1)[1],
        row["measure"],
        duration(ours["seconds"]["median"]),
        duration(seconds["median"]) + label if seconds else "—",
        ratio(row["ratio"], record.config.get("target")),
        error(ours["error"]) + (" ✗" if row["accurate"] is False else ""),
        error(peer.get("error")),
        size(ours["peak_bytes"]),
        size(peer.get("peak_bytes")),
    ]


def geometric_means(records: Sequence[Record]) -> list[str]:
    """A sentence for each measure that has at least two ratios in the group."""
    ratios: dict[str, list[float]] = {}
    for record in records:
        for row in record.rows:
            if row["ratio"]:
                ratios.setdefault(row["measure"], []).append(row["ratio"]["median"])
    means = [
        f"{measure}: {math.exp(sum(map(math.log, values)) / len(values)):.2f} over {len(values)} cases, "
        f"smallest {min(values):.2f}"
        for measure, values in ratios.items()
        if len(values) > 1
    ]
    return [f"Geometric mean of the ratios: {'; '.join(means)}."] if means else []


def notes(records: Sequence[Record]) -> list[str]:
    """What the measurements have to say besides numbers, each once."""
    found = dict.fromkeys(row["note"] for record in records for row in record.rows if row["note"])
    return ["\n".join(f"- {note}" for note in found)] if found else []


def study_table(record: Record) -> list[str]:
    """A study's caption and rows."""
    title = f"**{record.name.rsplit('/', 1)[1]}** ({record.setting['profile']['name']}, {record.seconds:.0f} s)"
    caption = " ".join(part for part in (title, record.config.get("caption", "")) if part)
    rows = [[cell(row[column]) for column in record.columns] for row in record.rows]
    return [caption, table(record.columns, rows)] if rows else [caption]


def problems(records: Sequence[Record]) -> list[str]:
    """Failed accuracies and claims, and entries that did not run."""
    bad = [record for record in records if record.status != OK]
    lines = [f"- ✗ `{r.name}` {r.status}: {r.message.splitlines()[-1 if r.status == ERROR else 0]}" for r in bad]
    return ["\n".join(lines)] if lines else []


def environments(records: Sequence[Record]) -> list[str]:
    """Where the numbers come from; entries that ran in the same place share a line."""
    places: dict[str, list[Record]] = {}
    for record in records:
        places.setdefault(environment(record), []).append(record)
    if not places:
        return []
    lines = []
    for place, members in places.items():
        versions = dict.fromkeys(
            f"{k} {v}" for record in members for k, v in record.environment["packages"].items() if v
        )
        groups = ", ".join(dict.fromkeys(record.group for record in members))
        busy = max((record.environment["load"] or 0.0 for record in members), default=0.0)
        facts = f"{place}, {load(busy, members[0].environment['cores'])}; {', '.join(versions)}"
        lines.append(f"- {f'{groups}: ' if len(places) > 1 else ''}{facts}")
    return ["## Where these numbers come from", "\n".join(lines)]


def environment(record: Record) -> str:
    """One line: profile, machine, commit, day."""
    e, s = record.environment, record.setting
    commit = f"{e['commit'][:10]}{' with local changes' if e['dirty'] else ''}" if e["commit"] else "unknown"
    return (
        f"{s['profile']['name']} profile, seed {s['seed']}, {e['device']}, {e['cpu']}, "
        f"threads: {e['threads']}, Python {e['python']}, commit {commit}, {record.started[:10]}"
    )


def load(busy: float, cores: int) -> str:
    """How busy the machine was, and a warning where that spoils the numbers.

    >>> load(9.7, 2)
    'load up to 9.7 on 2 cores: **busy, times and ratios of threaded code are not to be trusted**'
    """
    warning = ": **busy, times and ratios of threaded code are not to be trusted**" if busy > 1.5 * cores else ""
    return f"load up to {busy:.1f} on {cores} cores{warning}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def duration(seconds: float) -> str:
    """Three digits and a unit.

    >>> duration(0.00123)
    '1.23 ms'
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def size(num_bytes: int | None) -> str:
    """Mebibytes.

    >>> size(3 * 2**20)
    '3.0 MiB'
    """
    return "—" if num_bytes is None else f"{num_bytes / 2**20:.1f} MiB"


def error(value: float | str | None) -> str:
    """Two digits; what is not finite is text already."""
    return "—" if value is None else (value if isinstance(value, str) else f"{value:.1e}")


def ratio(value: dict[str, float] | None, target: float | None) -> str:
    """Median and interval, and the promise if there is one."""
    if value is None:
        return "—"
    text = f"**{value['median']:.2f}** [{value['low']:.2f}, {value['high']:.2f}]"
    if target is None:
        return text
    return f"{text}, promised {target:g}{'' if value['median'] >= target else ': missed'}"


def cell(value: Any) -> str:
    """A study's value as text."""
    if value is None:
        return "—"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def natural(name: str) -> list[tuple[int, str]]:
    """Sorting key that puts 64 before 128."""
    digits = itertools.groupby(name, key=str.isdigit)
    return [(int(text), "") if numeric else (0, text) for numeric, text in ((n, "".join(part)) for n, part in digits)]
