"""The wave equation with constant speed."""

import math

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.exponential import ExponentialMethod, Nonlinearity, Step
from neuralop_kit.solvers.pde.spectral import SpectralStepper
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid


class OscillatorRotation(ExponentialMethod):
    """Exact step of ``u' = v, v' = -omega^2 u`` for the two channels of a state, at every ``dt``.

    u' = cos(omega dt) u + sin(omega dt)/omega v,      v' = -omega sin(omega dt) u + cos(omega dt) v
    """

    order = 0

    def prepare(self, linear: Tensor, dt: float, dtype: torch.dtype) -> Step:
        """The rotation for angular frequencies ``linear``; there is no nonlinear part."""
        angle = dt * linear
        cosine = torch.cos(angle).to(dtype)
        # sinc is 1 at zero, where the mean drifts at constant velocity.
        stretch = (dt * torch.sinc(angle / math.pi)).to(dtype)
        pull = (-linear * torch.sin(angle)).to(dtype)

        def step(u: Tensor, nonlinear: Nonlinearity) -> Tensor:
            displacement, velocity = u[:, 0], u[:, 1]
            return torch.stack(
                [cosine * displacement + stretch * velocity, pull * displacement + cosine * velocity], dim=1
            )

        return step


class Wave(SpectralStepper):
    """Vibration and sound: displacement and velocity exchange energy, exactly conserved.

        u_t = v,     v_t = speed^2 Lap u            periodic, or free at walls (no flux)

    Each mode is a harmonic oscillator and is advanced by its exact rotation, for every ``dt``. The energy
    ``integral of v^2 + speed^2 |grad u|^2`` is constant to rounding.

    Args:
        domain: one to three dimensions, axes periodic or Neumann.
        speed: of sound, in length per time, positive.
        dt: time between two states.

    Shapes: state ``(batch, 2, *space)``, channels ``u`` and ``v = u_t``.
    Good values: length 1, speed 1, ``dt = 0.01``.
    Source: d'Alembert (1747).

    >>> domain = Domain.periodic((1.0,))
    >>> x = domain.coordinates((32,), dtype=torch.float64)
    >>> state = torch.stack([torch.sin(2 * math.pi * x), torch.zeros_like(x)], dim=1)
    >>> (Wave(domain, dt=0.5).step(state)[:, 0] + torch.sin(2 * math.pi * x)).abs().max().item() < 1e-14
    True
    """

    num_channels = 2
    degree = 1
    is_even = True

    def __init__(self, domain: Domain, *, speed: float = 1.0, dt: float) -> None:
        super().__init__(domain, dt=dt, method=OscillatorRotation())
        if not speed > 0:
            raise ArgumentError(f"expected speed > 0, got {speed}; correct it")
        self.speed = float(speed)

    def linear(self, grid: SpectralGrid) -> Tensor:
        """Angular frequency ``speed |k|`` of each mode."""
        return self.speed * grid.squared.sqrt()

    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """None."""
        return torch.zeros_like(u_hat)
