"""Diffusion that is held back by sorption: stiff, nonlinear, with walls."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.pde.implicit_runge_kutta import StoredDiffusion, sdirk4_step
from neuralop_kit.solvers.pde.sorption import FreundlichSorption, GhostValues, Walls, WallValues
from neuralop_kit.solvers.pde.stepper import Flow, TimeStepper
from neuralop_kit.solvers.random_fields import GaussianRandomField
from neuralop_kit.solvers.randomness import Generators, uniform

# PDEBench's initial concentrations lie between 0 and this.
MAX_START = 0.2


class DiffusionSorption(TimeStepper):
    """A contaminant seeps into soil, whose grains take it up: a front with memory, stiff to compute.

        R(c) c_t = diffusivity c_xx,      R(c) = 1 + (1-phi)/phi rho_s k n_f (c + 1e-6)^(n_f - 1)
        c = 1 at x = 0,                   c + diffusivity c_x = 0 at the other end

    ``R = ds/dc``, so that ``s(c)_t = diffusivity c_xx``: what is stored changes by what flows in, exactly, also in the
    discrete scheme. Finite volumes; implicit fourth-order Runge-Kutta steps, L-stable; every stage is
    found by Newton's method, which converges from anywhere because ``s`` is concave and diffusion monotone. Computed
    in float64 whatever the dtype of the state. Differentiable in the state, twice.

    Args:
        domain: one dimension, Dirichlet, cell centres.
        dt: time between two states.
        num_substeps: of equal length in ``dt``.
        diffusivity: D, in length^2 per time, positive.
        sorption: what the soil holds.
        walls: :class:`WallValues` (second order), or :class:`GhostValues` for PDEBench's scheme.
        correlation_length: of the initial states, in units of length; infinity makes them constant.

    Shapes: state ``(batch, 1, num_points)``. Order: 4 in ``dt``, 2 in space with :class:`WallValues`, 1 with
    :class:`GhostValues`. While the front enters (the first seconds, where the initial state jumps to 1 at the wall) the
    order in ``dt`` is lower; take small substeps there.
    Good values: :meth:`pdebench` at 1024 points; ten substeps of half a second keep the error near 1e-6.
    Source: Takamoto et al. (2022), PDEBench, section on diffusion-sorption; Limousin et al. (2007) for the isotherm.

    >>> stepper = DiffusionSorption.pdebench(dt=5.0)
    >>> c = stepper.rollout(stepper.initial_condition(2, (64,)), num_steps=4)
    >>> c.shape, bool(c.min() >= 0), bool(c.max() <= 1)
    (torch.Size([2, 5, 1, 64]), True, True)
    """

    allowed_dims = (1,)

    def __init__(
        self,
        domain: Domain,
        *,
        dt: float,
        num_substeps: int = 1,
        diffusivity: float = 5e-4,
        sorption: FreundlichSorption | None = None,
        walls: Walls | None = None,
        correlation_length: float = 0.2,
    ) -> None:
        super().__init__(domain, dt=dt)
        if not diffusivity > 0 or num_substeps < 1 or not correlation_length > 0:
            raise ArgumentError(
                f"expected diffusivity > 0, num_substeps >= 1 and correlation_length > 0, got {diffusivity}, "
                f"{num_substeps} and {correlation_length}; correct them"
            )
        self.num_substeps = num_substeps
        self.diffusivity = float(diffusivity)
        self.sorption = sorption or FreundlichSorption()
        self.walls = walls or WallValues()
        self.correlation_length = float(correlation_length)

    @classmethod
    def pdebench(cls, *, dt: float = 5.0, num_substeps: int = 10) -> "DiffusionSorption":
        """PDEBench's: (0, 1), 101 states 5 apart, its boundary scheme, a constant random start in (0, 0.2).

        A constant start makes a family of one parameter, easy to learn. The published files were integrated by an
        explicit method at a tolerance of 1e-3, which is their noise floor; ours resolve the same equations to 1e-6.
        """
        domain = Domain.box((1.0,), boundary="dirichlet", nodes="cell")
        walls = GhostValues()
        return cls(domain, dt=dt, num_substeps=num_substeps, walls=walls, correlation_length=math.inf)

    @property
    def allowed_boundaries(self) -> frozenset[str]:
        """Dirichlet: the value at the first end is given."""
        return frozenset({"dirichlet"})

    def flow(self, u: Tensor) -> Flow:
        """Concentrations ``(batch, n)`` in float64."""
        system = self._system(u.shape[-1], u.device)

        def substeps(c: Tensor) -> Tensor:
            for _ in range(self.num_substeps):
                c = sdirk4_step(system, c, self.dt / self.num_substeps)
            return c

        return Flow(
            enter=lambda state: state[:, 0].double(), advance=substeps, leave=lambda c: c.unsqueeze(1).to(u.dtype)
        )

    def initial_condition(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Concentrations uniform in (0, 0.2) at every point, smooth in space: ``(batch, 1, *shape)``."""
        if math.isinf(self.correlation_length):
            level = uniform(batch, (1, 1), generator).expand(-1, -1, *shape)
        else:
            field = GaussianRandomField(
                self.domain, alpha=3.0, tau=1 / self.correlation_length, zero_mean=False, boundary="neumann"
            )
            gaussian = field.sample(batch, shape, generator=generator, dtype=torch.float64)
            level = torch.special.ndtr(gaussian / field.variance(shape).sqrt().to(gaussian.device))
        place = level.device if device is None else device
        return (MAX_START * level).to(device=place, dtype=dtype or torch.get_default_dtype())

    def _system(self, num_points: int, device: torch.device) -> StoredDiffusion:
        """Three-point diffusion, with the ghost cells eliminated."""
        (h,) = self.domain.spacing((num_points,))
        ghosts = self.walls.ghosts(self.diffusivity, h)
        lower, diagonal, upper, source = (
            torch.full((num_points,), value, dtype=torch.float64, device=device) for value in (1.0, -2.0, 1.0, 0.0)
        )
        source[0] += ghosts.first_constant
        diagonal[0] += ghosts.first_factor
        diagonal[-1] += ghosts.last_factor
        lower[-1] += ghosts.before_last_factor
        rate = self.diffusivity / h**2
        return StoredDiffusion(
            rate * lower, rate * diagonal, rate * upper, rate * source, self.sorption.stored, self.sorption.retardation
        )
