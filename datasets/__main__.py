"""``python -m neuralop_kit.datasets``: generate, list, describe and check datasets."""

import argparse
import os
import sys
from pathlib import Path

from neuralop_kit.datasets.cards import draw_card
from neuralop_kit.datasets.check import check_file
from neuralop_kit.datasets.describe import any_split, describe, list_problems
from neuralop_kit.datasets.description import DTYPES
from neuralop_kit.datasets.generate import generate
from neuralop_kit.datasets.manifest import Manifest
from neuralop_kit.datasets.opening import open_dataset
from neuralop_kit.datasets.plan import DEFAULT_SPLITS
from neuralop_kit.datasets.problems import PROBLEMS
from neuralop_kit.datasets.task_dataset import TaskDataset
from neuralop_kit.datasets.trajectory_shard import LAYOUT
from neuralop_kit.datasets.well_writer import write_well
from neuralop_kit.solvers.errors import ArgumentError, MissingExtraError, NeuralopKitError

SETTINGS = sorted({problem.setting for problem in PROBLEMS.values()} - {""})
SUCCESS, FAULTS_FOUND, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 faults found, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except NeuralopKitError as error:
        sys.stderr.write(f"error: {error}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on where it stopped\n")
        return INTERRUPTED


def _generate(options: argparse.Namespace) -> int:
    resolution = options.resolution[0] if len(options.resolution) == 1 else options.resolution
    folder = generate(
        options.problem,
        options.out,
        samples=options.samples,
        resolution=resolution,
        settings=options.settings,
        seed=options.seed,
        splits=_sizes(options.splits) if options.splits else None,
        workers=options.workers,
        dtype=options.dtype,
        progress=True,
    )
    sys.stdout.write(f"{folder}: {open_dataset(folder, next(iter(Manifest.load(folder).splits)))!r}\n")
    return SUCCESS


def _list(options: argparse.Namespace) -> int:
    sys.stdout.write(list_problems(settings=options.settings) + "\n")
    return SUCCESS


def _describe(options: argparse.Namespace) -> int:
    sys.stdout.write(describe(options.path, axes=options.axes) + "\n")
    path = Path(options.path)
    try:
        pictures = [] if options.no_pictures else draw_card(
            any_split(path, axes=options.axes), options.pictures, name=f"{path.stem}-card"
        )  # fmt: skip
    except MissingExtraError as error:
        sys.stderr.write(f"no pictures: {error}\n")
        return SUCCESS
    sys.stdout.write("".join(f"picture      {picture}\n" for picture in pictures))
    return SUCCESS


def _convert(options: argparse.Namespace) -> int:
    data = open_dataset(options.path, options.split, axes=options.axes)
    if not isinstance(data, TaskDataset) or data.contents.layout == LAYOUT:
        raise ArgumentError(f"expected a file of others, got {options.path}, which is in The Well's layout already")
    sys.stdout.write(f"{write_well(data, options.out)}: {data.contents.layout} in The Well's layout\n")
    return SUCCESS


def _check(options: argparse.Namespace) -> int:
    path = Path(options.path)
    files = [path]
    if path.is_dir():
        splits = Manifest.load(path).splits
        for split in splits:
            open_dataset(path, split).verify()
        files = [path / entry.file for entries in splits.values() for entry in entries]
    faults = [f"{file}: {fault}" for file in files for fault in check_file(file)]
    sys.stdout.write("\n".join(faults or [f"{path}: {len(files)} files in The Well's layout, no fault found"]) + "\n")
    return FAULTS_FOUND if faults else SUCCESS


COMMANDS = {"generate": _generate, "list": _list, "describe": _describe, "convert": _convert, "check": _check}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m neuralop_kit.datasets", description="Fields on disk.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    make = commands.add_parser("generate", help="solve a problem for many random inputs; resumes after a kill")
    make.add_argument("problem", help="a name of the list")
    make.add_argument("--settings", choices=SETTINGS, help="whose numbers, where several published a problem")
    make.add_argument("--samples", type=int, required=True, help="in all splits together")
    make.add_argument(
        "--resolution", type=int, nargs="+", required=True, help="points per axis, one number or one each"
    )
    make.add_argument("--out", required=True, help="folder for the dataset, made if missing")
    make.add_argument("--seed", type=int, default=0, help="of the dataset, default 0")
    make.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, default one per core")
    make.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the stored numbers")
    shares = " ".join(f"{name}={share}" for name, share in DEFAULT_SPLITS.items())
    make.add_argument("--splits", type=_share, nargs="+", metavar="NAME=SIZE", help=f"relative sizes, default {shares}")
    show = commands.add_parser("list", help="the problems that can be generated")
    show.add_argument("--settings", choices=SETTINGS, help="only those with published numbers of this origin")
    about = commands.add_parser("describe", help="what a dataset or a file holds, in words and pictures")
    about.add_argument("path", help="a dataset folder, or a file of any known layout")
    about.add_argument("--pictures", metavar="FOLDER", default=".", help="for a contact sheet and a film, default here")
    about.add_argument("--no-pictures", action="store_true", help="words only")
    change = commands.add_parser("convert", help="a file of any known layout to The Well's layout")
    change.add_argument("path", help="the file")
    change.add_argument("out", help="the new HDF5 file")
    change.add_argument("--split", help="a split that the authors of the layout published; default all samples")
    for command in (about, change):
        command.add_argument("--axes", help="of a .npy file, one letter each: n sample, t time, c channel, x y z space")
    check = commands.add_parser("check", help="checksums, and The Well's layout")
    check.add_argument("path", help="a dataset folder or an HDF5 file")
    return parser


def _sizes(shares: list[tuple[str, float]]) -> dict[str, float]:
    """Sizes by name; a dictionary alone would let the last of two sizes win without a word."""
    names = [name for name, _ in shares]
    if len(set(names)) < len(names):
        raise ArgumentError(f"expected one size for each split, got {' '.join(names)}; name each split once")
    return dict(shares)


def _share(text: str) -> tuple[str, float]:
    name, _, size = text.partition("=")
    try:
        return name, float(size)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=SIZE such as train=0.8, got {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
