"""Which sample goes where: splits, shards, batches and seeds, fixed by the request alone."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from neuralop_kit.datasets.description import Description
from neuralop_kit.datasets.manifest import SPLITS
from neuralop_kit.solvers.errors import ArgumentError

DEFAULT_SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}
MAX_SAMPLES = 2**32
# Test samples come first and training samples last: a larger training set, or a test set alone at another resolution,
# then keeps the functions of the test set.
ORDER = ("test", "valid", "train")

# A batch is solved together: enough points to be fast, few enough that a killed process loses seconds.
BATCH_POINTS = 2**18
MAX_BATCH = 16
# Trajectories of a batch are held in memory.
BATCH_BYTES = 2**26
# A shard is held in memory once, and is what workers take turns at.
SHARD_BYTES = 2**26
MAX_SHARD_SAMPLES = 64


@dataclass(frozen=True)
class ShardPlan:
    """Samples ``first, ..., first + samples - 1`` of the dataset, in one file."""

    split: str
    file: str
    first: int
    samples: int


@dataclass(frozen=True)
class Plan:
    """A request for a dataset, in full: equal plans give equal bytes.

    Args:
        description: what is generated.
        seed: of the dataset.
        counts: samples per split.
        batch: samples solved together.
        shard_samples: samples per file, a multiple of ``batch``.
    """

    description: Description
    seed: int
    counts: Mapping[str, int]
    batch: int
    shard_samples: int

    @property
    def samples(self) -> int:
        """All samples."""
        return sum(self.counts.values())

    def shards(self) -> list[ShardPlan]:
        """The files, in the order of their samples."""
        plans, start = [], 0
        for split in (name for name in ORDER if name in self.counts):
            end = start + self.counts[split]
            for number, first in enumerate(range(start, end, self.shard_samples)):
                file = f"data/{split}/{split}-{number:05d}.hdf5"
                plans.append(ShardPlan(split, file, first, min(self.shard_samples, end - first)))
            start = end
        return plans

    def generators(self, first: int, count: int) -> list[torch.Generator]:
        """Sources of randomness of samples ``first, ..., first + count - 1``."""
        return [torch.Generator().manual_seed(sample_seed(self.seed, first + k)) for k in range(count)]

    def to_json(self) -> dict[str, Any]:
        """What identifies the request beside the description."""
        return {
            "seed": self.seed,
            "counts": dict(self.counts),
            "batch": self.batch,
            "shard_samples": self.shard_samples,
        }


def make_plan(description: Description, *, samples: int, seed: int, splits: Mapping[str, float] | None) -> Plan:
    """The plan for ``samples`` of ``description``; an :class:`ArgumentError` says what is out of range."""
    if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples <= MAX_SAMPLES:
        raise ArgumentError(f"expected between 1 and {MAX_SAMPLES} samples, got {samples}; try 1000")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ArgumentError(f"expected a seed from 0 to 2^63 - 1, got {seed}; try 0")
    batch = min(MAX_BATCH, max(1, BATCH_POINTS // math.prod(description.shape)))
    if description.times:
        batch = min(batch, max(1, BATCH_BYTES // description.sample_bytes))
    fitting = min(MAX_SHARD_SAMPLES, SHARD_BYTES // description.sample_bytes)
    return Plan(
        description=description,
        seed=seed,
        counts=split_counts(samples, DEFAULT_SPLITS if splits is None else splits),
        batch=batch,
        shard_samples=max(1, fitting // batch) * batch,
    )


def split_counts(samples: int, splits: Mapping[str, float]) -> dict[str, int]:
    """Divide ``samples`` in proportion to ``splits``, by largest remainders; splits that get none are left out.

    >>> split_counts(10, {"train": 0.8, "valid": 0.1, "test": 0.1})
    {'train': 8, 'valid': 1, 'test': 1}
    """
    unknown = sorted(set(splits) - set(SPLITS))
    sizes = list(splits.values())
    if unknown or not all(math.isfinite(size) and size >= 0 for size in sizes) or not 0 < sum(sizes) < math.inf:
        raise ArgumentError(
            f"expected sizes >= 0 for splits among {list(SPLITS)}, got {dict(splits)}; "
            "try {'train': 0.8, 'valid': 0.1, 'test': 0.1}"
        )
    shares = {name: samples * size / sum(sizes) for name, size in splits.items()}
    # Shares are rounded to nine digits first: 0.1 * 30 / (0.8 + 0.1 + 0.1) must be three.
    counts = {name: math.floor(round(share, 9)) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (-round(shares[name] - counts[name], 9), SPLITS.index(name)))
    for name in by_remainder[: samples - sum(counts.values())]:
        counts[name] += 1
    return {name: counts[name] for name in SPLITS if counts.get(name)}


def sample_seed(seed: int, index: int) -> int:
    """Seed of sample ``index``: a bijection of 32-bit numbers for every dataset ``seed``.

    torch's CPU generator keeps the low 32 bits of a seed, so that an ordinary hash would repeat one in every pair with
    chance 2^-32: likely once among 10^5 samples, perhaps across splits. A bijection never repeats. The mixing steps are
    the finalizer of MurmurHash3 (Appleby, public domain), whose steps can each be undone.
    """
    key = hashlib.sha256(f"neuralop_kit dataset {seed}".encode()).digest()
    mixed = _mix(index) ^ int.from_bytes(key[:4], "little")
    return _mix(mixed) ^ int.from_bytes(key[4:8], "little")


def _mix(number: int) -> int:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        number = (number ^ number >> shift) * factor & 0xFFFFFFFF
    return number ^ number >> 16
