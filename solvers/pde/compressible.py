"""Compressible flow: sound, shocks, contacts; with viscosity or without."""

import math

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.conservation_law import IdealGas
from neuralop_kit.solvers.pde.finite_volume import EndCells, FiniteVolumeStepper
from neuralop_kit.solvers.pde.limiters import Limiter
from neuralop_kit.solvers.pde.riemann import HLLC, RiemannSolver

# Standard deviations of the logarithms of density and pressure in random states.
DENSITY_CONTRAST = 0.2
PRESSURE_CONTRAST = 0.2


class CompressibleEuler(FiniteVolumeStepper):
    """An ideal gas without viscosity: sound waves steepen into shocks.

        rho_t + div(rho v) = 0,     (rho v)_t + div(rho v v) + grad p = 0,     E_t + div((E + p) v) = 0
        E = p/(gamma - 1) + rho |v|^2/2

    Mass, momentum and energy are conserved to rounding on periodic domains; mass and energy between slip walls.

    Args:
        domain: one to three dimensions, periodic, or Neumann with cell centres.
        dt: time between two states; the steps in between are chosen by the scheme.
        gamma: ratio of specific heats, above 1; 1.4 for air, 5/3 for monatomic gases.
        mach: of random initial velocities, root mean square of each component.
        cfl, limiter, riemann, walls: see :class:`FiniteVolumeStepper`; by default 0.4, monotonized central, HLLC,
            outflow.

    Shapes: state ``(batch, 2 + num_dims, *space)``, channels density, velocities, pressure.
    Order: 2 where smooth, 1 in the L1 norm at shocks. A state whose density or pressure becomes negative turns to NaN.
    Good values: length 1, density and pressure of order 1, ``dt = 0.05``.
    Source: Toro (2009), Riemann Solvers and Numerical Methods for Fluid Dynamics, chapters 3, 10, 14.

    >>> gas = CompressibleEuler(Domain.periodic((1.0, 1.0)), dt=0.05)
    >>> w = gas.rollout(gas.initial_condition(2, (16, 16), dtype=torch.float64), num_steps=2)
    >>> w.shape, torch.allclose(w[:, 2, 0].mean(dim=(1, 2)), w[:, 0, 0].mean(dim=(1, 2)), rtol=1e-13)
    (torch.Size([2, 3, 4, 16, 16]), True)
    """

    law: IdealGas

    def __init__(
        self,
        domain: Domain,
        *,
        dt: float,
        gamma: float = 1.4,
        mach: float = 0.3,
        cfl: float = 0.4,
        limiter: Limiter | None = None,
        riemann: RiemannSolver | None = None,
        walls: EndCells | None = None,
    ) -> None:
        if not (gamma > 1 and mach >= 0):
            raise ArgumentError(f"expected gamma > 1 and mach >= 0, got {gamma} and {mach}; correct them")
        super().__init__(
            domain,
            IdealGas(domain.num_dims, gamma),
            dt=dt,
            cfl=cfl,
            limiter=limiter,
            riemann=riemann or HLLC(),
            walls=walls,
        )
        self.mach = float(mach)

    @property
    def gamma(self) -> float:
        """Ratio of specific heats."""
        return self.law.gamma

    def state_of(self, fields: Tensor) -> Tensor:
        """Density and pressure log-normal around 1, velocities Gaussian."""
        density = torch.exp(DENSITY_CONTRAST * fields[:, :1])
        pressure = torch.exp(PRESSURE_CONTRAST * fields[:, -1:])
        velocity = self.mach * self.gamma**0.5 * fields[:, 1:-1]
        return torch.cat([density, velocity, pressure], dim=1)


class CompressibleNavierStokes(CompressibleEuler):
    """An ideal gas with viscosity and without heat conduction, as PDEBench has it.

        (rho v)_t + div(rho v v) + grad p = div sigma,     E_t + div((E + p) v - sigma v) = 0
        sigma = eta (grad v + grad v^T - 2/3 div v) + zeta div v

    Viscous fluxes by central differences at faces; explicit, so that the inner steps shrink with ``h^2`` once
    ``(4/3 eta + zeta)/rho`` exceeds about ``h`` times the speed of sound.

    Args:
        domain, dt, gamma, mach, cfl, limiter, riemann, walls: see :class:`CompressibleEuler`.
        shear_viscosity: eta, >= 0, in mass per length and time.
        bulk_viscosity: zeta, >= 0.

    Shapes: state ``(batch, 2 + num_dims, *space)``, channels density, velocities, pressure. Order: 2 where smooth.
    Good values: :meth:`pdebench`. Source: Landau and Lifshitz (1987), eq. 15.5; Takamoto et al. (2022), eq. 9.

    >>> gas = CompressibleNavierStokes.pdebench(num_dims=1, viscosity=0.01)
    >>> gas.step(gas.initial_condition(1, (64,))).shape
    torch.Size([1, 3, 64])
    """

    def __init__(
        self,
        domain: Domain,
        *,
        dt: float,
        shear_viscosity: float,
        bulk_viscosity: float = 0.0,
        gamma: float = 1.4,
        mach: float = 0.3,
        cfl: float = 0.4,
        limiter: Limiter | None = None,
        riemann: RiemannSolver | None = None,
        walls: EndCells | None = None,
    ) -> None:
        super().__init__(domain, dt=dt, gamma=gamma, mach=mach, cfl=cfl, limiter=limiter, riemann=riemann, walls=walls)
        if not (0 <= shear_viscosity < math.inf and 0 <= bulk_viscosity < math.inf):
            raise ArgumentError(f"expected viscosities >= 0, got {shear_viscosity} and {bulk_viscosity}; correct them")
        self.shear_viscosity, self.bulk_viscosity = float(shear_viscosity), float(bulk_viscosity)

    @classmethod
    def pdebench(cls, *, num_dims: int = 2, viscosity: float = 0.01, mach: float = 0.1) -> "CompressibleNavierStokes":
        """PDEBench's: gamma 5/3, both viscosities equal; (-1, 1) in steps of 0.01, or (0, 1)^d in steps of 0.05.

        Its random states (named "Rand") are drawn from another distribution than ours, see its paper.
        """
        length, start, dt = (2.0, -1.0, 0.01) if num_dims == 1 else (1.0, 0.0, 0.05)
        domain = Domain.periodic((length,) * num_dims, origin=(start,) * num_dims, nodes="cell")
        return cls(domain, dt=dt, shear_viscosity=viscosity, bulk_viscosity=viscosity, gamma=5 / 3, mach=mach)

    def diffusivity(self, w: Tensor) -> Tensor:
        """``(4/3 eta + zeta)/rho``, that of compression."""
        return (4 / 3 * self.shear_viscosity + self.bulk_viscosity) / w[:, :1]

    def viscous_flux(self, w: Tensor, axis: int, spacing: tuple[float, ...]) -> Tensor:
        """``-sigma`` for momentum and ``-sigma v`` for energy, through the faces of ``axis``."""
        padded = self.pad(w, axis, 1)
        slopes = [self._slope_at_faces(padded, axis, other, h) for other, h in enumerate(spacing)]
        velocity = _mean_of_pairs(padded[:, 1:-1], 2 + axis)
        divergence = sum(slopes[other][:, other] for other in range(len(spacing)))
        stress = []
        for component in range(len(spacing)):
            shear = slopes[axis][:, component] + slopes[component][:, axis]
            pressure = (self.bulk_viscosity - 2 / 3 * self.shear_viscosity) * divergence
            stress.append(self.shear_viscosity * shear + (pressure if component == axis else 0.0))
        sigma = torch.stack(stress, dim=1)
        work = (sigma * velocity).sum(dim=1, keepdim=True)
        return -torch.cat([torch.zeros_like(work), sigma, work], dim=1)

    def _slope_at_faces(self, padded: Tensor, axis: int, other: int, spacing: float) -> Tensor:
        """Derivative of all velocities along ``other``, at the faces of ``axis``; one ghost cell there already."""
        if other == axis:
            return torch.diff(padded[:, 1:-1], dim=2 + axis) / spacing
        wide = self.pad(padded, other, 1)[:, 1:-1]
        dim, n = 2 + other, padded.shape[2 + other]
        central = (wide.narrow(dim, 2, n) - wide.narrow(dim, 0, n)) / (2 * spacing)
        return _mean_of_pairs(central, 2 + axis)


def _mean_of_pairs(u: Tensor, dim: int) -> Tensor:
    """Mean of neighbours: from cells to the faces between them."""
    n = u.shape[dim]
    return (u.narrow(dim, 0, n - 1) + u.narrow(dim, 1, n - 1)) / 2
