"""Incompressible flow in two dimensions, by its vorticity."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.exponential import ExponentialMethod
from neuralop_kit.solvers.pde.spectral import SpectralStepper
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid
from neuralop_kit.solvers.random_fields import GaussianRandomField

# Coordinates (2, *shape) to values (*shape).
Forcing = Callable[[Tensor], Tensor]


def diagonal_forcing(x: Tensor) -> Tensor:
    """``0.1 (sin 2 pi (x+y) + cos 2 pi (x+y))``, the forcing of the FNO data on the unit torus."""
    phase = 2 * math.pi * (x[0] + x[1])
    return 0.1 * (torch.sin(phase) + torch.cos(phase))


class KolmogorovForcing:
    """``-n cos(n y)``: a shear that breaks into turbulence, on the torus of side 2 pi.

    Args:
        wavenumber: n, an integer >= 1.
    """

    def __init__(self, wavenumber: int = 4) -> None:
        self.wavenumber = wavenumber

    def __call__(self, x: Tensor) -> Tensor:
        """Values at coordinates ``(2, *shape)``."""
        return -self.wavenumber * torch.cos(self.wavenumber * x[1])


class NavierStokes2D(SpectralStepper):
    """Viscous incompressible flow on a torus, advanced by its vorticity ``w = v_x - u_y``.

        w_t + u . grad w = viscosity Lap w - drag w + f,      u = (psi_y, -psi_x),      -Lap psi = w

    The nonlinear term is taken as ``(d_xx - d_yy)(u v) + d_xy (v^2 - u^2)``, which needs four transforms where the
    plain form needs five and, dealiased, is the same to rounding. Without forcing and viscosity the semi-discrete
    system conserves energy and enstrophy; the mean of ``w`` changes through ``f`` and ``drag`` only.

    Args:
        domain: periodic, two dimensions; space axis 0 is x, axis 1 is y.
        viscosity: in length^2 per time, >= 0.
        forcing: ``f``, a function of the coordinates ``(2, *shape)``, constant in time; ``None`` for none.
        drag: linear friction, per time, >= 0.
        dt, num_substeps, method: see :class:`SpectralStepper`. Stability of the explicit part needs about
            ``max |u| dt / (h num_substeps) < 1``; beyond it the state becomes NaN.

    Shapes: state ``(batch, 1, num_x, num_y)``. Order: that of the method in ``dt``, spectral in space.
    Good values: :meth:`fno` at 64 x 64, ``dt = 1`` and 100 substeps; :meth:`kolmogorov` at 128 x 128.
    Source: Li et al. (2021), section 5.3; Basdevant (1983), J. Comput. Phys. 50, for the four transforms.

    >>> stepper = NavierStokes2D.fno(viscosity=1e-3, dt=0.1, num_substeps=4)
    >>> w = stepper.initial_condition(2, (32, 32))
    >>> stepper.rollout(w, num_steps=5).shape
    torch.Size([2, 6, 1, 32, 32])
    """

    allowed_dims = (2,)

    def __init__(
        self,
        domain: Domain,
        *,
        viscosity: float,
        dt: float,
        forcing: Forcing | None = None,
        drag: float = 0.0,
        num_substeps: int = 1,
        method: ExponentialMethod | None = None,
    ) -> None:
        super().__init__(domain, dt=dt, num_substeps=num_substeps, method=method)
        if not (0 <= viscosity < math.inf and 0 <= drag < math.inf):
            raise ArgumentError(f"expected viscosity >= 0 and drag >= 0, got {viscosity} and {drag}; correct them")
        self.viscosity = float(viscosity)
        self.drag = float(drag)
        self.forcing = forcing

    @classmethod
    def fno(cls, *, viscosity: float = 1e-3, dt: float = 1.0, num_substeps: int = 100) -> "NavierStokes2D":
        """The FNO paper's: unit torus, diagonal forcing, states at t = 0, 1, 2, ...

        Published with viscosity 1e-3 (to t = 50), 1e-4 (30) and 1e-5 (20).
        """
        domain = Domain.periodic((1.0, 1.0))
        return cls(domain, viscosity=viscosity, dt=dt, forcing=diagonal_forcing, num_substeps=num_substeps)

    @classmethod
    def kolmogorov(
        cls, *, reynolds: float = 100.0, wavenumber: int = 4, drag: float = 0.0, dt: float = 0.1, num_substeps: int = 20
    ) -> "NavierStokes2D":
        """Kolmogorov flow on the torus of side 2 pi; the laminar state is ``-(reynolds/n) cos(n y)``."""
        return cls(
            Domain.periodic((2 * math.pi, 2 * math.pi)),
            viscosity=1 / reynolds,
            dt=dt,
            forcing=KolmogorovForcing(wavenumber),
            drag=drag,
            num_substeps=num_substeps,
        )

    def random_field(self) -> GaussianRandomField:
        """The FNO paper's, N(0, 7^3 (-Lap + 49)^-2.5) on the unit torus, scaled to the length of the domain."""
        length = min(self.domain.lengths)
        return GaussianRandomField(self.domain, alpha=2.5, tau=7.0 / length)

    def linear(self, grid: SpectralGrid) -> Tensor:
        """``-viscosity |k|^2 - drag``."""
        return -self.viscosity * grid.squared - self.drag

    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """``-u . grad w``."""
        u, v = grid.to_space(self.velocity_modes(u_hat, grid)).unbind(dim=1)
        products = grid.to_modes(torch.stack([u * v, v**2 - u**2], dim=1))
        kx, ky = (grid.first_derivative_symbol(axis) for axis in (0, 1))
        # With div u = 0, the curl of div (u u) is (d_xx - d_yy)(u v) + d_xy (v^2 - u^2).
        return ((kx**2 - ky**2) * products[:, 0] + kx * ky * products[:, 1]).unsqueeze(1)

    def source(self, grid: SpectralGrid) -> Tensor | None:
        """``f``."""
        return None if self.forcing is None else grid.to_modes(self.forcing(grid.coordinates()))

    def velocity(self, w: Tensor) -> Tensor:
        """Velocity ``(u, v)`` of a vorticity: ``(batch, 1, *space)`` to ``(batch, 2, *space)``; its mean is zero."""
        self.check(w)
        grid = SpectralGrid(self.domain, w.shape[2:], dtype=w.dtype, device=w.device)
        return grid.to_space(self.velocity_modes(grid.to_modes(w), grid))

    def velocity_modes(self, w_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """Modes of the velocity, ``(batch, 2, *modes)``: ``i (k_y, -k_x) w / |k|^2``."""
        stream = w_hat * grid.inverse_squared
        return torch.cat([grid.derivative(stream, 1), -grid.derivative(stream, 0)], dim=1)
