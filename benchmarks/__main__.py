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

RESULTS = Path(__file__).parent / "results"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Ours against the peers, error beside time."
    )
    parser.add_argument("--list", action="store_true", help="names of the entries, and stop")
    parser.add_argument(
        "--run", action="append", default=[], metavar="PATTERN", help="part of a name, or a glob; repeatable"
    )
    parser.add_argument(
        "--profile", choices=sorted(PROFILES), default="quick", help="quick is for make bench; default quick"
    )
    parser.add_argument("--threads", type=int, help="torch threads; default torch's own choice")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0, help="weights and inputs; default 0")
    parser.add_argument("--out", type=Path, default=RESULTS / "latest", help="folder for JSON, Markdown and picture")
    parser.add_argument("--report", action="store_true", help="only make the table of --out anew from its JSON files")
    parser.add_argument("--entries", type=Path, default=ENTRIES, help="folder with entries; default benchmarks/entries")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns 1 if an accuracy or a claim fails, or an entry does not run."""
    options = parse(arguments)
    if options.report:
        print(write_report(options.out))
        return 0
    found = discover(options.entries)
    entries = [e for e in select(found.entries.values(), options.run) if is_in_profile(e, options.profile)]
    if options.list:
        print("\n".join(entry.name for entry in entries))
        return complain(found, [])
    if not entries:
        print(
            f"expected --run to match an entry of the {options.profile} profile, got none; see --list", file=sys.stderr
        )
        return 1
    if options.threads:
        torch.set_num_threads(options.threads)
    setting = Setting(PROFILES[options.profile], options.device, options.seed)
    records = run_all(entries, setting, options.out)
    write_report(options.out)
    print(render(records))
    return complain(found, records)


def run_all(entries: Sequence[Entry], setting: Setting, folder: Path) -> list[Record]:
    """Run entry by entry; each result is on disk before the next one starts."""
    records = []
    with tqdm(entries, unit="entry", disable=None) as progress:
        for entry in progress:
            progress.set_postfix_str(entry.name)
            record = run(entry, setting)
            record.save(folder)
            records.append(record)
    return records


def write_report(folder: Path) -> str:
    """Table and picture of everything in the folder, also of earlier runs."""
    records = load_records(folder)
    text = render(records)
    (folder / "README.md").write_text(text)
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
