"""The one runner: an entry and a setting in, a record out. Nothing an entry does can stop the others."""

import dataclasses
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.accuracy import Pair
from benchmarks.entry import Comparison, Entry, Study
from benchmarks.environment import describe_environment
from benchmarks.measures import Measure
from benchmarks.memory import peak_bytes
from benchmarks.records import ERROR, FAILED, OK, Measurement, Record, Side, describe, plain
from benchmarks.settings import Setting
from benchmarks.timing import clock_for, interleave, ratio_of, spread

Row = dict[str, Any]


def run(entry: Entry, setting: Setting) -> Record:
    """Run one entry. Exceptions become a record of status ``error`` that keeps the rows finished before."""
    packages = (entry.peer_requires,) if isinstance(entry, Comparison) and entry.peer_requires else ()
    environment = describe_environment(setting.device, packages)
    started, start = datetime.now(UTC), time.perf_counter()
    rows: list[Row] = []
    try:
        complaints = compare(entry, setting, rows) if isinstance(entry, Comparison) else study(entry, setting, rows)
        status, message = (FAILED if complaints else OK), "; ".join(complaints)
    except Exception:
        status, message = ERROR, traceback.format_exc(limit=-3).strip()
    return Record(
        kind=type(entry).__name__.lower(),
        name=entry.name,
        status=status,
        message=message,
        config=describe(entry),
        setting=plain({**dataclasses.asdict(setting), "device": str(setting.device)}),
        environment=environment,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - start, 3),
        columns=list(entry.columns) if isinstance(entry, Study) else [],
        rows=rows,
    )


def study(entry: Study, setting: Setting, rows: list[Row]) -> list[str]:
    """Fill the rows; returns the claims that do not hold."""
    for row in entry.run(getattr(entry, setting.profile.name), setting):
        if set(row) != set(entry.columns):
            raise ValueError(f"expected a row with columns {list(entry.columns)}, got {list(row)}; make them agree")
        rows.append({column: plain(row[column]) for column in entry.columns})
    return entry.check(rows) if entry.check else []


def compare(entry: Comparison, setting: Setting, rows: list[Row]) -> list[str]:
    """Measure everything the entry asks for; returns the accuracies of ours that are out of tolerance."""
    complaints = []
    for measure in entry.measure:
        row = measurement(entry, measure, setting)
        rows.append(plain(row))
        if row.accurate is False and entry.accuracy is not None:
            complaints.append(f"{measure.label}: error {row.ours.error:.1e} exceeds {entry.accuracy.tolerance:.1e}")
    return complaints


def measurement(entry: Comparison, measure: Measure, setting: Setting) -> Measurement:
    """Accuracy on one freshly built pair, then times and memory on another: checks may move parameters."""
    pair, note = build(entry, setting)
    error = entry.accuracy.error(pair.ours, pair, measure) if entry.accuracy else None
    peer_error = None
    if pair.peer is not None:
        peer_error, note = attempt(lambda: error_of_peer(entry, measure, pair), "no accuracy of the peer")
    pair, missing = build(entry, setting)
    works = [measure.prepare(pair.ours, pair.inputs)]
    if (peer := pair.peer) is not None:
        # A peer that does not run here must not take our own numbers with it.
        work, failure = attempt(lambda: warmed(measure.prepare(peer, pair.inputs)), "peer failed")
        works += [] if work is None else [work]
        note = failure or note
    samples = interleave(works, setting.profile, clock_for(setting.device))
    held = [measure.held_bytes(subject) for subject in (pair.ours, pair.peer)]
    peaks = [peak_bytes(work, setting.device, held=extra) for work, extra in zip(works, held, strict=False)]
    sides = [
        Side(spread(seconds), value, peak)
        for seconds, value, peak in zip(samples.seconds, (error, peer_error), peaks, strict=False)
    ]
    return Measurement(
        measure=measure.label,
        ours=sides[0],
        peer=sides[1] if len(sides) > 1 else None,
        ratio=ratio_of(samples, seed=setting.seed) if len(sides) > 1 else None,
        accurate=None if error is None or entry.accuracy is None else error <= entry.accuracy.tolerance,
        order=samples.order,
        calls_per_sample=samples.calls_per_sample,
        note=missing or note,
    )


def build(entry: Comparison, setting: Setting) -> tuple[Pair, str]:
    """Both subjects and their inputs, from the setting's seed; and why there is no peer, if there is none."""
    peer, note = None, ""
    with torch.random.fork_rng():
        torch.manual_seed(setting.seed)
        ours = placed(entry.ours(entry.case), setting.device)
        if entry.peer is not None:
            try:
                torch.manual_seed(setting.seed)
                peer = placed(entry.peer(entry.case), setting.device)
            except ImportError as problem:
                note = f"peer missing: pip install '{entry.peer_requires or problem.name}' ({problem})"
    if peer is not None and entry.match is not None:
        entry.match(ours, peer)
    inputs = tuple(placed(item, setting.device) for item in entry.case.inputs(setting.generator()))
    return Pair(ours, peer, inputs, same_function=peer is not None and entry.match is not None), note


def placed(item: Any, device: torch.device) -> Any:
    """A module, tensor or generator on the device; anything else as it is."""
    if isinstance(item, torch.Generator):
        return torch.Generator(device).manual_seed(item.initial_seed())
    return item.to(device) if isinstance(item, Tensor | nn.Module) else item


def error_of_peer(entry: Comparison, measure: Measure, pair: Pair) -> float | None:
    """The peer's error by the entry's accuracy, if it has one."""
    return entry.accuracy.error(pair.peer, pair, measure) if entry.accuracy and pair.peer is not None else None


def warmed(work: Callable[[], Any]) -> Callable[[], Any]:
    """The work, after it has run once."""
    work()
    return work


def attempt(action: Callable[[], Any], failure: str) -> tuple[Any, str]:
    """The action's result and an empty note, or ``None`` and what went wrong in a line."""
    try:
        return action(), ""
    except Exception as problem:
        return None, f"{failure}: {type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
