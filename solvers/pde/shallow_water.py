"""Shallow water in a plane: waves, bores, dam breaks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.pde.conservation_law import ShallowLayer
from neuralop_kit.solvers.pde.finite_volume import EndCells, FiniteVolumeStepper, Outflow
from neuralop_kit.solvers.pde.limiters import Limiter
from neuralop_kit.solvers.pde.riemann import HLL, RiemannSolver
from neuralop_kit.solvers.randomness import Generators, uniform

# Standard deviation of the surface in random states, relative to the mean depth.
SURFACE_CONTRAST = 0.1
# Standard deviation of their velocities, relative to the speed of waves.
VELOCITY_CONTRAST = 0.1


class ShallowWater(FiniteVolumeStepper):
    """A layer of water over a flat bed, its depth small against its waves.

        h_t + div(h v) = 0,     (h v)_t + div(h v v) + grad(g h^2/2) = 0

    Water is conserved to rounding on periodic domains and between slip walls; momentum on periodic domains. The bed is
    wet everywhere (``h > 0``).

    Args:
        domain: one or two dimensions, periodic, or Neumann with cell centres.
        dt: time between two states; the steps in between are chosen by the scheme.
        gravity: g, in length per time^2, positive.
        depth: of random initial states, in length, positive.
        cfl, limiter, riemann, walls: see :class:`FiniteVolumeStepper`; by default 0.4, monotonized central, HLL,
            outflow.

    Shapes: state ``(batch, 1 + num_dims, *space)``, channels height and velocities.
    Order: 2 where smooth, 1 in the L1 norm at bores.
    Good values: length 5, gravity 1, depth 1, ``dt = 0.01``.
    Source: Toro (2001), Shock-Capturing Methods for Free-Surface Shallow Flows.

    >>> water = ShallowWater(Domain.periodic((5.0, 5.0)), dt=0.1)
    >>> water.step(water.initial_condition(2, (16, 16))).shape
    torch.Size([2, 3, 16, 16])
    """

    allowed_dims = (1, 2)
    law: ShallowLayer

    def __init__(
        self,
        domain: Domain,
        *,
        dt: float,
        gravity: float = 1.0,
        depth: float = 1.0,
        cfl: float = 0.4,
        limiter: Limiter | None = None,
        riemann: RiemannSolver | None = None,
        walls: EndCells | None = None,
    ) -> None:
        if not (gravity > 0 and depth > 0):
            raise ArgumentError(f"expected gravity > 0 and depth > 0, got {gravity} and {depth}; correct them")
        super().__init__(
            domain,
            ShallowLayer(domain.num_dims, gravity),
            dt=dt,
            cfl=cfl,
            limiter=limiter,
            riemann=riemann or HLL(),
            walls=walls,
        )
        self.depth = float(depth)

    def state_of(self, fields: Tensor) -> Tensor:
        """Log-normal heights, Gaussian velocities."""
        height = self.depth * torch.exp(SURFACE_CONTRAST * fields[:, :1])
        wave_speed = (self.law.gravity * self.depth) ** 0.5
        return torch.cat([height, VELOCITY_CONTRAST * wave_speed * fields[:, 1:]], dim=1)


class RadialDamBreak(ShallowWater):
    """PDEBench's shallow water: a round column of water collapses.

    On (-2.5, 2.5)^2 with g = 1, depth 2 inside a circle of radius U(0.3, 0.7) and 1 outside, at rest; 101 states 0.01
    apart. One number per sample. The front moves at about 1.3 and stays inside until t = 1. PDEBench stores the height
    only, and computes with Roe's solver; the solutions agree away from the front.

    Args:
        dt: time between two states.
        cfl, limiter, riemann: see :class:`ShallowWater`.

    >>> dam = RadialDamBreak(dt=0.1)
    >>> start = dam.initial_condition(1, (32, 32))
    >>> start[:, 0].unique()
    tensor([1., 2.])
    """

    def __init__(
        self,
        *,
        dt: float = 0.01,
        cfl: float = 0.4,
        limiter: Limiter | None = None,
        riemann: RiemannSolver | None = None,
    ) -> None:
        domain = Domain.box((5.0, 5.0), boundary="neumann", nodes="cell", origin=(-2.5, -2.5))
        super().__init__(domain, dt=dt, cfl=cfl, limiter=limiter, riemann=riemann, walls=Outflow())

    def initial_condition(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Columns of random radius: ``(batch, 3, *shape)``."""
        radius = 0.3 + 0.4 * uniform(batch, (1, 1, 1), generator)
        distance = self.domain.coordinates(shape, dtype=torch.float64, device=radius.device).norm(dim=0)
        height = torch.where(distance < radius, 2.0, 1.0)
        state = torch.cat([height, torch.zeros_like(height).expand(-1, 2, *shape)], dim=1)
        return state.to(device=radius.device if device is None else device, dtype=dtype or torch.get_default_dtype())
