"""One axis at a time: what lies beyond its ends, sums over neighbours, a cut of its spectrum."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.layers.constants import constant
from neuralop_kit.layers.fourier import left_multiply, products_are_rounded
from neuralop_kit.layers.interpolation import MAX_DENSE_POINTS
from neuralop_kit.solvers.errors import ArgumentError

Array = NDArray[np.float64]
MODES = ("zeros", "circular", "reflect", "replicate")


@dataclass(frozen=True)
class Extension:
    """What lies beyond the ends of a line.

    Args:
        mode: as in ``nn.Conv2d``: ``"zeros"``, ``"circular"``, ``"reflect"`` or ``"replicate"``.
        ramp: points over which the values fall to zero behind an end that is a node, with ``"zeros"``. A trained layer
            saw zero one *reference* spacing behind the wall; a straight line to there keeps the function continuous,
            so that sums over it converge with second order. 1 is an immediate zero.
        wall: distance of the wall from the last point, in spacings. The function is mirrored at the wall, or goes on
            with its value there, found by a straight line through two points; where it jumps to zero at a wall that is
            a place of the grid, the place has the mean of both sides. 0 repeats and mirrors points by their index.
    """

    mode: str
    ramp: int = 1
    wall: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ArgumentError(f"expected a padding mode among {list(MODES)}, got {self.mode!r}; take 'zeros'")


def extend(x: Tensor, dim: int, before: int, after: int, ends: Extension) -> Tensor:
    """``before`` values in front of a dimension and ``after`` behind it; negative numbers cut."""
    if before == 0 and after == 0:
        return x
    n = operator.index(x.shape[dim])
    if ends.mode == "circular":
        return x.index_select(dim, torch.arange(-before, n + after, device=x.device) % n)
    parts = [x.narrow(dim, max(-before, 0), n - max(-before, 0) - max(-after, 0))]
    if before > 0:
        seen = _num_seen(n, before, ends)
        parts.insert(0, _multiply(_in_front, (seen, before, ends), x.narrow(dim, 0, seen), dim))
    if after > 0:
        seen = _num_seen(n, after, ends)
        parts.append(_multiply(_behind, (seen, after, ends), x.narrow(dim, n - seen, seen), dim))
    return torch.cat(parts, dim=dim) if len(parts) > 1 else parts[0]


def weigh(
    x: Tensor, dim: int, weights: Sequence[float], *, lowest: int, before: int, after: int, ends: Extension,
    step: int = 1,
) -> Tensor:  # fmt: skip
    """Weighted sums over neighbours along a dimension, from ``before`` places ahead of it to ``after`` behind it.

        v_i = sum_m weights_m x_{step i - before + lowest + m}

    On lines of up to 256 points one dense product, whose cost does not depend on the number of weights; else a sum of
    shifted copies. As a convolution of one channel, which this is too, it takes torch over ten times as long on a CPU.

    Args:
        x: the values.
        dim: dimension along which to sum.
        weights: of neighbours, in rising order.
        lowest: index of the first of them, relative to the place asked for.
        before, after: how many places are asked for in front of the first point and behind the last; may be negative.
        ends: what lies there.
        step: between places.
    """
    n, highest = operator.index(x.shape[dim]), lowest + len(weights) - 1
    if n <= MAX_DENSE_POINTS:
        sizes = (n, tuple(weights), before - lowest, after + highest, ends, step)
        return _multiply(_weights_of_points, sizes, x, dim)
    extended = extend(x, dim, before - lowest, after + highest, ends)
    num_places = extended.shape[dim] - len(weights) + 1
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for m, weight in enumerate(weights):
        total = torch.add(total, extended.narrow(dim, m, num_places)[(slice(None),) * dim + (slice(None, None, step),)],
                          alpha=weight)  # fmt: skip
    return total


def _multiply(matrix: Callable[..., Tensor], sizes: tuple[Any, ...], x: Tensor, dim: int) -> Tensor:
    """A matrix of these sizes times the lines along a dimension."""
    with torch.autocast(x.device.type, enabled=False):
        # Rounding to ten bits would move even values that are only copied.
        exact = x.double() if products_are_rounded(x) else x.to(torch.promote_types(x.dtype, torch.float32))
        lines = exact.reshape(math.prod(x.shape[:dim]), x.shape[dim], math.prod(x.shape[dim + 1 :]))
        moved = left_multiply(matrix(*sizes, exact.dtype, x.device), lines)
        # Of an empty batch, -1 could be any number.
        return moved.reshape(*x.shape[:dim], moved.shape[1], *x.shape[dim + 1 :]).to(x.dtype)


def _num_seen(n: int, count: int, ends: Extension) -> int:
    """Of how many values next to an end ``count`` values behind it are made."""
    return min(n, max(count + 1, 2) if ends.mode == "reflect" else 2)


def _rows_behind(n: int, count: int, ends: Extension) -> Array:
    """Matrix ``(count, n)`` from the values of a line to those behind the last one, in rising order."""
    rows, at_wall = np.zeros((count, n)), np.zeros(n)
    at_wall[n - 1] += 1 + ends.wall
    at_wall[max(n - 2, 0)] -= ends.wall
    if ends.mode == "zeros":
        rows[:, n - 1] = np.maximum(1 - np.arange(1, count + 1) / ends.ramp, 0)
        if ends.wall == 1:
            rows[:1] = at_wall / 2
    elif ends.mode == "replicate":
        rows[:] = at_wall
    else:
        # The place of the mirror, in half spacings behind the last point.
        mirror, index = round(2 * ends.wall), np.arange(count)
        period = max(2 * (n - 1), 1)
        place = (index + 1) % period
        image = n - 1 - np.minimum(place, period - place) if mirror == 0 else n - index - 2 + mirror
        rows[index, np.clip(image, 0, n - 1)] = 1
        if mirror >= 2:
            rows[:1] = at_wall
    return rows


@constant
def _behind(n: int, count: int, ends: Extension) -> Array:
    return _rows_behind(n, count, ends)


@constant
def _in_front(n: int, count: int, ends: Extension) -> Array:
    return _rows_behind(n, count, ends)[::-1, ::-1].copy()


@constant
def _weights_of_points(
    n: int, weights: tuple[float, ...], before: int, after: int, ends: Extension, step: int
) -> Array:
    """Matrix from the values of a line to the sums of :func:`weigh`; ``before`` and ``after`` as in :func:`extend`."""
    if ends.mode == "circular":
        extended = np.eye(n)[np.arange(-before, n + after) % n]
    else:
        front = _rows_behind(n, max(before, 0), ends)[::-1, ::-1]
        extended = np.concatenate((front, np.eye(n), _rows_behind(n, max(after, 0), ends)))
        extended = extended[max(-before, 0) : len(extended) - max(-after, 0)]
    num_places = len(extended) - len(weights) + 1
    total = np.zeros((num_places, n))
    for m, weight in enumerate(weights):
        total += weight * extended[m : m + num_places]
    return total[::step]


def low_pass(x: Tensor, dim: int, highest: int, shift: float) -> Tensor:
    """Drop what oscillates faster than ``highest`` along a periodic dimension, and read ``shift`` spacings further."""
    n = x.shape[dim]
    exact = x if x.dtype == torch.float64 or not products_are_rounded(x) else x.float()
    spectrum = torch.fft.rfft(exact, dim=dim, norm="forward")
    k = torch.arange(spectrum.shape[dim], device=x.device)
    phase = (2 * math.pi * shift / n) * k.to(exact.dtype)
    factor = torch.polar((k <= highest).to(exact.dtype), phase)
    return torch.fft.irfft(
        spectrum * factor.reshape([-1 if i == dim else 1 for i in range(x.ndim)]), n=n, dim=dim, norm="forward"
    ).to(x.dtype)
