"""``stats.yaml`` of The Well: means and deviations of the training split."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from neuralop_kit.datasets.readers.contents import Variable
from neuralop_kit.datasets.statistics import ChannelStatistics

FILE = "stats.yaml"
MAX_BYTES = 2**22
_SECTION = re.compile(r"^([A-Za-z_]\w*):\s*$")
_FIELD = re.compile(r"^ +(?:\"([^\"]+)\"|([^\s:\"-][^:]*)):(.*)$")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|nan)", re.IGNORECASE)


def read_statistics(path: Path) -> dict[str, dict[str, list[float]]]:
    """Numbers of each section and field, components in order; other YAML than The Well's yields nothing.

    Older files have no ``rms``; it follows from mean and deviation.
    """
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return {}
    sections: dict[str, dict[str, list[float]]] = {}
    section: dict[str, list[float]] = {}
    numbers: list[float] = []
    for line in path.read_text(errors="replace").splitlines():
        if found := _SECTION.match(line):
            section = sections.setdefault(found[1], {})
        elif found := _FIELD.match(line):
            numbers = section.setdefault(found[1] or found[2].strip(), [])
            numbers += _floats(found[3])
        elif line.lstrip().startswith("-"):
            numbers += _floats(re.sub(r"^[\s-]*(?:- )", "", line))
    if "rms" not in sections and {"mean", "std"} <= set(sections):
        means, stds = sections["mean"], sections["std"]
        shared = [name for name in means if len(stds.get(name, [])) == len(means[name])]
        sections["rms"] = {n: [math.hypot(*pair) for pair in zip(means[n], stds[n], strict=True)] for n in shared}
    return sections


def channel_statistics(path: Path, variables: Sequence[Variable]) -> ChannelStatistics | None:
    """Statistics of the channels of some variables; None when the file does not have all of them."""
    sections = read_statistics(path)
    mean, std = [], []
    for variable in variables:
        pair = [sections.get(key, {}).get(variable.name, []) for key in ("mean", "std")]
        if any(len(values) != variable.num_components or not all(map(math.isfinite, values)) for values in pair):
            return None
        mean += pair[0]
        std += [abs(value) for value in pair[1]]
    return ChannelStatistics(tuple(mean), tuple(std))


def _floats(text: str) -> list[float]:
    return [float(number.replace(".inf", "inf").replace(".nan", "nan")) for number in _NUMBER.findall(text)]
