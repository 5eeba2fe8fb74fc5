"""Command line: ``python -m benchmarks --list | --run PATTERN | --profile quick|full | --report``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.discovery import ENTRIES, Found, discover, select
from benchmarks.entry import Entry, is_in_profile
from benchmarks.plot import plot_ratios
from benchmarks.records import OK, Record, load_records
from benchmarks.report import render
from benchmarks.runner import run
from benchmarks.settings import PROFILES, Setting
from neuralop_kit.solvers.atomic import write_bytes

RESULTS = Path(__file__).parent / "results"
SUCCESS, FAILED, INTERRUPTED = 0, 1, 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Ours against the peers, error beside time."
    )
    parser.add_argument("--list", action="store_true", help="names of the profile's entries, and stop")
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="PATTERN",
        help="part of a name, or a glob, as often as you like; all if left out",
    )
    parser.add_argument(
        "--profile", choices=sorted(PROFILES), default="quick", help="quick is for make bench; default quick"
    )
    parser.add_argument("--threads", type=thread_count, help="torch threads; default torch's own choice")
    parser.add_argument("--device", type=usable_device, default=torch.device("cpu"), help="cpu or cuda; default cpu")
    parser.add_argument("--seed", type=int, default=0, help="weights and inputs; default 0")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "latest",
        help="folder for JSON, Markdown and picture; default benchmarks/results/latest",
    )  # fmt: skip
    parser.add_argument("--report", action="store_true", help="only make the table of --out anew from its JSON files")
    parser.add_argument("--entries", type=Path, default=ENTRIES, help="folder with entries; default benchmarks/entries")
    options = parser.parse_args(arguments)
    if not options.entries.is_dir():
        parser.error(f"argument --entries: expected a folder, got {options.entries}")
    return options


def thread_count(text: str) -> int:
    """A positive number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return int(text)


def usable_device(text: str) -> torch.device:
    """A device on which a tensor can be made."""
    try:
        return torch.empty(0, device=text).device
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).splitlines()[0]
        raise argparse.ArgumentTypeError(f"expected a device of this machine, got {text!r}: {reason}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns 1 if an accuracy or a claim fails, or an entry does not run."""
    options = parse(arguments)
    if options.report:
        return report(options.out)
    found = discover(options.entries)
    entries = [e for e in select(found.entries.values(), options.run) if is_in_profile(e, options.profile)]
    if options.list:
        print("\n".join(entry.name for entry in entries))
        return complain(found, [])
    # One wrong pattern among right ones would otherwise be missed at the end of a long run.
    for pattern in options.run:
        if not select(entries, [pattern]):
            others = ", ".join(entry.name for entry in select(found.entries.values(), [pattern])[:3])
            got = f"only {others} of the other one; choose it" if others else "none; see --list"
            wanted = f"expected --run {pattern} to match an entry of the {options.profile} profile"
            print(f"{wanted}, got {got}", file=sys.stderr)
            return FAILED
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        load_records(options.out)  # what the report at the end would stumble over is better found now
    except (OSError, ValueError) as problem:
        print(f"--out {options.out}: {problem}", file=sys.stderr)
        return FAILED
    if options.threads:
        torch.set_num_threads(options.threads)
    setting = Setting(PROFILES[options.profile], options.device, options.seed)
    records: list[Record] = []
    try:
        run_all(entries, setting, options.out, records)
    except KeyboardInterrupt:
        if records:
            write_report(options.out)
        print(f"interrupted; {len(records)} of {len(entries)} entries are in {options.out}", file=sys.stderr)
        return INTERRUPTED
    write_report(options.out)
    print(render(records))
    return complain(found, records)


def report(folder: Path) -> int:
    """Print the table of what the folder has."""
    try:
        if not load_records(folder):
            raise ValueError("expected results, got none; run entries first, or give the folder that has some")
    except ValueError as problem:
        print(f"--out {folder}: {problem}", file=sys.stderr)
        return FAILED
    print(write_report(folder))
    return SUCCESS


def run_all(entries: Sequence[Entry], setting: Setting, folder: Path, records: list[Record]) -> None:
    """Run entry by entry and fill the records; each result is on disk before the next one starts."""
    with tqdm(entries, unit="entry", disable=None) as progress:
        for entry in progress:
            progress.set_postfix_str(entry.name)
            record = run(entry, setting)
            record.save(folder)
            records.append(record)


def write_report(folder: Path) -> str:
    """Table and picture of everything in the folder, also of earlier runs."""
    records = load_records(folder)
    text = render(records)
    write_bytes(folder / "README.md", text.encode())
    plot_ratios(records, folder / "ratios.png")
    return text


def complain(found: Found, records: Sequence[Record]) -> int:
    """Say what went wrong on stderr; returns the exit status."""
    for name, reason in found.broken.items():
        print(f"benchmarks/entries/{name} does not import:\n{reason}", file=sys.stderr)
    bad = [record for record in records if record.status != OK]
    for record in bad:
        print(f"{record.name} {record.status}: {record.message}", file=sys.stderr)
    return int(bool(bad or found.broken))


if __name__ == "__main__":
    sys.exit(main())
