"""Fluxes between two states that meet at a face: approximate Riemann solvers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.conservation_law import ConservationLaw, IdealGas


class RiemannSolver(ABC):
    """Numerical flux; leaves have no state."""

    @abstractmethod
    def __call__(self, law: ConservationLaw, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Flux along ``axis`` through faces with the primitive states ``left`` and ``right`` of them."""


@dataclass(frozen=True)
class Rusanov(RiemannSolver):
    """The mean, minus the jump times half the fastest signal: robust for every law, smears contacts.

    Source: Rusanov (1961).
    """

    def __call__(self, law: ConservationLaw, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """``(F_L + F_R)/2 - s/2 (U_R - U_L)``."""
        (v_left, a_left), (v_right, a_right) = law.speeds(left, axis), law.speeds(right, axis)
        fastest = torch.maximum(v_left.abs() + a_left, v_right.abs() + a_right)
        jump = law.conserved(right) - law.conserved(left)
        return 0.5 * (law.flux(left, axis) + law.flux(right, axis) - fastest * jump)


@dataclass(frozen=True)
class HLL(RiemannSolver):
    """One state between the slowest and the fastest signal. Source: Harten, Lax and van Leer (1983), Davis (1988)."""

    def __call__(self, law: ConservationLaw, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """``(b F_L - a F_R + a b (U_R - U_L)) / (b - a)`` with signals ``a <= 0 <= b``."""
        slow, fast = _signals(law, left, right, axis)
        slow, fast = slow.clamp_max(0), fast.clamp_min(0)
        jump = law.conserved(right) - law.conserved(left)
        # Where nothing moves, the flux is that of either side.
        width = torch.where(fast > slow, fast - slow, 1.0)
        mixed = (fast * law.flux(left, axis) - slow * law.flux(right, axis) + slow * fast * jump) / width
        return torch.where(fast > slow, mixed, law.flux(left, axis))


@dataclass(frozen=True)
class HLLC(RiemannSolver):
    """HLL with the contact put back: sharp contacts and shear layers. For ideal gases.

    Source: Toro, Spruce and Speares (1994), Shock Waves 4; Toro (2009), eq. 10.37-10.39.
    """

    def __call__(self, law: ConservationLaw, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """The flux of the wave pattern's sector that holds the face."""
        if not isinstance(law, IdealGas):
            raise ArgumentError(f"expected an ideal gas, got {type(law).__name__}; use HLL or Rusanov")
        slow, fast = _signals(law, left, right, axis)
        # Mass that each outer wave sweeps up per time.
        swept_left = left[:, :1] * (slow - left[:, 1 + axis : 2 + axis])
        swept_right = right[:, :1] * (fast - right[:, 1 + axis : 2 + axis])
        push = swept_left * left[:, 1 + axis : 2 + axis] - swept_right * right[:, 1 + axis : 2 + axis]
        contact = (right[:, -1:] - left[:, -1:] + push) / (swept_left - swept_right)
        flux_left, flux_right = law.flux(left, axis), law.flux(right, axis)
        inner_left = flux_left + slow * self._change(law, left, slow, swept_left, contact, axis)
        inner_right = flux_right + fast * self._change(law, right, fast, swept_right, contact, axis)
        inner = torch.where(contact >= 0, inner_left, inner_right)
        return torch.where(slow >= 0, flux_left, torch.where(fast <= 0, flux_right, inner))

    @staticmethod
    def _change(law: IdealGas, w: Tensor, signal: Tensor, swept: Tensor, contact: Tensor, axis: int) -> Tensor:
        """The state beside the contact minus the state outside."""
        u, v, pressure = law.conserved(w), w[:, 1 + axis : 2 + axis], w[:, -1:]
        density = swept / (signal - contact)
        parts = list((density * torch.cat([torch.ones_like(v), w[:, 1:-1]], dim=1)).split(1, dim=1))
        parts[1 + axis] = density * contact
        energy = u[:, -1:] / w[:, :1] + (contact - v) * (contact + pressure / swept)
        return torch.cat([*parts, density * energy], dim=1) - u


def _signals(law: ConservationLaw, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Slowest and fastest signal of both states."""
    (v_left, a_left), (v_right, a_right) = law.speeds(left, axis), law.speeds(right, axis)
    return torch.minimum(v_left - a_left, v_right - a_right), torch.maximum(v_left + a_left, v_right + a_right)
