"""The engine of semilinear periodic problems: pseudo-spectral in space, exponential Runge-Kutta in time."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.pde.exponential import ETDRK4, ExponentialMethod, Nonlinearity, Step
from neuralop_kit.solvers.pde.reflection import EvenExtension
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid
from neuralop_kit.solvers.random_fields import GaussianRandomField
from neuralop_kit.solvers.randomness import Generators


class SpectralStepper(ABC):
    """Solves ``u_t = L u + N(u)`` on a periodic box, where ``L`` is diagonal in Fourier space and stiff.

    Neumann axes are taken too where the equation is invariant under reflection (``is_even``): the state is then
    continued evenly, which makes it periodic, at twice the points per such axis.

    A subclass is one equation: it says how many channels a state has, the symbol of ``L``, and the modes of ``N``.
    Products are dealiased: ``N`` sees only modes below ``2/(p+1)`` of the highest wavenumber for a polynomial of degree
    ``p`` (2/3 for products of two), and gives only such modes. Modes above feel the linear part alone.

    Args:
        domain: periodic along every axis, or with Neumann axes where the equation allows.
        dt: time between two states of a rollout, positive, in the time unit of the equation.
        num_substeps: steps of ``dt / num_substeps`` that make up one; raise it until the result stops changing.
        method: :class:`ETDRK4` (default) or :class:`ETDRK2`.

    Shapes: state ``(batch, num_channels, *space)``, trajectory ``(batch, time, num_channels, *space)``. The dtype and
    device are those of the state; all operations are differentiable.
    """

    num_channels = 1
    # Highest degree of u in the nonlinear term.
    degree = 2
    allowed_dims: tuple[int, ...] = (1, 2, 3)
    # Whether u(-x) solves the equation when u(x) does.
    is_even = False

    def __init__(
        self, domain: Domain, *, dt: float, num_substeps: int = 1, method: ExponentialMethod | None = None
    ) -> None:
        if not (math.isfinite(dt) and dt > 0) or num_substeps < 1:
            raise ArgumentError(f"expected dt > 0 and num_substeps >= 1, got {dt} and {num_substeps}; correct them")
        boundaries = {"periodic", "neumann"} if self.is_even else {"periodic"}
        if domain.num_dims not in self.allowed_dims or not {axis.boundary for axis in domain.axes} <= boundaries:
            allowed = " or ".join(str(d) for d in self.allowed_dims)
            raise DomainError(
                f"expected a domain of {allowed} dimensions, {' or '.join(sorted(boundaries))}, for "
                f"{type(self).__name__}, got {domain}; use Domain.periodic"
            )
        self.domain = domain
        self.dt = float(dt)
        self.num_substeps = num_substeps
        self.method = method or ETDRK4()
        self.extension = EvenExtension(domain)
        self._last: tuple[tuple[object, ...], tuple[SpectralGrid, Step, Nonlinearity]] | None = None

    @abstractmethod
    def linear(self, grid: SpectralGrid) -> Tensor:
        """Symbol of ``L``, real or complex, broadcastable over ``(num_channels, *modes)``."""

    @abstractmethod
    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """Modes of ``N(u)``; both tensors ``(batch, num_channels, *modes)``. Dealiasing is done around it."""

    def source(self, grid: SpectralGrid) -> Tensor | None:
        """Modes of the part of ``N`` that is constant in ``u`` and time, broadcastable over ``(batch, channel)``."""
        return None

    def step(self, u: Tensor) -> Tensor:
        """The state after ``dt``."""
        return self.rollout(u, num_steps=1)[:, 1]

    def rollout(self, u: Tensor, num_steps: int, *, save_every: int = 1) -> Tensor:
        """The trajectory from ``u`` on, the initial state included.

        Args:
            u: state, ``(batch, num_channels, *space)``.
            num_steps: steps of ``dt``, at least 1, a multiple of ``save_every``.
            save_every: keep every so many-th state only.

        Returns:
            ``(batch, 1 + num_steps / save_every, num_channels, *space)``. A state that blows up becomes NaN in its own
            item and stays NaN; its neighbours are unharmed.

        Raises:
            ShapeError: ``u`` has the wrong rank or number of channels.
            ArgumentError: the numbers of steps do not fit.
        """
        self._check(u)
        if num_steps < 1 or save_every < 1 or num_steps % save_every:
            raise ArgumentError(
                f"expected num_steps to be a positive multiple of save_every, got {num_steps} and {save_every}; "
                f"take {max(1, num_steps // max(save_every, 1)) * max(save_every, 1)}"
            )
        space = tuple(u.shape[2:])
        extended = self.extension.extend(u)
        grid, advance, nonlinear = self._prepare(extended)

        states, modes = [u], grid.to_modes(extended)
        for _ in range(num_steps // save_every):
            for _ in range(save_every * self.num_substeps):
                modes = advance(modes, nonlinear)
            states.append(self.extension.restrict(grid.to_space(modes), space))
        return torch.stack(states, dim=1)

    def initial_condition(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Random smooth states, the same functions at any resolution: ``(batch, num_channels, *shape)``."""
        field, channels = self.random_field(), self.num_channels
        # The channels of a sample are drawn together: one after the other, the second would be another function on
        # every grid, because the first takes more numbers on a finer one.
        if generator is None or isinstance(generator, torch.Generator):
            fields = field.sample(batch * channels, shape, generator=generator, dtype=dtype, device=device)
        else:
            parts = [field.sample(channels, shape, generator=g, dtype=dtype, device=device) for g in generator]
            fields = torch.cat(parts)
        return self.state_of(fields.unflatten(0, (batch, channels)).squeeze(2))

    def state_of(self, fields: Tensor) -> Tensor:
        """State made of Gaussian fields ``(batch, num_channels, *space)``; the fields themselves unless overridden."""
        return fields

    def random_field(self) -> GaussianRandomField:
        """Distribution of each channel of :meth:`initial_condition`: variance 1, a few waves per shortest length."""
        length, dims = min(self.domain.lengths), self.domain.num_dims
        field = GaussianRandomField(self.domain, alpha=2 + dims / 2, tau=10 / length, sigma=1.0)
        unit = field.average_variance((64,) * dims) ** -0.5
        return GaussianRandomField(self.domain, alpha=2 + dims / 2, tau=10 / length, sigma=unit)

    def _prepare(self, u: Tensor) -> tuple[SpectralGrid, Step, Nonlinearity]:
        """Everything that depends on the kind of ``u`` only; kept, as loops call :meth:`step` many times."""
        kind = (tuple(u.shape[2:]), u.dtype, u.device)
        if self._last is None or self._last[0] != kind:
            domain, shape, dtype, device = self.extension.domain, *kind
            # The symbol in double precision, whatever the state has: its exponential is taken.
            symbol = self.linear(SpectralGrid(domain, shape, dtype=torch.float64, device=device))
            grid = SpectralGrid(domain, shape, dtype=dtype, device=device)
            step = self.method.prepare(symbol, self.dt / self.num_substeps, dtype)
            self._last = (kind, (grid, step, self._dealiased(grid)))
        return self._last[1]

    def _dealiased(self, grid: SpectralGrid) -> Nonlinearity:
        """``N`` between two truncations, plus the constant part."""
        band, source = grid.band(2 / (self.degree + 1)), self.source(grid)

        def nonlinear(modes: Tensor) -> Tensor:
            products = band * self.nonlinear(band * modes, grid)
            return products if source is None else products + source

        return nonlinear

    def _check(self, u: Tensor) -> None:
        dims = self.domain.num_dims
        if u.ndim != 2 + dims or u.shape[1] != self.num_channels:
            raise ShapeError(
                f"expected a state of shape (batch, {self.num_channels}, *space) with {dims} space axes, "
                f"got {tuple(u.shape)}; a single channel still needs its axis: u[:, None]"
            )
