"""The engine of semilinear periodic problems: pseudo-spectral in space, exponential Runge-Kutta in time."""

from abc import abstractmethod

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.exponential import ETDRK4, ExponentialMethod, Nonlinearity, Step
from neuralop_kit.solvers.pde.reflection import EvenExtension
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid
from neuralop_kit.solvers.pde.stepper import Flow, TimeStepper


class SpectralStepper(TimeStepper):
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

    # Highest degree of u in the nonlinear term.
    degree = 2
    # Whether u(-x) solves the equation when u(x) does.
    is_even = False

    def __init__(
        self, domain: Domain, *, dt: float, num_substeps: int = 1, method: ExponentialMethod | None = None
    ) -> None:
        super().__init__(domain, dt=dt)
        if num_substeps < 1:
            raise ArgumentError(f"expected num_substeps >= 1, got {num_substeps}; correct it")
        self.num_substeps = num_substeps
        self.method = method or ETDRK4()
        self.extension = EvenExtension(domain)
        self._last: tuple[tuple[object, ...], tuple[SpectralGrid, Step, Nonlinearity]] | None = None

    @property
    def allowed_boundaries(self) -> frozenset[str]:
        """Walls are mirrors, for equations that a mirror leaves alone."""
        return frozenset({"periodic", "neumann"} if self.is_even else {"periodic"})

    @abstractmethod
    def linear(self, grid: SpectralGrid) -> Tensor:
        """Symbol of ``L``, real or complex, broadcastable over ``(num_channels, *modes)``."""

    @abstractmethod
    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """Modes of ``N(u)``; both tensors ``(batch, num_channels, *modes)``. Dealiasing is done around it."""

    def source(self, grid: SpectralGrid) -> Tensor | None:
        """Modes of the part of ``N`` that is constant in ``u`` and time, broadcastable over ``(batch, channel)``."""
        return None

    def flow(self, u: Tensor) -> Flow:
        """Fourier modes, advanced by the exponential method."""
        space = tuple(u.shape[2:])
        grid, advance, nonlinear = self._prepare(self.extension.extend(u))

        def substeps(modes: Tensor) -> Tensor:
            for _ in range(self.num_substeps):
                modes = advance(modes, nonlinear)
            return modes

        return Flow(
            enter=lambda state: grid.to_modes(self.extension.extend(state)),
            advance=substeps,
            leave=lambda modes: self.extension.restrict(grid.to_space(modes), space),
        )

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
