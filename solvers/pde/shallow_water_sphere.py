"""Shallow water on a rotating sphere: the simplest model of weather."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.pde.exponential import ETDRK4, ExponentialMethod
from neuralop_kit.solvers.pde.sphere_grid import SphereGrid, draw_modes
from neuralop_kit.solvers.pde.stepper import Flow, TimeStepper
from neuralop_kit.solvers.randomness import Generators, standard_normal
from neuralop_kit.solvers.sphere import SphereDomain

# Of the Earth, SI units; Williamson et al. (1992).
EARTH_RADIUS, EARTH_ROTATION, EARTH_GRAVITY = 6.37122e6, 7.292e-5, 9.80616
MEAN_DEPTH = 1e4

# Random states: degrees that are excited, the degree around which most vorticity sits, divergence relative to it.
NUM_RANDOM_DEGREES, MAIN_DEGREE, DIVERGENCE_PART = 20, 5.0, 0.05


class ShallowWaterSphere(TimeStepper):
    """A thin layer of air or water on a rotating sphere: jets, planetary waves, gravity waves.

        vorticity_t = -div((vorticity + f) v)
        divergence_t = curl((vorticity + f) v) - Lap(Phi + |v|^2/2)
        Phi_t = -div(Phi v),                            f = 2 rotation sin(latitude)

    ``Phi`` is the geopotential, gravity times depth; ``v`` follows from vorticity and divergence. Spherical harmonics,
    products without aliasing. Gravity waves on the mean depth are linear and advanced exactly, so that the step is
    limited by the wind and not by their speed, ten times higher; the rest by an exponential Runge-Kutta method.
    The mean of ``Phi`` is conserved to rounding.

    Args:
        domain: a sphere; ``Domain.sphere(grid="gauss")`` resolves twice as much at equal size as ``"equiangular"``.
        dt: time between two states.
        num_substeps: of equal length in ``dt``; stability needs about ``wind * degrees / radius * substep < 2``.
        rotation: angular velocity, per time.
        mean_geopotential: of the layer at rest, in length^2/time^2, positive.
        hyperdiffusion: rate at which the smallest scale is damped, per time; scales with the fourth power of the
            Laplacian; 0 for none.
        wind: root mean square speed of random initial states.
        method: :class:`ETDRK4` (default) or :class:`ETDRK2`.

    Shapes: state ``(batch, 3, num_latitudes, num_longitudes)``, channels Phi, vorticity, divergence; scales that the
    truncation does not hold are dropped. Order: that of the method in ``dt``, spectral in space.
    Good values: :meth:`earth` at 128 x 256 with the default substep of 600 s.
    Source: Williamson et al. (1992), J. Comput. Phys. 102, eq. 2-4; Galewsky, Scott and Polvani (2004), Tellus A 56.

    >>> stepper = ShallowWaterSphere.earth(dt=600.0, num_substeps=1)
    >>> state = stepper.initial_condition(2, (16, 32), dtype=torch.float64)
    >>> stepper.step(state).shape
    torch.Size([2, 3, 16, 32])
    """

    num_channels = 3
    allowed_dims = (2,)
    domain: SphereDomain

    def __init__(
        self,
        domain: SphereDomain,
        *,
        dt: float,
        rotation: float,
        mean_geopotential: float,
        num_substeps: int = 1,
        hyperdiffusion: float = 0.0,
        wind: float = 0.05,
        method: ExponentialMethod | None = None,
    ) -> None:
        super().__init__(domain, dt=dt)
        if not isinstance(domain, SphereDomain):
            raise DomainError(f"expected a sphere, got {domain}; use Domain.sphere(grid='gauss')")
        if num_substeps < 1 or not (mean_geopotential > 0 and hyperdiffusion >= 0 and wind >= 0):
            raise ArgumentError(
                f"expected num_substeps >= 1, mean_geopotential > 0, hyperdiffusion >= 0 and wind >= 0, got "
                f"{num_substeps}, {mean_geopotential}, {hyperdiffusion} and {wind}; correct them"
            )
        self.num_substeps = num_substeps
        self.rotation = float(rotation)
        self.mean_geopotential = float(mean_geopotential)
        self.hyperdiffusion = float(hyperdiffusion)
        self.typical_wind = float(wind)
        self.method = method or ETDRK4()
        self._last: tuple[tuple[object, ...], SphereGrid] | None = None

    @classmethod
    def earth(
        cls, *, dt: float = 3600.0, num_substeps: int = 6, grid: str = "gauss", wind: float = 20.0
    ) -> "ShallowWaterSphere":
        """The Earth with a layer of 10 km, SI units; the smallest scale is damped within two hours."""
        return cls(
            SphereDomain(radius=EARTH_RADIUS, grid=grid),
            dt=dt,
            num_substeps=num_substeps,
            rotation=EARTH_ROTATION,
            mean_geopotential=EARTH_GRAVITY * MEAN_DEPTH,
            hyperdiffusion=1 / 7200,
            wind=wind,
        )

    @property
    def allowed_boundaries(self) -> frozenset[str]:
        """Those of a sphere's axes."""
        return frozenset({"periodic", "neumann"})

    def grid(self, shape: Sequence[int], device: Device = None) -> SphereGrid:
        """Transforms for one grid; kept, as their tables are expensive."""
        kind = (tuple(shape), device)
        if self._last is None or self._last[0] != kind:
            self._last = (kind, SphereGrid(self.domain, shape, device=device))
        return self._last[1]

    def flow(self, u: Tensor) -> Flow:
        """Modes of vorticity and of the two gravity waves, ``(batch, 3, degree, order)``."""
        grid = self.grid(u.shape[2:], u.device)
        step = self.method.prepare(self.linear(grid), self.dt / self.num_substeps, u.dtype)

        def substeps(modes: Tensor) -> Tensor:
            for _ in range(self.num_substeps):
                modes = step(modes, lambda state: self.nonlinear(state, grid))
            return modes

        return Flow(
            enter=lambda state: self.to_waves(grid.to_modes(state - self._mean(state)), grid),
            advance=substeps,
            leave=lambda modes: grid.to_space(self.from_waves(modes, grid)) + self._mean(u),
        )

    def linear(self, grid: SphereGrid) -> Tensor:
        """Rates of the three kinds of modes, complex128, ``(3, degree, 1)``: damping, and ``-+i`` times a frequency."""
        damping = self.hyperdiffusion * (grid.laplacian / grid.laplacian[-1]) ** 4
        frequency = torch.sqrt(-self.mean_geopotential * grid.laplacian)
        return torch.stack([torch.complex(-damping, -sign * frequency) for sign in (0.0, 1.0, -1.0)])

    def nonlinear(self, modes: Tensor, grid: SphereGrid) -> Tensor:
        """Everything else, for the same kinds of modes."""
        state = self.from_waves(modes, grid)
        geopotential, vorticity = grid.to_space(state[:, :2]).unbind(dim=1)
        wind = grid.wind(state[:, 1], state[:, 2])
        coriolis = (2 * self.rotation * torch.cos(grid.colatitude)).to(wind.dtype)
        # Two winds at once: absolute vorticity and geopotential, both carried along.
        carried = torch.stack([vorticity + coriolis, geopotential], dim=1).unsqueeze(2) * wind.unsqueeze(1)
        curl, divergence = grid.vorticity_divergence(carried)
        energy = grid.to_modes(0.5 * (wind**2).sum(dim=1))
        rates = [-divergence[:, 1], -divergence[:, 0], curl[:, 0] - grid.laplacian.to(wind.dtype) * energy]
        return self.to_waves(torch.stack(rates, dim=1), grid)

    def to_waves(self, state: Tensor, grid: SphereGrid) -> Tensor:
        """From (Phi - mean, vorticity, divergence) to vorticity and ``divergence +- i s Phi``, where
        ``s^2 = l (l + 1) / (radius^2 mean)``.
        """
        geopotential, vorticity, divergence = state.unbind(dim=1)
        scaled = 1j * self._wave_scale(grid, state) * geopotential
        return torch.stack([vorticity, divergence + scaled, divergence - scaled], dim=1)

    def from_waves(self, modes: Tensor, grid: SphereGrid) -> Tensor:
        """Inverse of :meth:`to_waves`."""
        vorticity, forward, backward = modes.unbind(dim=1)
        geopotential = -0.5j * (forward - backward) / self._wave_scale(grid, modes)
        return torch.stack([geopotential, vorticity, (forward + backward) / 2], dim=1)

    def wind(self, u: Tensor) -> Tensor:
        """Eastward and northward wind of a state, ``(batch, 2, *shape)``."""
        self.check(u)
        grid = self.grid(u.shape[2:], u.device)
        vorticity, divergence = grid.to_modes(u[:, 1:]).unbind(dim=1)
        return grid.wind(vorticity, divergence)

    def balanced(self, wind: Tensor) -> Tensor:
        """State with a given wind ``(batch, 2, *shape)`` and the geopotential that leaves its divergence at rest.

        ``Lap(Phi + |v|^2/2) = curl((vorticity + f) v)``, with the mean geopotential of the layer.
        """
        grid = self.grid(wind.shape[2:], wind.device)
        vorticity, divergence = grid.vorticity_divergence(wind)
        coriolis = (2 * self.rotation * torch.cos(grid.colatitude)).to(wind.dtype)
        curl, _ = grid.vorticity_divergence((grid.to_space(vorticity) + coriolis).unsqueeze(1) * wind)
        energy = grid.to_modes(0.5 * (wind**2).sum(dim=1))
        geopotential = grid.inverse_laplacian.to(wind.dtype) * curl - energy * (grid.degree > 0)
        state = grid.to_space(torch.stack([geopotential, vorticity, divergence], dim=1))
        return state + self._mean(state)

    def initial_condition(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Random planetary waves in balance, with a little divergence: ``(batch, 3, *shape)``."""
        n = NUM_RANDOM_DEGREES
        numbers = standard_normal(batch, (2, n, n, 2), generator)
        degree = torch.arange(n, dtype=torch.float64, device=numbers.device)
        spectrum = torch.where(degree > 0, (1 + (degree / MAIN_DEGREE) ** 2) ** -3, 0.0)
        # Sum of |v_lm|^2 = a^2 |vorticity_lm|^2 / (l (l+1)) over the sphere of area 4 pi.
        power = (2 * degree[1:] + 1) * spectrum[1:] * self.domain.radius**2 / (degree[1:] * (degree[1:] + 1))
        spectrum = spectrum * self.typical_wind**2 / (power.sum() / (4 * math.pi))
        grid = self.grid(shape, numbers.device)
        vorticity, divergence = draw_modes(numbers, spectrum, grid.num_degrees).unbind(dim=1)
        state = self.balanced(grid.wind(vorticity, DIVERGENCE_PART * divergence))
        place = numbers.device if device is None else device
        return state.to(device=place, dtype=dtype or torch.get_default_dtype())

    def _mean(self, like: Tensor) -> Tensor:
        """The state at rest, broadcastable."""
        return torch.tensor([self.mean_geopotential, 0.0, 0.0], dtype=like.dtype, device=like.device).view(3, 1, 1)

    def _wave_scale(self, grid: SphereGrid, like: Tensor) -> Tensor:
        """``s``; 1 for the mean, which is no wave."""
        scale = torch.sqrt(-grid.laplacian / self.mean_geopotential)
        return torch.where(grid.degree > 0, scale, 1.0).to(like.real.dtype)
