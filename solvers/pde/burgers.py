"""Burgers' equation: nonlinear transport against diffusion."""

import math

from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.exponential import ExponentialMethod
from neuralop_kit.solvers.pde.spectral import SpectralStepper
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid
from neuralop_kit.solvers.random_fields import GaussianRandomField


class Burgers(SpectralStepper):
    """The smallest model of a shock: waves steepen until diffusion stops them.

        u_t + (u^2/2)_x = viscosity u_xx            periodic in x

    A shock is about ``viscosity / jump`` wide: give it four points or more, or the field rings. The mean of ``u`` is
    conserved to rounding.

    **Two conventions.** PDEBench writes its parameter ``Nu``, solves with ``Nu / pi``; FNO's ``nu`` is the viscosity.
    Use :meth:`pdebench` and :meth:`fno`.

    Args:
        domain: periodic, one dimension.
        viscosity: in length^2 per time, positive.
        dt, num_substeps, method: see :class:`SpectralStepper`.

    Shapes: state ``(batch, 1, num_points)``. Order: that of the method in ``dt``, spectral in space.
    Good values: :meth:`fno` at 1024 points and 100 substeps; at viscosity 1e-3 use 4096 points and 1000.
    Source: Burgers (1948); Li et al. (2021), section 5.1; Takamoto et al. (2022), PDEBench, eq. 8.

    >>> stepper = Burgers.fno(dt=0.01)
    >>> u = stepper.initial_condition(2, (256,))
    >>> stepper.rollout(u, num_steps=10).shape
    torch.Size([2, 11, 1, 256])
    """

    allowed_dims = (1,)

    def __init__(
        self,
        domain: Domain,
        *,
        viscosity: float,
        dt: float,
        num_substeps: int = 1,
        method: ExponentialMethod | None = None,
    ) -> None:
        super().__init__(domain, dt=dt, num_substeps=num_substeps, method=method)
        if not viscosity > 0:
            raise ArgumentError(f"expected viscosity > 0, got {viscosity}; inviscid shocks need finite volumes")
        self.viscosity = float(viscosity)

    @classmethod
    def fno(cls, *, viscosity: float = 0.1, dt: float = 1.0, num_substeps: int = 1) -> "Burgers":
        """The FNO paper's: unit interval, viscosity 0.1, t from 0 to 1, initial state N(0, 625 (-Lap + 25)^-2)."""
        return cls(Domain.periodic((1.0,)), viscosity=viscosity, dt=dt, num_substeps=num_substeps)

    @classmethod
    def pdebench(cls, *, nu: float = 0.01, dt: float = 0.01, num_substeps: int = 1) -> "Burgers":
        """PDEBench's: unit interval, viscosity ``nu / pi``, 201 states 0.01 apart."""
        return cls(Domain.periodic((1.0,)), viscosity=nu / math.pi, dt=dt, num_substeps=num_substeps)

    def random_field(self) -> GaussianRandomField:
        """The FNO paper's initial state, scaled to the length of the domain."""
        (length,) = self.domain.lengths
        return GaussianRandomField(self.domain, alpha=2.0, tau=5.0 / length, sigma=25.0 / length**1.5)

    def linear(self, grid: SpectralGrid) -> Tensor:
        """``-viscosity k^2``."""
        return -self.viscosity * grid.squared

    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """``-(u^2/2)_x``."""
        return grid.derivative(grid.to_modes(-0.5 * grid.to_space(u_hat) ** 2), 0)
