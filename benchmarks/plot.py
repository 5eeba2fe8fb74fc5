"""A picture of all ratios, where matplotlib is installed."""

import io
from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import Record
from benchmarks.report import natural
from neuralop_kit.solvers.atomic import write_bytes


def plot_ratios(records: Sequence[Record], path: Path) -> bool:
    """One bar per measurement with its interval, on a logarithmic axis; returns whether a picture was drawn."""
    bars = [
        (f"{record.name}  {row['measure']}, against {record.config['peer_name']}", row["ratio"])
        for record in sorted(records, key=lambda record: natural(record.name))
        for row in record.rows
        if record.kind == "comparison" and row["ratio"]
    ]
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not bars:
        return False
    figure = Figure(figsize=(11, 1.2 + 0.18 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    values = [ratio["median"] for _, ratio in bars]
    below = [ratio["median"] - ratio["low"] for _, ratio in bars]
    above = [ratio["high"] - ratio["median"] for _, ratio in bars]
    colors = ["tab:blue" if value >= 1 else "tab:orange" for value in values]
    # Bars start at 1, the line where both are equal.
    axes.barh(range(len(bars)), [value - 1 for value in values], left=1.0, xerr=[below, above], color=colors)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize=7)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.set_xlabel("peer's time / ours (right of 1: ours is faster)")
    content = io.BytesIO()
    figure.savefig(content, dpi=120)
    write_bytes(path, content.getvalue())
    return True
