"""What a hyperbolic conservation law must say about itself for finite volumes to solve it."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class ConservationLaw(ABC):
    """``U_t + sum_axis F_axis(U)_x = 0``; fields ``(batch, channel, *space)``.

    Equations are written in primitive variables ``W`` (velocity, pressure), which users see and which stay positive
    when they are interpolated, and conserved ones ``U`` (momentum, energy), whose sums do not change.
    """

    num_channels: int

    @abstractmethod
    def conserved(self, w: Tensor) -> Tensor:
        """``U`` from ``W``."""

    @abstractmethod
    def primitive(self, u: Tensor) -> Tensor:
        """``W`` from ``U``."""

    @abstractmethod
    def flux(self, w: Tensor, axis: int) -> Tensor:
        """``F_axis`` at primitive states."""

    @abstractmethod
    def speeds(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Velocity ``v`` along ``axis`` and speed of sound ``a``, ``(batch, 1, *space)``; signals have ``v -+ a``."""

    def mirror(self, axis: int) -> tuple[float, ...]:
        """Signs of the primitive variables in a mirror across ``axis``: -1 for the velocity along it."""
        return tuple(-1.0 if channel == self.velocity_channel(axis) else 1.0 for channel in range(self.num_channels))

    def velocity_channel(self, axis: int) -> int:
        """Where the velocity along ``axis`` is."""
        return 1 + axis


class IdealGas(ConservationLaw):
    """Euler's equations: W = (density, velocity, ..., pressure), U = (density, momentum, ..., energy).

    E = p/(gamma - 1) + rho |v|^2/2,     F = (rho v, rho v v + p, (E + p) v)

    Args:
        num_dims: 1 to 3.
        gamma: ratio of specific heats, above 1.
    """

    def __init__(self, num_dims: int, gamma: float) -> None:
        self.num_dims = num_dims
        self.num_channels = num_dims + 2
        self.gamma = gamma

    def conserved(self, w: Tensor) -> Tensor:
        """Density, momentum, energy."""
        density, velocity, pressure = w[:, :1], w[:, 1:-1], w[:, -1:]
        momentum = density * velocity
        energy = pressure / (self.gamma - 1) + 0.5 * (momentum * velocity).sum(dim=1, keepdim=True)
        return torch.cat([density, momentum, energy], dim=1)

    def primitive(self, u: Tensor) -> Tensor:
        """Density, velocity, pressure."""
        density, momentum, energy = u[:, :1], u[:, 1:-1], u[:, -1:]
        velocity = momentum / density
        pressure = (self.gamma - 1) * (energy - 0.5 * (momentum * velocity).sum(dim=1, keepdim=True))
        return torch.cat([density, velocity, pressure], dim=1)

    def flux(self, w: Tensor, axis: int) -> Tensor:
        """Transport of density, momentum and energy, and the pressure's work."""
        u, v, pressure = self.conserved(w), w[:, 1 + axis : 2 + axis], w[:, -1:]
        parts = list((v * u).split(1, dim=1))
        parts[1 + axis] = parts[1 + axis] + pressure
        parts[-1] = parts[-1] + pressure * v
        return torch.cat(parts, dim=1)

    def speeds(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Velocity, and ``sqrt(gamma p / rho)``."""
        return w[:, 1 + axis : 2 + axis], torch.sqrt(self.gamma * w[:, -1:] / w[:, :1])


class ShallowLayer(ConservationLaw):
    """Saint-Venant's equations: W = (height, velocity, ...), U = (height, height times velocity, ...).

    F = (h v, h v v + g h^2/2)

    Args:
        num_dims: 1 or 2.
        gravity: g, positive.
    """

    def __init__(self, num_dims: int, gravity: float) -> None:
        self.num_dims = num_dims
        self.num_channels = num_dims + 1
        self.gravity = gravity

    def conserved(self, w: Tensor) -> Tensor:
        """Height and discharge."""
        return torch.cat([w[:, :1], w[:, :1] * w[:, 1:]], dim=1)

    def primitive(self, u: Tensor) -> Tensor:
        """Height and velocity."""
        return torch.cat([u[:, :1], u[:, 1:] / u[:, :1]], dim=1)

    def flux(self, w: Tensor, axis: int) -> Tensor:
        """Transport, and the pressure of the water column."""
        height, v = w[:, :1], w[:, 1 + axis : 2 + axis]
        parts = list((v * self.conserved(w)).split(1, dim=1))
        parts[1 + axis] = parts[1 + axis] + 0.5 * self.gravity * height**2
        return torch.cat(parts, dim=1)

    def speeds(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Velocity, and ``sqrt(g h)``."""
        return w[:, 1 + axis : 2 + axis], torch.sqrt(self.gravity * w[:, :1])


class ScalarBurgers(ConservationLaw):
    """``F = u^2/2``; the only variable is its own velocity."""

    num_channels = 1

    def conserved(self, w: Tensor) -> Tensor:
        """The same."""
        return w

    def primitive(self, u: Tensor) -> Tensor:
        """The same."""
        return u

    def flux(self, w: Tensor, axis: int) -> Tensor:
        """``u^2/2``."""
        return 0.5 * w**2

    def speeds(self, w: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """``u``, and no sound."""
        return w, torch.zeros_like(w)

    def velocity_channel(self, axis: int) -> int:
        """The only one."""
        return 0
