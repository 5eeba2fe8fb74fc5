"""How a function on one axis moves to another grid of the same axis: one linear map per rule and pair of sizes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.layers.constants import constant
from neuralop_kit.layers.fourier import Line, left_multiply, products_are_rounded
from neuralop_kit.registry import register_component
from neuralop_kit.solvers.domain import Axis
from neuralop_kit.solvers.errors import DomainError

# Up to here one dense product costs no more than the two FFTs, or the gathers and sums, that replace it.
MAX_DENSE_POINTS = 256


@dataclass(frozen=True)
class Interpolation(ABC):
    """A rule for one axis; leaves are plain values without learned parameters."""

    @abstractmethod
    def __call__(self, values: Tensor, axis: Axis, num_points: int) -> Tensor:
        """Values on the grid of ``num_points``: ``(batch, num_old, rest) -> (batch, num_points, rest)``."""

    @abstractmethod
    def check(self, axis: Axis) -> None:
        """Raise a :class:`DomainError` unless the rule goes with the axis."""


@register_component("trigonometric")
@dataclass(frozen=True)
class Trigonometric(Interpolation):
    """The Fourier series of the values on a periodic axis, cut where the coarser of the two grids ends.

        u(x) = sum_{|k| <= min(N, M) / 2} u_k exp(2 pi i k x / L)

    Exact for functions that both grids carry, for every pair of sizes; spectrally accurate for smooth ones. The Nyquist
    mode of an even grid is a cosine, ``(-1)^j``, and keeps its amplitude in both directions. Going to a coarser grid
    drops what it cannot carry, instead of aliasing it; values at common points then change.
    """

    def __call__(self, values: Tensor, axis: Axis, num_points: int) -> Tensor:
        """One matrix on short axes, two FFTs on long ones."""
        num_old, offset = values.shape[1], axis.placement.offset
        if _is_dense(values):
            matrix = _trigonometric_matrix(num_old, num_points, offset, values.dtype, values.device)
            return left_multiply(matrix, values)
        factor = torch.view_as_complex(_trigonometric_factor(num_old, num_points, offset, values.dtype, values.device))
        spectrum = torch.fft.rfft(values, dim=1, norm="forward")[:, : len(factor)]
        return torch.fft.irfft(spectrum * factor[:, None], n=num_points, dim=1, norm="forward")

    def check(self, axis: Axis) -> None:
        """Periodic axes only."""
        if not axis.is_periodic:
            raise DomainError(f"expected a periodic axis for {self}, got {axis}; take CosineSeries or Cubic")


@dataclass(frozen=True)
class MirrorSeries(Interpolation):
    """Trigonometric interpolation of the mirror image: the values, then their reflection times ``sign``."""

    def __call__(self, values: Tensor, axis: Axis, num_points: int) -> Tensor:
        """Continue to twice the length, interpolate there, keep the first half."""
        circle = Axis(axis.start, axis.stop + axis.length, "periodic", "cell" if axis.nodes == "cell" else "left")
        mirrored = self.mirror(values, axis)
        num_circle = 2 * axis.placement.num_intervals(num_points)
        return Trigonometric()(mirrored, circle, num_circle).narrow(1, int(axis.nodes == "interior"), num_points)

    @abstractmethod
    def mirror(self, values: Tensor, axis: Axis) -> Tensor:
        """Values on the circle, which starts at the near wall."""


@register_component("cosine_series")
@dataclass(frozen=True)
class CosineSeries(MirrorSeries):
    """The cosine series of the values, cut where the coarser grid ends: for functions with zero slope at both walls.

    Exact for finite cosine series that both grids carry. Error O(h^3) for other smooth functions with zero slope,
    O(h) near the walls for those with a slope; :class:`Cubic` is better then.
    """

    def mirror(self, values: Tensor, axis: Axis) -> Tensor:
        """Even continuation."""
        return torch.cat((values, values.flip(1) if axis.nodes == "cell" else values[:, 1:-1].flip(1)), dim=1)

    def check(self, axis: Axis) -> None:
        """Walls, or cell centres next to them, must be points."""
        if axis.is_periodic or axis.nodes == "interior":
            raise DomainError(f"expected walls with vertex or cell nodes for {self}, got {axis}; take Cubic")


@register_component("sine_series")
@dataclass(frozen=True)
class SineSeries(MirrorSeries):
    """The sine series of the values, cut where the coarser grid ends: for functions that vanish at both walls.

    Exact for finite sine series that both grids carry. Error O(h^2) for other smooth functions that vanish at the
    walls, O(1) next to a wall where the function does not; values on the walls themselves are taken to be zero.
    """

    def mirror(self, values: Tensor, axis: Axis) -> Tensor:
        """Odd continuation."""
        if axis.nodes == "cell":
            return torch.cat((values, -values.flip(1)), dim=1)
        inside = values[:, 1:-1] if axis.nodes == "vertex" else values
        wall = torch.zeros_like(values[:, :1])
        return torch.cat((wall, inside, wall, -inside.flip(1)), dim=1)

    def check(self, axis: Axis) -> None:
        """There must be walls."""
        if axis.is_periodic:
            raise DomainError(f"expected an axis with walls for {self}, got {axis}; take Trigonometric")


@dataclass(frozen=True)
class Lagrange(Interpolation):
    """The polynomial through the nearest points, ``num_taps`` of them, or all if there are fewer.

    Near walls the nearest points are one-sided; nothing is assumed about the function behind them. Points between a
    wall and the first old point, on ``cell`` and ``interior`` nodes, are extrapolated by at most a spacing. Going to a
    coarser grid samples the interpolant: what the coarse grid cannot carry is aliased, values at common points stay.
    """

    num_taps: ClassVar[int]

    def __call__(self, values: Tensor, axis: Axis, num_points: int) -> Tensor:
        """One matrix on short axes, gathers and sums on long ones."""
        sizes = (self.num_taps, axis, values.shape[1], num_points)
        if _is_dense(values):
            return left_multiply(_lagrange_matrix(*sizes, values.dtype, values.device), values)
        taps = _lagrange_taps(*sizes, torch.int64, values.device)
        weights = _lagrange_weights(*sizes, values.dtype, values.device)
        moved = weights[0, :, None] * values.index_select(1, taps[0])
        for tap, weight in zip(taps[1:], weights[1:], strict=True):
            moved = moved + weight[:, None] * values.index_select(1, tap)
        return moved

    def check(self, axis: Axis) -> None:
        """Every axis will do."""


@register_component("linear_interpolation")
@dataclass(frozen=True)
class Linear(Lagrange):
    """Straight lines between neighbours: error O(h^2), no overshoot inside the grid, kinks at the old points."""

    num_taps = 2


@register_component("cubic_interpolation")
@dataclass(frozen=True)
class Cubic(Lagrange):
    """Cubics through the four nearest points: error O(h^4) up to the walls; overshoots at jumps, by up to 1/8."""

    num_taps = 4


def _is_dense(values: Tensor) -> bool:
    return values.shape[1] <= MAX_DENSE_POINTS and not products_are_rounded(values)


@constant
def _trigonometric_matrix(num_old: int, num_new: int, offset: float) -> NDArray[np.float64]:
    old, new = _lines(num_old, num_new, offset)
    # Each coefficient stands for itself and its conjugate, except for the mean.
    count = np.where(old.wavenumbers == 0, 1, 2)
    return ((new.synthesis() * count) @ old.analysis()).real


@constant
def _trigonometric_factor(num_old: int, num_new: int, offset: float) -> NDArray[np.float64]:
    """Between the two FFTs: move the first point, and count the Nyquist mode right, which each of them halves."""
    old, new = _lines(num_old, num_new, offset)
    factor = new.synthesis()[0] * old.analysis()[:, 0] * num_old
    factor = factor * np.where(2 * new.wavenumbers == num_new, 2, 1)
    return np.stack((factor.real, factor.imag), axis=-1)


def _lines(num_old: int, num_new: int, offset: float) -> tuple[Line, Line]:
    highest = min(num_old, num_new) // 2
    return Line(num_old, highest, offset, one_sided=True), Line(num_new, highest, offset, one_sided=True)


@constant
def _lagrange_taps(num_taps: int, axis: Axis, num_old: int, num_new: int) -> NDArray[np.int64]:
    """Indices of the points that each new point uses, ``(taps, num_new)``."""
    return _stencils(num_taps, axis, num_old, num_new)[0]


@constant
def _lagrange_weights(num_taps: int, axis: Axis, num_old: int, num_new: int) -> NDArray[np.float64]:
    """And their weights."""
    return _stencils(num_taps, axis, num_old, num_new)[1]


@constant
def _lagrange_matrix(num_taps: int, axis: Axis, num_old: int, num_new: int) -> NDArray[np.float64]:
    taps, weights = _stencils(num_taps, axis, num_old, num_new)
    matrix = np.zeros((num_new, num_old))
    np.add.at(matrix, (np.arange(num_new), taps), weights)
    return matrix


def _stencils(num_taps: int, axis: Axis, num_old: int, num_new: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    offset = axis.placement.offset
    # Position of the new points, counted in old spacings from the first old point.
    position = (np.arange(num_new) + offset) * axis.spacing(num_new) / axis.spacing(num_old) - offset
    count = num_taps if axis.is_periodic else min(num_taps, num_old)
    first = np.floor(position).astype(np.int64) - (count // 2 - 1)
    if not axis.is_periodic:
        first = np.clip(first, 0, num_old - count)
    nodes = np.arange(count)[:, None]
    distance = position - first - nodes
    weights = np.empty((count, num_new))
    for tap in range(count):
        others = np.arange(count) != tap
        weights[tap] = np.prod(distance[others] / (tap - nodes[others]), axis=0)
    return (first + nodes) % num_old, weights
