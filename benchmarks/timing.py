"""Timing in alternation: A B A B in one process, so that a busy machine slows both sides and the ratio survives."""

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.measures import Work
from benchmarks.settings import Profile

Clock = Callable[[Work, int], float]
NUM_BOOTSTRAP = 2000


def wall_clock(work: Work, num_calls: int) -> float:
    """Seconds per call on the CPU."""
    start = time.perf_counter()
    for _ in range(num_calls):
        work()
    return (time.perf_counter() - start) / num_calls


def cuda_clock(work: Work, num_calls: int) -> float:
    """Seconds per call between two CUDA events; the queue is empty before the first, so launch costs count."""
    torch.cuda.synchronize()
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(num_calls):
        work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) * 1e-3 / num_calls


def clock_for(device: torch.device) -> Clock:
    """The clock that waits for the device's work."""
    return cuda_clock if device.type == "cuda" else wall_clock


@dataclass(frozen=True)
class Samples:
    """What was measured: seconds per call, one list per side; ``order`` says who ran when, one letter per sample."""

    seconds: tuple[tuple[float, ...], ...]
    calls_per_sample: tuple[int, ...]
    order: str


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    lower_quartile: float
    upper_quartile: float


@dataclass(frozen=True)
class Ratio(Spread):
    """Median of the per-pair ratios, its quartiles, and a 95 % bootstrap interval of the median."""

    low: float
    high: float


def interleave(works: Sequence[Work], profile: Profile, clock: Clock) -> Samples:
    """Warm up each side, then alternate samples until the profile's time is used or its largest number reached.

    Python's garbage collector rests meanwhile: it would strike at random, mostly the side that allocates less.
    """
    calls = tuple(warm_up(work, profile, clock) for work in works)
    seconds: list[list[float]] = [[] for _ in works]
    order: list[str] = []
    with resting_garbage_collector():
        start = time.perf_counter()
        while wants_another_pair(len(seconds[0]), time.perf_counter() - start, profile):
            for side, work in enumerate(works):
                order.append("AB"[side])
                seconds[side].append(clock(work, calls[side]))
    return Samples(tuple(map(tuple, seconds)), calls, "".join(order))


def warm_up(work: Work, profile: Profile, clock: Clock) -> int:
    """Untimed calls; returns how many calls fill one sample."""
    start = time.perf_counter()
    last = clock(work, 1)
    while time.perf_counter() - start < profile.warm_up_seconds:
        last = clock(work, 1)
    return max(1, math.ceil(profile.sample_seconds / max(last, 1e-9)))


def wants_another_pair(num_pairs: int, elapsed: float, profile: Profile) -> bool:
    """At least the smallest number, at most the largest, in between as time allows."""
    if num_pairs < profile.min_pairs:
        return True
    return num_pairs < profile.max_pairs and elapsed * (num_pairs + 1) / num_pairs < profile.seconds


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(median), float(lower), float(upper))


def ratio_of(samples: Samples, *, seed: int = 0) -> Ratio:
    """The second side's time over the first's, pair by pair: above one means that the first is faster.

    >>> ratio_of(Samples(((1.0, 1.0), (2.0, 4.0)), (1, 1), "ABAB")).median
    3.0
    """
    ours, peer = (np.asarray(side) for side in samples.seconds)
    ratios = peer / ours
    drawn = np.random.default_rng(seed).integers(0, len(ratios), (NUM_BOOTSTRAP, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    middle = spread(ratios.tolist())
    return Ratio(middle.median, middle.lower_quartile, middle.upper_quartile, float(low), float(high))


@contextlib.contextmanager
def resting_garbage_collector() -> Iterator[None]:
    """Collect once, then not at all; afterwards as before."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
