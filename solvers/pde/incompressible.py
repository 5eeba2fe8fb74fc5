"""Incompressible flow in a closed box: no-slip walls, smoke that is carried along, and a force that pulls at it."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.pde.limiters import Limiter, MonotonizedCentral
from neuralop_kit.solvers.pde.staggered import diffusion, projected, smoke_change, transport
from neuralop_kit.solvers.pde.stepper import Flow, TimeStepper
from neuralop_kit.solvers.random_fields import GaussianRandomField
from neuralop_kit.solvers.randomness import Generators

# An item that would need more steps than this for one dt has blown up.
MAX_STEPS = 1e6
# Steps in the time h^2/viscosity per axis; the third-order method needs 4/2.51.
DIFFUSIVE_STEPS = 1.8
# Size of random states, in units of the length: of the stream function, and of the force.
STREAM, FORCE = 0.02, 0.4


class IncompressibleFlow(TimeStepper):
    """Navier-Stokes' equations between no-slip walls, with smoke and a force on it that does not depend on time.

        v_t + v . grad v = -grad p + nu Lap v + s f,    div v = 0,    s_t + div(s v) = 0,    v = 0 on the walls

    Marker-and-cell scheme: velocities on faces, pressure and smoke at cell centres, second-order differences in
    conservative form, limited slopes for the smoke. After every stage the velocity is projected: its discrete
    divergence is zero to rounding, by an exact solution with cosine transforms. The pressure is not a variable. Without
    viscosity, force and time error kinetic energy is conserved; the amount of smoke always is.

    Args:
        domain: two dimensions, Dirichlet, with cell centres.
        dt: time between two states; the steps in between are chosen by the scheme.
        viscosity: nu, >= 0, in length squared per time.
        cfl: in (0, 1]: how much of a cell may be crossed in a step, summed over axes.
        limiter: of the slopes of the smoke; by default monotonized central.

    Shapes: state ``(batch, 5, n_x, n_y)``, channels velocity_x, velocity_y, particles (the smoke), force_x, force_y. In
    cell ``(i, j)`` are ``velocity_x`` on its right face, ``velocity_y`` on its upper face, everything else at its
    centre; the outermost right and upper faces are walls, where velocities are zero. :meth:`centred` gives velocities
    at the centres. The force is part of the state, and stays. A state that does not fulfil ``div v = 0`` is projected
    first; one that is not finite becomes NaN altogether.
    Order: 3 in time, 2 in space where the smoke is smooth.
    Good values: :meth:`pdebench`, 64 x 64.
    Source: Harlow and Welch (1965), Phys. Fluids 8; Morinishi et al. (1998), J. Comput. Phys. 143, for the energy; Shu
    and Osher (1988) for the steps. Takamoto et al. (2022), PDEBench, for the problem.

    >>> flow = IncompressibleFlow.pdebench(dt=0.05)
    >>> u = flow.rollout(flow.initial_condition(2, (16, 16), dtype=torch.float64), num_steps=2)
    >>> u.shape, bool(flow.divergence(u[:, 2]).abs().max() < 1e-12)
    (torch.Size([2, 3, 5, 16, 16]), True)
    """

    num_channels = 5
    allowed_dims = (2,)

    def __init__(
        self, domain: Domain, *, dt: float, viscosity: float, cfl: float = 0.8, limiter: Limiter | None = None
    ) -> None:
        super().__init__(domain, dt=dt)
        if any(axis.nodes != "cell" for axis in domain.axes):
            raise DomainError(f"expected cell centres between walls, got {domain}; use nodes='cell'")
        if not (math.isfinite(viscosity) and viscosity >= 0 and 0 < cfl <= 1):
            raise ArgumentError(f"expected viscosity >= 0 and 0 < cfl <= 1, got {viscosity} and {cfl}; correct them")
        self.viscosity, self.cfl = float(viscosity), float(cfl)
        self.limiter = limiter or MonotonizedCentral()

    @classmethod
    def pdebench(cls, *, dt: float = 0.05, viscosity: float = 0.01) -> "IncompressibleFlow":
        """PDEBench's in a unit box. Its own box is in cells, so that lengths, velocities and forces are not known."""
        return cls(Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell"), dt=dt, viscosity=viscosity)

    @property
    def allowed_boundaries(self) -> frozenset[str]:
        """Walls."""
        return frozenset({"dirichlet"})

    def flow(self, u: Tensor) -> Flow:
        """Projected states, advanced by as many steps as stability asks for."""
        spacing = self.domain.spacing(u.shape[2:])
        return Flow(
            enter=lambda u: self._project(u, spacing), advance=lambda u: self._advance(u, spacing), leave=_sound
        )

    def divergence(self, u: Tensor) -> Tensor:
        """Discrete divergence of the velocity in each cell, ``(batch, 1, n_x, n_y)``."""
        parts = zip(_faces(u), self.domain.spacing(u.shape[2:]), (-2, -1), strict=True)
        return sum((torch.diff(v, dim=dim) / h for v, h, dim in parts), torch.zeros_like(u[:, 0])).unsqueeze(1)

    @staticmethod
    def centred(u: Tensor) -> Tensor:
        """The state with velocities averaged to cell centres, as PDEBench stores them: not free of divergence.

        Shape: as the state.
        """
        across, along = _faces(u)
        v_x = (across[:, 1:] + across[:, :-1]) / 2
        v_y = (along[:, :, 1:] + along[:, :, :-1]) / 2
        return torch.cat([torch.stack([v_x, v_y], dim=1), u[:, 2:]], dim=1)

    def initial_condition(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Random smooth flow at rest on the walls, smoke and force; the same functions at any resolution."""
        # A grid with half the spacing has corners, where the stream function is, and centres.
        vertices = Domain([replace(axis, nodes="vertex") for axis in self.domain.axes])
        length = min(self.domain.lengths)
        unit = GaussianRandomField(vertices, alpha=3.0, tau=10 / length, sigma=1.0).average_variance((65, 65)) ** -0.5
        field = GaussianRandomField(vertices, alpha=3.0, tau=10 / length, sigma=unit)
        half = tuple(2 * n + 1 for n in shape)
        if generator is None or isinstance(generator, torch.Generator):
            drawn = field.sample(4 * batch, half, generator=generator, dtype=torch.float64, device=device)
        else:
            parts = [field.sample(4, half, generator=g, dtype=torch.float64, device=device) for g in generator]
            drawn = torch.cat(parts)
        stream, smoke, *force = drawn.unflatten(0, (batch, 4)).squeeze(2).unbind(dim=1)
        # The square of a sine per axis, one from the field itself: velocities are zero on the walls, too.
        for axis, (side, n) in enumerate(zip(self.domain.lengths, half, strict=True)):
            x = vertices.axis_coordinates(axis, n, device=stream.device) - vertices.axes[axis].start
            stream = stream * torch.sin(math.pi * x / side).view(-1, *[1] * (1 - axis))
        h_x, h_y = self.domain.spacing(shape)
        corners = STREAM * length * stream[:, ::2, ::2]
        v_x, v_y = corners[:, 1:].diff(dim=2) / h_y, -corners[:, :, 1:].diff(dim=1) / h_x
        centres = [smoke.abs(), *(FORCE * part for part in force)]
        state = torch.stack([v_x, v_y, *(part[:, 1::2, 1::2] for part in centres)], dim=1)
        return state.to(dtype or torch.get_default_dtype())

    def _project(self, u: Tensor, spacing: tuple[float, ...]) -> Tensor:
        return torch.cat([projected(_faces(u), spacing), u[:, 2:]], dim=1)

    def _rate(self, u: Tensor, force: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """Change of velocities and smoke per time, before projection."""
        across, along = _faces(u)
        smoke = u[:, 2]
        h_x, h_y = spacing
        rates = []
        # The second component is the first one of the transposed flow.
        for pair, h, pull, turn in (
            ((across, along), (h_x, h_y), smoke * force[:, 0], False),
            ((along.mT, across.mT), (h_y, h_x), (smoke * force[:, 1]).mT, True),
        ):
            rate = self.viscosity * diffusion(pair[0], h) - transport(*pair, h) + (pull[:, 1:] + pull[:, :-1]) / 2
            rate = pad(rate, (0, 0, 0, 1))
            rates.append(rate.mT if turn else rate)
        rates.append(smoke_change(smoke, (across, along), spacing, self.limiter))
        return torch.stack(rates, dim=1)

    def _advance(self, u: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """The state after ``dt``."""
        u, force = u[:, :3], u[:, 3:]
        remaining = torch.full((len(u),), self.dt, dtype=u.dtype, device=u.device)
        while True:
            # A whole number of equal steps is left, so that the step is locally constant and gradients are exact.
            count = torch.ceil(remaining * self._frequency(u.detach(), spacing)).clamp_min(1.0)
            count = torch.where(count <= MAX_STEPS, count, torch.nan)
            dt = (remaining / count).view(-1, 1, 1, 1)

            def euler(u: Tensor, dt: Tensor = dt) -> Tensor:
                return self._project(u + dt * self._rate(u, force, spacing), spacing)

            middle = 0.75 * u + 0.25 * euler(euler(u))
            u = u / 3 + 2 / 3 * euler(middle)
            # Comparisons with NaN are false: a spoiled item is done.
            remaining = torch.where(count > 1, remaining - remaining / count, 0.0)
            if not remaining.any():
                return torch.cat([u, force], dim=1)

    def _frequency(self, u: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """Steps per time that each item needs, ``(batch,)``."""
        speeds = torch.stack([u[:, axis].abs().flatten(1).amax(dim=1) / h for axis, h in enumerate(spacing)])
        diffusive = DIFFUSIVE_STEPS * self.viscosity * math.fsum(h**-2 for h in spacing)
        return speeds.sum(dim=0) / self.cfl + diffusive


def _faces(u: Tensor) -> tuple[Tensor, Tensor]:
    """Velocities on the faces across x ``(batch, n_x + 1, n_y)`` and across y ``(batch, n_x, n_y + 1)``, walls too."""
    return pad(u[:, 0, :-1], (0, 0, 1, 1)), pad(u[:, 1, :, :-1], (1, 1))


def _sound(u: Tensor) -> Tensor:
    """Items with anything that is not finite as NaN, their walls and forces too."""
    return torch.where(u.flatten(1).isfinite().all(dim=1).view(-1, 1, 1, 1), u, torch.nan)
