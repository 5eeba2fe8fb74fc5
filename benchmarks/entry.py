"""The two kinds of entry: a comparison of times, and a study that fills a table of its own."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.accuracy import Accuracy
from benchmarks.cases import Case
from benchmarks.measures import Forward, Measure
from benchmarks.settings import Setting

NAME = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_][A-Za-z0-9_.+=-]*)+")

Cell = str | int | float | None
Row = Mapping[str, Cell]


def check_name(name: str) -> None:
    """Names are paths, ``area/subject/size``: they sort into tables and become the names of result files."""
    if not NAME.fullmatch(name):
        raise ValueError(f"expected a name like 'layers/spectral_conv/64x64-modes16', got {name!r}; rename the entry")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ours against a peer on one case: times in alternation, error and peak memory beside each.

    Args:
        name: ``area/subject/size``; entries that differ in the last part share a table.
        ours, peer: ``case -> callable``; called with the case's inputs. A peer's import goes inside its function:
            an ``ImportError`` there is reported as "peer missing" and our numbers stand alone.
        case: draws the inputs.
        measure: what one repetition does, one row of the table each.
        accuracy: how wrong the result is. Ours outside its tolerance makes the run fail; the peer's is only shown.
        match: ``match(ours, peer)`` gives the peer our weights, so that both compute the same function.
        peer_name: how the table calls the peer.
        peer_requires: what a reader must install to see it, e.g. ``"neuraloperator==2.0.0"``; its version is recorded.
        target: the ratio (peer's time over ours) that we promise; shown in the table, not enforced.
        quick: whether the entry is part of the quick profile.
    """

    name: str
    ours: Callable[[Any], Callable[..., Any]]
    case: Case
    peer: Callable[[Any], Callable[..., Any]] | None = None
    measure: tuple[Measure, ...] = (Forward(),)
    accuracy: Accuracy | None = None
    match: Callable[[Any, Any], None] | None = None
    peer_name: str = "peer"
    peer_requires: str = ""
    target: float | None = None
    quick: bool = True

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.measure:
            raise ValueError("expected at least one measure, got none; leave the argument out for Forward()")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Evidence that is a table rather than a ratio of times: errors over resolutions, seeds, epochs.

    Args:
        name: ``area/subject``, as in :class:`Comparison`.
        run: ``run(size, setting)`` yields rows, each a mapping from column to number or text. Rows are better yielded
            than returned: progress shows, and the rows before a failure are kept.
        columns: the columns, in order.
        quick, full: what ``run`` gets as ``size`` in each profile, a frozen dataclass of the study's own. Quick means
            under three minutes on two cores; ``None`` leaves the study out of that profile.
        check: ``check(rows)`` returns a sentence for each claim that does not hold; any makes the run fail.
        caption: one or two sentences above the table: what was done, what to look at.
    """

    name: str
    run: Callable[[Any, Setting], Iterable[Row]]
    columns: tuple[str, ...]
    quick: Any = None
    full: Any = None
    check: Callable[[Sequence[Row]], list[str]] | None = None
    caption: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.quick is None and self.full is None:
            raise ValueError("expected a size for at least one profile, got none; give quick= or full=")


Entry = Comparison | Study


def is_in_profile(entry: Entry, profile: str) -> bool:
    """Whether the profile includes the entry."""
    if isinstance(entry, Comparison):
        return profile == "full" or entry.quick
    return getattr(entry, profile) is not None
