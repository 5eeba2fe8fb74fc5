"""A few lines about a dataset or a shard, for people."""

from collections.abc import Mapping
from pathlib import Path

from neuralop_kit.datasets.description import Description
from neuralop_kit.datasets.manifest import Manifest
from neuralop_kit.datasets.problems import PROBLEMS
from neuralop_kit.datasets.shard import Shard
from neuralop_kit.datasets.statistics import FieldStatistics


def describe(path: str | Path) -> str:
    """What a dataset folder or one of its files holds: equation, parameters, grid, splits, statistics.

    Raises:
        DataError: it is unfinished, damaged, unsafe, or not of our layout.
    """
    path = Path(path)
    if path.is_dir():
        manifest = Manifest.load(path)
        counts = [
            f"{name} {manifest.num_samples(name)} in {len(manifest.splits[name])} files" for name in manifest.splits
        ]
        size = sum(entry.size for entries in manifest.splits.values() for entry in entries)
        head = [f"splits       {', '.join(counts)}; {size / 1e6:.1f} MB", f"seed         {manifest.generation['seed']}"]
        return "\n".join([*_about(manifest.description), *head, *_table(manifest.description, manifest.statistics)])
    shard = Shard(path)
    head = [f"samples      {shard.num_samples}; {path.stat().st_size / 1e6:.1f} MB"]
    return "\n".join([*_about(shard.description), *head, *_table(shard.description, shard.statistics)])


def list_problems() -> str:
    """One line per problem: name and equation."""
    width = max(map(len, PROBLEMS))
    return "\n".join(f"{name:{width}}  {problem.equation}" for name, problem in PROBLEMS.items())


def _about(description: Description) -> list[str]:
    lines = [f"{description.name}", f"equation     {description.equation}"]
    if description.source:
        lines.append(f"source       {description.source}")
    lines += [f"domain       {description.domain}", f"grid         {description.shape}, {description.dtype}"]
    for name, parameter in description.parameters.items():
        lines.append(f"parameter    {name} = {parameter.value:g} [{parameter.unit}], {parameter.meaning}")
    return lines


def _table(description: Description, statistics: Mapping[str, FieldStatistics]) -> list[str]:
    width = max(map(len, description.field_names))
    lines = []
    for name in description.field_names:
        role = "input" if name in description.input_names else "target"
        line = f"{role:12} {name:{width}} [{description.units[name]}]"
        if name in statistics:
            part = statistics[name]
            line += f"  mean {part.mean:.6g}, std {part.std:.6g}, from {part.minimum:.6g} to {part.maximum:.6g}"
        lines.append(line)
    return lines
