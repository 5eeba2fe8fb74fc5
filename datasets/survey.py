"""Statistics of a dataset that brings none along, from some of its samples."""

import math
from collections.abc import Mapping

import numpy as np

from neuralop_kit.datasets.field_dataset import FieldDataset
from neuralop_kit.datasets.readers.contents import Role
from neuralop_kit.datasets.statistics import ChannelStatistics, DatasetStatistics, FieldStatistics
from neuralop_kit.datasets.task_dataset import TaskDataset, blocks

ROLES: tuple[Role, ...] = ("state", "input", "target")
BLOCK_BYTES = 2**24


def estimate_statistics(data: FieldDataset, *, max_pairs: int = 256) -> DatasetStatistics:
    """Mean and deviation of every channel over some pairs, spread evenly over the dataset; points count alike.

    Args:
        data: pairs, for which a normalizer is wanted.
        max_pairs: how many are read; all of a small dataset.

    >>> import tempfile
    >>> from neuralop_kit.datasets import open_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/u.npy", np.arange(60.0).reshape(3, 5, 4))
    ...     statistics = estimate_statistics(open_dataset(f"{folder}/u.npy", axes="ntx"))
    >>> statistics.input.mean, statistics.target.mean
    ((27.5,), (31.5,))
    """
    chosen = spread(len(data), max_pairs)
    parts: list[tuple[FieldStatistics, ...]] = []
    weights = np.ones(data.shape)
    sample_bytes = 8 * math.prod(data.shape) * (len(data.input_names) + len(data.target_names))
    step = max(1, BLOCK_BYTES // sample_bytes)
    for start in range(0, len(chosen), step):
        inputs, targets = data.read(chosen[start : start + step])
        channels = [*inputs.numpy().swapaxes(0, 1), *targets.numpy().swapaxes(0, 1)]
        parts.append(tuple(FieldStatistics.of(values, weights) for values in channels))
    merged = [FieldStatistics.merge(part) for part in zip(*parts, strict=True)]
    means, stds, cut = tuple(p.mean for p in merged), tuple(p.std for p in merged), len(data.input_names)
    given, asked = ChannelStatistics(means[:cut], stds[:cut]), ChannelStatistics(means[cut:], stds[cut:])
    return DatasetStatistics(given, asked, {})


def survey(data: TaskDataset, *, max_samples: int = 32) -> Mapping[str, FieldStatistics]:
    """Statistics of each channel over all frames of some samples of the first file, weighted by the quadrature."""
    file, samples = data.files[0], data.samples[0]
    weights = data.domain.weights(data.shape).double().numpy()
    names = [c for variable in file.contents.of_role(*ROLES) for c in variable.channels(data.domain.num_dims)]
    parts: dict[str, list[FieldStatistics]] = {name: [] for name in names}
    for k in spread(len(samples), max_samples):
        for one, frames in blocks(file, samples[k : k + 1], max_bytes=BLOCK_BYTES):
            block = file.read(one, frames, ROLES)
            for i, name in enumerate(names):
                parts[name].append(FieldStatistics.of(block[0, :, i], weights))
    return {name: FieldStatistics.merge(found) for name, found in parts.items()}


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` numbers below ``length``, evenly spread."""
    return sorted(set(np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()))
