"""What soil holds, and what happens at the ends of a column of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError

# Concentration added by PDEBench so that the retardation stays finite where there is no contaminant.
OFFSET = 1e-6


@dataclass(frozen=True)
class FreundlichSorption:
    """How much a soil holds in and between its grains, ``s(c) = c + K (c + 1e-6)^n`` with ``K = (1-phi)/phi rho k``.

    Its slope is the retardation factor, ``R = ds/dc = 1 + K n (c + 1e-6)^(n-1)``: about 13 where there is no
    contaminant, 3.2 at ``c = 1``. Below zero ``s`` continues along its tangent.

    Args:
        porosity: phi, between 0 and 1.
        bulk_density: rho_s, positive.
        coefficient: Freundlich's k, >= 0.
        exponent: Freundlich's n_f, in (0, 1], so that ``s`` is concave.
    """

    porosity: float = 0.29
    bulk_density: float = 2880.0
    coefficient: float = 3.5e-4
    exponent: float = 0.874

    def __post_init__(self) -> None:
        if not (0 < self.porosity < 1 and 0 < self.exponent <= 1 and self.bulk_density > 0 and self.coefficient >= 0):
            raise ArgumentError(
                f"expected 0 < porosity < 1, 0 < exponent <= 1, bulk_density > 0, coefficient >= 0, got {self}; "
                "correct them"
            )

    @property
    def strength(self) -> float:
        """K."""
        return (1 - self.porosity) / self.porosity * self.bulk_density * self.coefficient

    def stored(self, c: Tensor) -> Tensor:
        """``s(c)``."""
        positive = c.clamp_min(0.0)
        below = c - positive
        return positive + self.strength * (positive + OFFSET) ** self.exponent + below * self._slope_at_zero

    def retardation(self, c: Tensor) -> Tensor:
        """``R(c) = s'(c)``."""
        return 1 + self.strength * self.exponent * (c.clamp_min(0.0) + OFFSET) ** (self.exponent - 1)

    @property
    def _slope_at_zero(self) -> float:
        return 1 + self.strength * self.exponent * OFFSET ** (self.exponent - 1)


@dataclass(frozen=True)
class Ghosts:
    """Values in the cells outside: ``first_constant + first_factor c_0``, ``last_factor c_(n-1) + before_last_factor
    c_(n-2)``.
    """

    first_constant: float
    first_factor: float
    last_factor: float
    before_last_factor: float


class Walls(ABC):
    """Discrete form of ``c = 1`` at the first end and ``c + D c_x = 0`` at the last one."""

    @abstractmethod
    def ghosts(self, diffusivity: float, spacing: float) -> Ghosts:
        """The cells outside as functions of those inside."""


@dataclass(frozen=True)
class WallValues(Walls):
    """Both conditions where they belong, in the middle between the outermost cell and its ghost: second order."""

    def ghosts(self, diffusivity: float, spacing: float) -> Ghosts:
        """``2 - c_0``; ``(2D - h)/(2D + h) c_(n-1)``."""
        return Ghosts(2.0, -1.0, (2 * diffusivity - spacing) / (2 * diffusivity + spacing), 0.0)


@dataclass(frozen=True)
class GhostValues(Walls):
    """PDEBench's: the ghost cells *are* the boundary values, half a cell outside the domain: first order."""

    def ghosts(self, diffusivity: float, spacing: float) -> Ghosts:
        """``1``; ``D (c_(n-2) - c_(n-1))/h``."""
        return Ghosts(1.0, 0.0, -diffusivity / spacing, diffusivity / spacing)
