"""What waves meet at the walls of a Helmholtz problem."""

from abc import ABC
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Axis
from neuralop_kit.solvers.errors import ArgumentError


class WaveBoundary(ABC):
    """Which condition the four walls impose, for waves ``exp(-i omega t)``."""

    # Whether solutions are complex.
    absorbs: bool

    def wall_coefficient(self) -> complex:
        """``beta`` in ``du/dn + beta k u = g``."""
        return 0.0

    def stretching(self, axis: Axis, x: Tensor) -> Tensor:
        """Complex stretching ``s`` of coordinates: derivatives become ``1/s d/dx``."""
        return torch.ones_like(x)


@dataclass(frozen=True)
class Reflecting(WaveBoundary):
    """Hard walls: ``du/dn = g``; solutions are real."""

    absorbs = False


@dataclass(frozen=True)
class Impedance(WaveBoundary):
    """``du/dn - i k u = g``: absorbs waves that arrive head-on, reflects part of those that graze."""

    absorbs = True

    def wall_coefficient(self) -> complex:
        """``-i``."""
        return -1j


@dataclass(frozen=True)
class AbsorbingLayer(WaveBoundary):
    """A perfectly matched layer inside all four walls: waves enter from any direction and decay.

        s(x) = 1 + i strength (depth / thickness)^2

    A wave that crosses the layer twice has lost ``exp(-2/3 k thickness strength)`` of its amplitude. Fields inside the
    layer have no physical meaning.

    Args:
        thickness: of the layer, in length, positive; one wavelength is plenty.
        strength: positive; 3 for one wavelength (reflection 4e-6 before discretization).

    Source: Berenger (1994); in this form Bermudez et al. (2007), SIAM J. Sci. Comput. 30, with a parabolic profile.
    """

    thickness: float
    strength: float = 3.0
    absorbs = True

    def __post_init__(self) -> None:
        if not (self.thickness > 0 and self.strength > 0):
            raise ArgumentError(f"expected thickness > 0 and strength > 0, got {self}; correct them")

    def stretching(self, axis: Axis, x: Tensor) -> Tensor:
        """``s``, which is 1 outside the layer."""
        depth = torch.maximum(axis.start + self.thickness - x, x - axis.stop + self.thickness).clamp_min(0)
        return torch.complex(torch.ones_like(x), self.strength * (depth / self.thickness) ** 2)
