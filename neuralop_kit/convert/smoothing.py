"""One axis at a time: what lies beyond its ends, sums over neighbours, a cut of its spectrum."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from neuralop_kit.layers.fourier import products_are_rounded
from neuralop_kit.solvers.errors import ArgumentError

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
    n = x.shape[dim]
    if ends.mode == "circular":
        return x.index_select(dim, torch.arange(-before, n + after, device=x.device) % n)
    kept = x.narrow(dim, max(-before, 0), n - max(-before, 0) - max(-after, 0))
    if before <= 0 and after <= 0:
        return kept
    far = _behind(x, dim, max(after, 0), ends)
    near = _behind(x.flip(dim), dim, max(before, 0), ends).flip(dim)
    return torch.cat((near, kept, far), dim=dim)


def _behind(x: Tensor, dim: int, count: int, ends: Extension) -> Tensor:
    """``count`` values behind the last one, in rising order."""
    n = x.shape[dim]
    last = x.narrow(dim, n - 1, 1)
    at_wall = last + ends.wall * (last - x.narrow(dim, max(n - 2, 0), 1))
    if ends.mode == "zeros":
        heights = 1 - torch.arange(1, count + 1, dtype=x.dtype, device=x.device) / ends.ramp
        falling = last * heights.clamp(min=0).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
        jumps = ends.wall == 1 and count > 0
        return torch.cat((at_wall / 2, falling.narrow(dim, 1, count - 1)), dim=dim) if jumps else falling
    if ends.mode == "replicate":
        return at_wall.expand([count if d == dim else -1 for d in range(x.ndim)])
    # The place of the mirror, in half spacings behind the last point.
    mirror = round(2 * ends.wall)
    index = torch.arange(count, device=x.device)
    period = max(2 * (n - 1) + 2 * mirror, 1)
    place = (index + 1 - mirror) % period
    image = n - 1 - torch.minimum(place, period - place) if mirror == 0 else n - 1 - (index - (mirror - 1))
    mirrored = x.index_select(dim, image.clamp(0, n - 1))
    return mirrored if mirror < 2 or count == 0 else torch.cat((at_wall, mirrored.narrow(dim, 1, count - 1)), dim=dim)


def convolve_axis(x: Tensor, dim: int, weights: list[float], *, step: int = 1) -> Tensor:
    """Weighted sums over neighbours along a dimension, where all of them exist; every ``step``-th of them."""
    lines = x.reshape(math.prod(x.shape[:dim]), 1, x.shape[dim], math.prod(x.shape[dim + 1 :]))
    kernel = torch.tensor(weights, dtype=x.dtype, device=x.device)[None, None, :, None]
    summed = functional.conv2d(lines, kernel, stride=(step, 1))
    return summed.reshape(*x.shape[:dim], -1, *x.shape[dim + 1 :])


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
