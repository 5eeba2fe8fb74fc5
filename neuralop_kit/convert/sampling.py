"""How an output line reads an input line, and how values move between resolutions of one line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.convert.grid import Dim, Layout, Line, Size, is_free, sizes_at
from neuralop_kit.convert.kernels import Dilated, Kernel
from neuralop_kit.convert.smoothing import Extension
from neuralop_kit.layers.constants import constant
from neuralop_kit.layers.interpolation import Cubic, Interpolation, Trigonometric


@dataclass(frozen=True)
class Reading:
    """Indices on a fine grid: tap ``j`` of output ``i`` reads ``first + shift + step * i + gap * j``."""

    first: int
    shift: float
    step: int
    gap: int
    count: int

    def overhang(self, num_points: int, taps: int) -> tuple[int, int]:
        """How many values are wanted before the first and after the last point."""
        last = self.first + self.step * (self.count - 1) + self.gap * (taps - 1)
        return -self.first, last - (num_points - 1)


class Window:
    """``taps`` points of ``source``, ``dilation`` reference spacings apart, around every point of ``target``.

    Fractions are for here; :meth:`read` computes with integers, which compilers understand.
    """

    def __init__(self, source: Line, target: Line, taps: int = 1, dilation: int = 1) -> None:
        self.source, self.target, self.taps, self.dilation = source, target, taps, dilation
        self.stride = int(target.spacing / source.spacing)
        start = (target.start - source.start) / source.spacing - Fraction(dilation * (taps - 1), 2)
        # Twice the first index, in which nodes between two points are whole numbers: slope * ratio + constant.
        constant, own = 2 * source.offset * (self.stride - 1), 2 * source.offset * self.stride
        self.slope = int(2 * start + own) if target.held else int(2 * start)
        self.constant = int(-2 * source.offset) if target.held else int(constant)

    @classmethod
    def strided(
        cls, source: Line, taps: int, *, dilation: int, stride: int, left: int, count: int, hold: bool
    ) -> "Window":
        """Of a convolution or pooling that begins ``left`` points before the line; its points are window centres."""
        first = source.first(1) + source.spacing * (Fraction(dilation * (taps - 1), 2) - left)
        target = source.moved(first=first, spacing=source.spacing * stride, num_points=count, held=hold)
        return cls(source, target, taps, dilation)

    def read(self, ratio: int) -> Reading:
        """At a ratio of the source."""
        out = self.target.out_ratio(ratio)
        twice = self.slope * ratio + self.constant
        return Reading(
            first=twice // 2,
            shift=(twice % 2) / 2,
            step=self.stride * ratio // out,
            gap=ratio * self.dilation,
            count=self.target.refined(out),
        )


def natural_ends(line: Line, kernel: Kernel | None = None) -> Extension:
    """What lies beyond a line that the network never padded: its other end, or its last value."""
    return Extension("circular" if line.wraps else "replicate", wall=wall_of(line, kernel))


def wall_of(line: Line, kernel: Kernel | None) -> float:
    """Distance of the wall from the last point; 0 for kernels that read points as they are."""
    return 0.0 if kernel in (None, Dilated()) or line.nodes.name not in ("cell", "interior") else float(line.offset)


def to_reference(x: Tensor, dim: int, line: Line, kernel: Kernel) -> Tensor:
    """Values at the reference points: averages against the kernel around each; the same tensor at ratio 1."""
    ratio = line.ratio(x.shape[dim])
    if ratio == 1:
        return x
    reading = Window(line, replace(line, held=True)).read(ratio)
    before, after = reading.overhang(x.shape[dim], 1)
    smooth = kernel.smooth(
        x, dim, line, ratio=ratio, shift=reading.shift, before=before, after=after, ends=natural_ends(line, kernel)
    )
    return smooth[(slice(None),) * dim + (slice(None, None, reading.step),)]


def interpolation_on(line: Line) -> Interpolation:
    """A Fourier series where the line is a circle, cubics elsewhere."""
    return Trigonometric() if line.wraps else Cubic()


def move(x: Tensor, dim: int, line: Line, num_points: int) -> Tensor:
    """Values along a dimension on another refinement of its line, by interpolation."""
    if x.shape[dim] == num_points:
        return x
    lines = x.reshape(math.prod(x.shape[:dim]), x.shape[dim], math.prod(x.shape[dim + 1 :]))
    moved = interpolation_on(line)(lines, line.as_axis(), num_points)
    return moved.reshape(*x.shape[:dim], num_points, *x.shape[dim + 1 :])


def reference_of(x: Tensor, layout: Layout, ratios: Sequence[int], kernel: Kernel) -> Tensor:
    """Every free line of a tensor at its reference points, also inside of flattened dimensions."""
    for index in reversed(range(len(layout))):
        if is_free(layout[index]) and any(ratio != 1 for ratio in ratios):
            x = _through_parts(x, index, layout[index], sizes_at(layout[index], ratios), kernel)
    return x


def _through_parts(x: Tensor, dim: int, atoms: Dim, sizes: Sequence[int], kernel: Kernel) -> Tensor:
    parts = _unflatten(x, dim, atoms, sizes)
    for offset, atom in enumerate(atoms):
        if isinstance(atom, Line) and not atom.held:
            parts = to_reference(parts, dim + offset, atom, kernel)
    return parts.flatten(dim, dim + len(atoms) - 1)


def refine_dim(x: Tensor, dim: int, target: Dim, ratios: Sequence[int]) -> Tensor:
    """Interpolate a dimension from the reference points to those of ``target``."""
    wanted = sizes_at(target, ratios)
    if x.shape[dim] == math.prod(wanted):
        return x
    parts = _unflatten(x, dim, target, [atom.num_points for atom in target])
    for offset, (atom, size) in enumerate(zip(target, wanted, strict=True)):
        if isinstance(atom, Line):
            parts = move(parts, dim + offset, atom, size)
    return parts.flatten(dim, dim + len(target) - 1)


def _unflatten(x: Tensor, dim: int, atoms: Dim, sizes: Sequence[int]) -> Tensor:
    # A batch may have any size.
    known = [-1 if isinstance(atom, Size) and atom.is_batch else n for atom, n in zip(atoms, sizes, strict=True)]
    return x.unflatten(dim, known)


def measure(line: Line, num_points: int, like: Tensor, *, trapezoid: bool) -> Tensor | None:
    """What the points of a line weigh in a sum over them; ``None`` where all weigh the same.

        w_i = q_i rho(x_i) / r,      q_i the trapezoidal rule in spacings, rho piecewise linear

    A plain sum over the reference points gives those next to a wall more than the trapezoidal rule does. The density
    ``rho`` keeps this: 1 over the weight of each reference point, linear between them. So the weights are one at the
    reference, add up to ``num_points`` there at every ratio, and converge with second order to one integral.

    Args:
        line: the points.
        num_points: how many there are.
        like: gives dtype and device.
        trapezoid: leave the density out. The sum is then that of the trapezoidal rule, at the reference too, where
            the original gave something else.
    """
    ends = line.nodes.end_weights(line.num_points)
    if line.is_measure or ends == (1.0, 1.0) or (num_points == line.num_points and not trapezoid):
        return None
    ratio = line.ratio(num_points)
    return _measure(line.num_points, num_points, ratio, line.nodes.offset, ends, trapezoid, like.dtype, like.device)


@constant
def _measure(
    num_reference: int, num_points: int, ratio: int, offset: float, ends: tuple[float, float], trapezoid: bool
) -> NDArray[np.float64]:
    weights = _end_weights(num_points, ends) / ratio
    if trapezoid:
        return weights * (num_reference / weights.sum())
    places, trained = (np.arange(num_points) + offset) / ratio, np.arange(num_reference) + offset
    weighted: NDArray[np.float64] = weights * np.interp(places, trained, 1 / _end_weights(num_reference, ends))
    return weighted


def _end_weights(num_points: int, ends: tuple[float, float]) -> NDArray[np.float64]:
    """One, but for the first and the last."""
    weights = np.ones(num_points)
    weights[0] *= ends[0]
    weights[-1] *= ends[1] if num_points > 1 else 1.0
    return weights


def measure_of(dim: Dim, sizes: Sequence[int], like: Tensor, *, trapezoid: bool) -> Tensor | None:
    """Weights of a dimension that holds several lines, flattened in order; ``None`` where all are the same."""
    parts = [
        measure(atom, n, like, trapezoid=trapezoid) if isinstance(atom, Line) else None
        for atom, n in zip(dim, sizes, strict=True)
    ]
    if all(part is None for part in parts):
        return None
    total = torch.ones((), dtype=like.dtype, device=like.device)
    for atom, n, part in zip(dim, sizes, parts, strict=True):
        even = like.new_full((n,), atom.num_points / n)
        total = total.unsqueeze(-1) * (even if part is None else part)
    return total.flatten()
