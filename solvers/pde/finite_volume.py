"""The engine of conservation laws with shocks: MUSCL finite volumes, strong-stability-preserving steps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.pde.conservation_law import ConservationLaw
from neuralop_kit.solvers.pde.limiters import Limiter, MonotonizedCentral
from neuralop_kit.solvers.pde.riemann import RiemannSolver
from neuralop_kit.solvers.pde.stepper import Flow, TimeStepper

# An item that would need more steps than this for one dt has blown up.
MAX_STEPS = 1e6
# Steps in the time h^2/diffusivity, per axis; Heun's method needs 2.
DIFFUSIVE_STEPS = 3.0


class EndCells(ABC):
    """What lies behind the Neumann walls of a box: two ghost cells."""

    @abstractmethod
    def signs(self, law: ConservationLaw, axis: int) -> tuple[float, ...] | None:
        """Signs of the mirror image, or None to continue the outermost cell."""


@dataclass(frozen=True)
class Outflow(EndCells):
    """The outermost cell goes on: waves leave."""

    def signs(self, law: ConservationLaw, axis: int) -> None:
        """No mirror."""
        return None


@dataclass(frozen=True)
class SlipWalls(EndCells):
    """A mirror: waves are reflected, nothing passes."""

    def signs(self, law: ConservationLaw, axis: int) -> tuple[float, ...]:
        """The velocity into the wall changes sign."""
        return law.mirror(axis)


class FiniteVolumeStepper(TimeStepper):
    """Solves ``U_t + div F(U) = 0``, shocks included; leaves say which law, and may add viscous fluxes.

    States are primitive variables at cell centres. Linear reconstruction inside cells with a limiter, a Riemann solver
    at faces, Heun's method in time (the two-stage strong-stability-preserving one). Each item takes its own steps,
    short enough for its fastest signal and its viscosity, and lands on ``dt`` exactly. What leaves one cell enters the
    next: sums of conserved variables change only through open walls, to rounding.

    Args:
        domain: periodic (any nodes), or Neumann with cell centres.
        law: the equations.
        dt: time between two states.
        cfl: in (0, 1): how much of a cell a signal may cross in a step, summed over axes.
        limiter: of slopes.
        riemann: flux at faces.
        walls: :class:`Outflow` or :class:`SlipWalls`, where the domain is not periodic.

    Shapes: state ``(batch, law.num_channels, *space)``. Order: 2 in space and time together where the solution is
    smooth (limiters lower it at extrema, except :class:`Central`), 1 in the L1 norm at shocks. Differentiable, except
    where a limiter or a Riemann solver switches.
    Source: van Leer (1979), J. Comput. Phys. 32; Gottlieb, Shu and Tadmor (2001), SIAM Review 43.
    """

    def __init__(
        self,
        domain: Domain,
        law: ConservationLaw,
        *,
        dt: float,
        riemann: RiemannSolver,
        cfl: float = 0.4,
        limiter: Limiter | None = None,
        walls: EndCells | None = None,
    ) -> None:
        super().__init__(domain, dt=dt)
        if any(not axis.is_periodic and axis.nodes != "cell" for axis in domain.axes):
            raise DomainError(f"expected cell centres between walls, got {domain}; use nodes='cell'")
        if not 0 < cfl < 1:
            raise ArgumentError(f"expected 0 < cfl < 1, got {cfl}; try 0.4")
        self.law = law
        self.num_channels = law.num_channels
        self.cfl = float(cfl)
        self.limiter = limiter or MonotonizedCentral()
        self.riemann = riemann
        self.walls = walls or Outflow()

    @property
    def allowed_boundaries(self) -> frozenset[str]:
        """Periodic, or walls."""
        return frozenset({"periodic", "neumann"})

    def flow(self, u: Tensor) -> Flow:
        """Conserved variables, advanced by as many steps as stability asks for."""
        spacing = self.domain.spacing(u.shape[2:])
        return Flow(enter=self.law.conserved, advance=lambda u: self._advance(u, spacing), leave=self.law.primitive)

    def diffusivity(self, w: Tensor) -> Tensor | float:
        """Largest diffusivity at each point, ``(batch, 1, *space)``; 0 unless the leaf is viscous."""
        return 0.0

    def viscous_flux(self, w: Tensor, axis: int, spacing: tuple[float, ...]) -> Tensor | None:
        """Viscous flux of conserved variables through the faces of ``axis``, one more than cells; None for none."""
        return None

    def pad(self, w: Tensor, axis: int, width: int) -> Tensor:
        """Primitive variables with ``width`` ghost cells on both sides of ``axis``."""
        dim = 2 + axis
        n = w.shape[dim]
        if self.domain.axes[axis].is_periodic:
            index = torch.arange(-width, n + width, device=w.device) % n
            return w.index_select(dim, index)
        signs = self.walls.signs(self.law, axis)
        if signs is None:
            index = torch.arange(-width, n + width, device=w.device).clamp(0, n - 1)
            return w.index_select(dim, index)
        column = torch.tensor(signs, dtype=w.dtype, device=w.device).view(-1, *[1] * self.domain.num_dims)
        low, high = w.narrow(dim, 0, width), w.narrow(dim, n - width, width)
        return torch.cat([column * low.flip(dim), w, column * high.flip(dim)], dim=dim)

    def rate(self, w: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """``-div F`` of the conserved variables at primitive states."""
        total = torch.zeros_like(w)
        for axis, h in enumerate(spacing):
            flux = self.riemann(self.law, *self._faces(w, axis), axis)
            viscous = self.viscous_flux(w, axis, spacing)
            total = total - torch.diff(flux if viscous is None else flux + viscous, dim=2 + axis) / h
        return total

    def _faces(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Primitive states on both sides of all faces along ``axis``."""
        dim, n = 2 + axis, w.shape[2 + axis]
        padded = self.pad(w, axis, 2)
        jumps = torch.diff(padded, dim=dim)
        half = 0.5 * self.limiter(jumps.narrow(dim, 0, n + 2), jumps.narrow(dim, 1, n + 2))
        inner = padded.narrow(dim, 1, n + 2)
        upper, lower = inner + half, inner - half
        return upper.narrow(dim, 0, n + 1), lower.narrow(dim, 1, n + 1)

    def _advance(self, u: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """Conserved variables after ``dt``."""
        remaining = torch.full((len(u),), self.dt, dtype=u.dtype, device=u.device)
        while True:
            w = self.law.primitive(u)
            # A whole number of equal steps is left, so that the step is locally constant and gradients are exact.
            count = torch.ceil(remaining * self._frequency(w.detach(), spacing)).clamp_min(1.0)
            count = torch.where(count <= MAX_STEPS, count, torch.nan)
            dt = (remaining / count).view(-1, *[1] * (u.ndim - 1))
            ahead = u + dt * self.rate(w, spacing)
            u = 0.5 * (u + ahead + dt * self.rate(self.law.primitive(ahead), spacing))
            # Comparisons with NaN are false: a spoiled item is done.
            remaining = torch.where(count > 1, remaining - remaining / count, 0.0)
            if not remaining.any():
                return u

    def _frequency(self, w: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """Steps per time that each item needs, ``(batch,)``."""
        total = torch.zeros_like(w[:, :1])
        for axis, h in enumerate(spacing):
            velocity, sound = self.law.speeds(w, axis)
            total = total + (velocity.abs() + sound) / (self.cfl * h) + DIFFUSIVE_STEPS * self.diffusivity(w) / h**2
        return total.flatten(1).amax(dim=1)
