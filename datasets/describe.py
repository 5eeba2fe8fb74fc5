"""A few lines about a dataset or a file, for people."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuralop_kit.datasets.description import Description, Parameter
from neuralop_kit.datasets.field_dataset import FieldDataset
from neuralop_kit.datasets.manifest import MANIFEST, Manifest
from neuralop_kit.datasets.opening import open_dataset
from neuralop_kit.datasets.problems import PROBLEMS
from neuralop_kit.datasets.readers.contents import DataWarning
from neuralop_kit.datasets.shard import Shard
from neuralop_kit.datasets.statistics import FieldStatistics
from neuralop_kit.datasets.survey import survey
from neuralop_kit.datasets.task_dataset import TaskDataset
from neuralop_kit.datasets.trajectory_shard import LAYOUT


def describe(path: str | Path, *, axes: str | None = None) -> str:
    """What a dataset folder or a file holds: equation, parameters, grid, splits, statistics, known defects.

    Args:
        path: of ours or of others, whatever :func:`open_dataset` takes.
        axes: of a ``.npy`` file.

    Raises:
        DataError: it is unfinished, damaged, unsafe, or not of a known layout.
    """
    path = Path(path)
    if (path / MANIFEST).exists():
        return _of_folder(Manifest.load(path))
    data = any_split(path, axes=axes)
    if isinstance(data, TaskDataset) and data.contents.layout != LAYOUT:
        return _of_files(data)
    return _of_shard(path)


def any_split(path: Path, *, axes: str | None = None) -> FieldDataset:
    """A dataset to look at: of a folder, the first split that is there; without warnings, as the defects are shown."""
    if (path / MANIFEST).exists():
        return open_dataset(path, next(iter(Manifest.load(path).splits)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return open_dataset(path, axes=axes)


def list_problems(*, settings: str | None = None) -> str:
    """One line per problem, or per problem of these published settings: name, settings, equation."""
    rows = [(name, p.setting, p.equation) for name, p in PROBLEMS.items() if settings in (None, p.setting)]
    widths = [max(len(row[k]) for row in rows) for k in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {whose:{widths[1]}}  {equation}" for name, whose, equation in rows)


def _of_folder(manifest: Manifest) -> str:
    counts = [f"{name} {manifest.num_samples(name)} in {len(manifest.splits[name])} files" for name in manifest.splits]
    size = sum(entry.size for entries in manifest.splits.values() for entry in entries)
    head = [f"splits       {', '.join(counts)}; {size / 1e6:.1f} MB", f"seed         {manifest.generation['seed']}"]
    return "\n".join([*_about(manifest.description), *head, *_table(manifest.description, manifest.statistics)])


def _of_shard(path: Path) -> str:
    shard = Shard(path)
    head = [f"samples      {shard.num_samples}; {path.stat().st_size / 1e6:.1f} MB"]
    return "\n".join([*_about(shard.description), *head, *_table(shard.description, shard.statistics)])


def _of_files(data: TaskDataset) -> str:
    contents = data.contents
    lines = [contents.name, f"layout       {contents.layout}"]
    lines += [f"equation     {contents.equation}"] if contents.equation else []
    lines += [f"domain       {contents.domain}", f"grid         {contents.shape}, {contents.dtype}"]
    count = sum(map(len, data.samples))
    size = sum(file.container.path.stat().st_size for file in data.files)
    lines.append(f"samples      {count} in {len(data.files)} files; {size / 1e6:.1f} MB")
    if contents.times is not None:
        first, last = contents.times.ravel()[0], contents.times.ravel()[-1]
        lines.append(f"time         {contents.num_frames} frames from {first:g} to {last:g}")
    lines += _parameters(contents.parameters)
    for name, values in contents.sample_parameters.items():
        lines.append(f"parameter    {name} from {np.min(values):g} to {np.max(values):g}, one per sample")
    statistics = survey(data)
    width = max(map(len, statistics))
    for variable in contents.variables:
        for name in variable.channels(contents.domain.num_dims):
            lines.append(f"{variable.role:12} {name:{width}} [{variable.unit}]{_numbers(statistics[name])}")
    lines += [f"assumed      {text}" for text in contents.assumptions]
    lines += [f"defect       {text}" for text in contents.defects]
    return "\n".join(lines)


def _about(description: Description) -> list[str]:
    lines = [f"{description.name}", f"equation     {description.equation}"]
    if description.source:
        lines.append(f"source       {description.source}")
    lines += [f"domain       {description.domain}", f"grid         {description.shape}, {description.dtype}"]
    if description.times:
        first, last = description.times[0], description.times[-1]
        lines.append(f"time         {description.num_frames} frames from {first:g} to {last:g}")
    return lines + _parameters(description.parameters)


def _parameters(parameters: Mapping[str, Parameter]) -> list[str]:
    return [f"parameter    {name} = {p.value:g} [{p.unit}], {p.meaning}" for name, p in parameters.items()]


def _table(description: Description, statistics: Mapping[str, FieldStatistics]) -> list[str]:
    width = max(map(len, description.field_names))
    lines = []
    for name in description.field_names:
        role = "input" if name in description.input_names else "state" if description.times else "target"
        numbers = _numbers(statistics[name]) if name in statistics else ""
        lines.append(f"{role:12} {name:{width}} [{description.units[name]}]{numbers}")
    return lines


def _numbers(part: FieldStatistics) -> str:
    return f"  mean {part.mean:.6g}, std {part.std:.6g}, from {part.minimum:.6g} to {part.maximum:.6g}"
