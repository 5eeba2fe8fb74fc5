"""Orthonormal trigonometric functions of one axis: eigenfunctions of -d^2/dx^2, evaluated on a grid by the FFT.

Every axis is (half of) a circle: a periodic axis of length L closes after L, an axis with walls continues by
reflection and closes after 2L. One inverse real FFT on that circle therefore evaluates cosines, sines, or both, at any
placement of the points: the offset of the first point is a phase.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Axis
from neuralop_kit.solvers.errors import DomainError
from neuralop_kit.solvers.nodes import Device


@dataclass(frozen=True)
class TrigonometricBasis(ABC):
    """Functions ``phi_m``, m = 0, 1, ..., orthonormal on one axis, by growing wavenumber; leaves say which.

    A grid *holds* the functions with more than two points per wavelength.
    """

    axis: Axis
    reflections = 1
    has_constant = True

    @property
    def circumference(self) -> float:
        """Length after which the functions repeat: L, or 2L where they are reflected at walls."""
        return (1 + self.reflections) * self.axis.length

    @abstractmethod
    def cycles(self, num_modes: int, *, device: Device = None) -> Tensor:
        """Cycles of ``phi_m`` per circumference, int64, shape ``(num_modes,)``."""

    @abstractmethod
    def num_modes(self, max_cycles: int) -> int:
        """Number of functions with at most ``max_cycles`` cycles."""

    @abstractmethod
    def spectrum(self, coefficients: Tensor) -> Tensor:
        """``c_k = a_k - i b_k``, k = 0, 1, ..., of sum_k a_k cos(k t) + b_k sin(k t); modes are on the last axis."""

    @abstractmethod
    def doubled(self, coefficients: Tensor) -> Tensor:
        """``d_k``, k = 0, 1, ..., of sum_m c_m phi_m(t)^2 = (sum_m c_m + sum_(k>0) d_k cos(2 k t)) / L."""

    def circle_points(self, num_points: int) -> int:
        """Number of grid points on the whole circle."""
        return (1 + self.reflections) * self.axis.placement.num_intervals(num_points)

    def max_cycles(self, num_points: int) -> int:
        """Largest number of cycles that a grid holds."""
        return (self.circle_points(num_points) - 1) // 2

    def wavenumbers(self, num_modes: int, *, device: Device = None) -> Tensor:
        """Angular wavenumbers ``2 pi k / circumference``, float64: ``-phi'' = wavenumber^2 phi``."""
        return self.cycles(num_modes, device=device).double() * (2 * math.pi / self.circumference)

    def evaluate(self, coefficients: Tensor, num_points: int, *, dim: int) -> Tensor:
        """``sum_m c_m phi_m(x_i)``: axis ``dim`` changes from modes to points, exactly, on coarse grids too."""
        spectrum = self.spectrum(coefficients.movedim(dim, -1))
        scale = coefficients.new_full((spectrum.shape[-1],), math.sqrt(2 / self.axis.length))
        scale[0] = math.sqrt(1 / self.axis.length)
        return self._cosines(spectrum * scale, num_points).movedim(-1, dim)

    def evaluate_squares(self, coefficients: Tensor, num_points: int, *, dim: int) -> Tensor:
        """``sum_m c_m phi_m(x_i)^2``."""
        moved = coefficients.movedim(dim, -1)
        single = self.doubled(moved)
        twice = single.new_zeros(*single.shape[:-1], 2 * single.shape[-1] - 1)
        twice[..., ::2] = single
        twice[..., 0] = moved.sum(dim=-1)
        return (self._cosines(twice, num_points) / self.axis.length).movedim(-1, dim)

    def _cosines(self, spectrum: Tensor, num_points: int) -> Tensor:
        """Real part of ``sum_k c_k exp(i k t_j)`` at the grid points."""
        cycles = torch.arange(spectrum.shape[-1], dtype=torch.float64, device=spectrum.device)
        circle = self.circle_points(num_points)
        # Wavelengths shorter than two spacings are evaluated on a finer circle, of which every r-th point is kept.
        refinement = max(1, -(-(2 * spectrum.shape[-1] - 1) // circle))
        angle = cycles * (2 * math.pi * self.axis.placement.offset / circle)
        half = torch.full_like(angle, 0.5)
        half[0] = 1.0
        phase = torch.polar(half, angle).to(spectrum.dtype if spectrum.is_complex() else spectrum.dtype.to_complex())
        values = torch.fft.irfft(spectrum * phase, n=circle * refinement, dim=-1, norm="forward")
        return values[..., : num_points * refinement : refinement]


class FourierBasis(TrigonometricBasis):
    """Periodic axis: 1, cos, sin, cos 2, sin 2, ... of ``2 pi x / L``."""

    reflections = 0

    def cycles(self, num_modes: int, *, device: Device = None) -> Tensor:
        """0, 1, 1, 2, 2, ..."""
        return (torch.arange(num_modes, device=device) + 1) // 2

    def num_modes(self, max_cycles: int) -> int:
        """A constant and a pair per wavenumber."""
        return 2 * max_cycles + 1

    def spectrum(self, coefficients: Tensor) -> Tensor:
        """Pairs of real coefficients are complex ones."""
        constant, pairs = coefficients[..., :1], coefficients[..., 1:]
        pairs = torch.complex(pairs[..., ::2], -pairs[..., 1::2])
        return torch.cat([constant.to(pairs.dtype), pairs], dim=-1)

    def doubled(self, coefficients: Tensor) -> Tensor:
        """cos^2 brings +1/2 cos 2t, sin^2 brings -1/2 cos 2t."""
        pairs = coefficients[..., 1:]
        return torch.cat([coefficients[..., :1], pairs[..., ::2] - pairs[..., 1::2]], dim=-1)


class CosineBasis(TrigonometricBasis):
    """Neumann axis: cos(m pi x / L), m = 0, 1, ..."""

    def cycles(self, num_modes: int, *, device: Device = None) -> Tensor:
        """0, 1, 2, ..."""
        return torch.arange(num_modes, device=device)

    def num_modes(self, max_cycles: int) -> int:
        """The constant counts."""
        return max_cycles + 1

    def spectrum(self, coefficients: Tensor) -> Tensor:
        """Cosines only."""
        return coefficients

    def doubled(self, coefficients: Tensor) -> Tensor:
        """cos^2 brings +1/2 cos 2t."""
        return coefficients


class SineBasis(TrigonometricBasis):
    """Dirichlet axis: sin((m + 1) pi x / L), m = 0, 1, ..."""

    has_constant = False

    def cycles(self, num_modes: int, *, device: Device = None) -> Tensor:
        """1, 2, 3, ..."""
        return torch.arange(1, num_modes + 1, device=device)

    def num_modes(self, max_cycles: int) -> int:
        """No constant."""
        return max_cycles

    def spectrum(self, coefficients: Tensor) -> Tensor:
        """Sines only."""
        sines = torch.complex(torch.zeros_like(coefficients), -coefficients)
        return torch.nn.functional.pad(sines, (1, 0))

    def doubled(self, coefficients: Tensor) -> Tensor:
        """sin^2 brings -1/2 cos 2t."""
        return torch.nn.functional.pad(-coefficients, (1, 0))


_BASES: dict[str, type[TrigonometricBasis]] = {
    "periodic": FourierBasis,
    "neumann": CosineBasis,
    "dirichlet": SineBasis,
}


def trigonometric_basis(axis: Axis, boundary: str | None = None) -> TrigonometricBasis:
    """The eigenfunctions of -d^2/dx^2 that satisfy the boundary condition of ``axis``, or ``boundary`` instead.

    Raises:
        DomainError: the name is unknown, or periodic functions are asked for on an axis with walls or the reverse.

    >>> from neuralop_kit.solvers import Domain
    >>> basis = trigonometric_basis(Domain.box((1.0,), boundary="neumann", nodes="cell").axes[0])
    >>> basis.evaluate(torch.tensor([0.0, 1.0]), 3, dim=0)      # sqrt(2) cos(pi x) at 1/6, 1/2, 5/6
    tensor([ 1.2247,  0.0000, -1.2247])
    """
    kind = axis.boundary if boundary is None else boundary
    if kind not in _BASES or (kind == "periodic") != axis.is_periodic:
        fitting = ["periodic"] if axis.is_periodic else ["neumann", "dirichlet"]
        raise DomainError(f"expected eigenfunctions among {fitting} on a {axis.boundary} axis, got {kind!r}; change it")
    return _BASES[kind](axis)
