"""What lies between the trained taps of a convolution: hat, cubic, a Fourier series, or nothing."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuralop_kit.convert.grid import Line
from neuralop_kit.convert.smoothing import Extension, extend, low_pass, weigh
from neuralop_kit.solvers.errors import ArgumentError


@dataclass(frozen=True)
class Kernel(ABC):
    """A cardinal function: one at zero, zero at the other integers. It makes a function out of trained taps.

        K(y) = h0^-d sum_j w_j phi(y/h0 - j),        (K f)(x) = sum_i K(x - x_i) f(x_i) h^d

    At ``h = h0`` this is the trained layer; as ``h`` falls it converges to the integral. For integer ``r = h0/h`` it
    equals a smoothing along each axis with weights ``phi(m/r)/r``, then the taps ``r`` points apart. Leaves are plain
    values; :meth:`smooth` must do nothing at ``r = 1``.
    """

    name: ClassVar[str]
    order: ClassVar[str]

    def smooth(
        self, x: Tensor, dim: int, line: Line, *, ratio: int, shift: float, before: int, after: int, ends: Extension
    ) -> Tensor:
        """Smooth along one dimension, and read between the points.

        Args:
            x: tensor with the line's points along ``dim``.
            dim: dimension.
            line: its points.
            ratio: ``h0/h`` on this line.
            shift: of the values wanted from the points there are, in spacings, in [0, 1).
            before, after: how many values are wanted before the first and after the last point; may be negative.
            ends: what lies there.
        """
        weights, lowest = self.weights(ratio, shift)
        if len(weights) == 1:
            return extend(x, dim, before - lowest, after + lowest, ends)
        return weigh(x, dim, weights, lowest=lowest, before=before, after=after, ends=ends)

    @abstractmethod
    def weights(self, ratio: int, shift: float) -> tuple[list[float], int]:
        """Of the points around the one asked for, and the index of the first of them relative to it."""


class _Cardinal(Kernel):
    """A kernel with a piecewise polynomial of bounded support."""

    support: ClassVar[int]

    def weights(self, ratio: int, shift: float) -> tuple[list[float], int]:
        """``phi((m - shift) / r) / r`` inside of the support."""
        if ratio == 1 and shift == 0:
            return [1.0], 0
        reach = self.support * ratio
        indices = [m for m in range(-reach, reach + 2) if abs(m - shift) < reach]
        return [self.value(abs(m - shift) / ratio) / ratio for m in indices], indices[0]

    @abstractmethod
    def value(self, distance: float) -> float:
        """``phi`` at a non-negative argument."""


@dataclass(frozen=True)
class Hat(_Cardinal):
    """Straight lines between the taps; second order.

    >>> Hat().weights(2, 0.0)
    ([0.25, 0.5, 0.25], -1)
    """

    name = "hat"
    order = "2"
    support = 1

    def value(self, distance: float) -> float:
        """``1 - t``."""
        return max(1 - distance, 0.0)


@dataclass(frozen=True)
class Cubic(_Cardinal):
    """Keys' cubic between the taps; fourth order on periodic axes, second order next to walls.

    Source: Keys (1981), eq. 15.

    >>> weights, first = Cubic().weights(2, 0.0)
    >>> sum(weights), first
    (1.0, -3)
    """

    name = "cubic"
    order = "4 (2 at walls)"
    support = 2

    def value(self, distance: float) -> float:
        """``3/2 t^3 - 5/2 t^2 + 1`` up to one, ``-1/2 t^3 + 5/2 t^2 - 4 t + 2`` up to two."""
        t = distance
        if t >= 2:
            return 0.0
        return (3 * t**3 - 5 * t**2 + 2) / 2 if t < 1 else (-(t**3) + 5 * t**2 - 8 * t + 4) / 2


@dataclass(frozen=True)
class Dilated(Kernel):
    """Nothing between the taps: each reads the one point at its distance. Exact at common points, at every ratio.

    The ``r^d`` interleaved grids then never interact, and output appears above the reference's Nyquist wavenumber.
    Half-way between points, which happens on ``cell`` nodes behind a stride, four of them are interpolated.
    """

    name = "dilated"
    order = "exact at common points"

    def weights(self, ratio: int, shift: float) -> tuple[list[float], int]:
        """One, or the cubic through four points."""
        if shift == 0:
            return [1.0], 0
        t = shift
        return [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ], -1


@dataclass(frozen=True)
class Spectral(Kernel):
    """The Fourier series between the taps, cut at the reference's Nyquist wavenumber; periodic axes only."""

    name = "spectral"
    order = "spectral"

    def smooth(
        self, x: Tensor, dim: int, line: Line, *, ratio: int, shift: float, before: int, after: int, ends: Extension
    ) -> Tensor:
        """Cut the spectrum along ``dim`` and move it by ``shift``."""
        smoothed = low_pass(x, dim, line.num_points // 2, shift) if ratio > 1 or shift else x
        return extend(smoothed, dim, before, after, ends)

    def weights(self, ratio: int, shift: float) -> tuple[list[float], int]:
        """There are none: the support is the whole axis."""
        raise NotImplementedError


KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in (Hat(), Cubic(), Spectral(), Dilated())}


def kernel_of(choice: Kernel | str) -> Kernel:
    """A kernel, given as such or by name.

    Raises:
        ArgumentError: there is none of this name.
    """
    if isinstance(choice, Kernel):
        return choice
    if choice not in KERNELS:
        raise ArgumentError(f"expected a kernel among {sorted(KERNELS)}, got {choice!r}; take Hat()")
    return KERNELS[choice]


def box_weights(width: int, shift: float) -> tuple[list[float], int]:
    """Average over an interval of ``width`` spacings around a place ``shift`` behind a point.

    A point stands for the spacing around it, so that one at the edge of the interval counts half.

    >>> box_weights(2, 0.0)
    ([0.25, 0.5, 0.25], -1)
    """
    low, high = shift - width / 2, shift + width / 2
    inside = [(m, min(m + 0.5, high) - max(m - 0.5, low)) for m in range(-width - 1, width + 3)]
    kept = [(m, length) for m, length in inside if length > 0]
    return [length / width for _, length in kept], kept[0][0]
