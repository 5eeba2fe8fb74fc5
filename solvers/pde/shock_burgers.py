"""Burgers' equation where shocks are thinner than cells."""

import math

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.conservation_law import ScalarBurgers
from neuralop_kit.solvers.pde.finite_volume import FiniteVolumeStepper
from neuralop_kit.solvers.pde.limiters import Limiter, VanLeer
from neuralop_kit.solvers.pde.riemann import RiemannSolver, Rusanov


class ShockBurgers(FiniteVolumeStepper):
    """Burgers' equation by finite volumes: shocks stay sharp and monotone at any viscosity, zero included.

        u_t + (u^2/2)_x = viscosity u_xx

    Use :class:`Burgers`, which is spectral, where the grid resolves the shocks: it is far more accurate, and its steps
    do not shrink with ``h^2/viscosity`` as they do here.

    **Three traps of PDEBench's files.** The equation has ``Nu / pi``, where ``Nu`` is the attribute and the file name.
    Files made before November 2023 live on (-1, 1) although the text says (0, 1): their domain is twice as long. At
    ``Nu <= 0.002`` shocks are thinner than the 1024 cells, so that "the solution" is that of the scheme.

    Args:
        domain: one dimension, periodic, or Neumann with cell centres.
        viscosity: in length^2 per time, >= 0.
        dt: time between two states; the steps in between are chosen by the scheme.
        cfl, limiter, riemann: see :class:`FiniteVolumeStepper`; by default 0.4, van Leer, Rusanov.

    Shapes: state ``(batch, 1, num_points)``. Order: 2 where smooth, 1 in the L1 norm at shocks; the mean is conserved
    to rounding and no new extrema appear.
    Good values: :meth:`pdebench` at 1024 points with ``nu`` up to 0.01.
    Source: Takamoto et al. (2022), PDEBench, eq. 8.

    >>> stepper = ShockBurgers.pdebench(nu=0.001)
    >>> stepper.step(stepper.initial_condition(2, (128,))).shape
    torch.Size([2, 1, 128])
    """

    allowed_dims = (1,)

    def __init__(
        self,
        domain: Domain,
        *,
        viscosity: float = 0.0,
        dt: float,
        cfl: float = 0.4,
        limiter: Limiter | None = None,
        riemann: RiemannSolver | None = None,
    ) -> None:
        super().__init__(
            domain, ScalarBurgers(), dt=dt, cfl=cfl, limiter=limiter or VanLeer(), riemann=riemann or Rusanov()
        )
        if not viscosity >= 0:
            raise ArgumentError(f"expected viscosity >= 0, got {viscosity}; correct it")
        self.viscosity = float(viscosity)

    @classmethod
    def pdebench(cls, *, nu: float = 0.001, dt: float = 0.01) -> "ShockBurgers":
        """PDEBench's: unit interval, cell centres, viscosity ``nu / pi``, 201 states 0.01 apart, van Leer's limiter."""
        return cls(Domain.periodic((1.0,), nodes="cell"), viscosity=nu / math.pi, dt=dt)

    def diffusivity(self, w: Tensor) -> float:
        """The viscosity."""
        return self.viscosity

    def viscous_flux(self, w: Tensor, axis: int, spacing: tuple[float, ...]) -> Tensor:
        """``-viscosity u_x``."""
        return -self.viscosity * torch.diff(self.pad(w, axis, 1), dim=2 + axis) / spacing[axis]
