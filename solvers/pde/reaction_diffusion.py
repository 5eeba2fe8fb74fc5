"""Two substances that react and diffuse: the equations of Turing patterns."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.exponential import ExponentialMethod
from neuralop_kit.solvers.pde.spectral import SpectralStepper
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid


class TwoSpecies(SpectralStepper):
    """``u_t = D_u Lap u + R_u(u, v)``, ``v_t = D_v Lap v + R_v(u, v)``; leaves say what ``R`` is.

    Args:
        domain: one to three dimensions, axes periodic or Neumann (no flux).
        diffusivities: ``(D_u, D_v)`` in length^2 per time, positive.
        dt, num_substeps, method: see :class:`SpectralStepper`.

    Shapes: state ``(batch, 2, *space)``.
    """

    num_channels = 2
    degree = 3
    is_even = True

    def __init__(
        self,
        domain: Domain,
        *,
        diffusivities: tuple[float, float],
        dt: float,
        num_substeps: int = 1,
        method: ExponentialMethod | None = None,
    ) -> None:
        super().__init__(domain, dt=dt, num_substeps=num_substeps, method=method)
        if len(diffusivities) != 2 or not all(0 < d < math.inf for d in diffusivities):
            raise ArgumentError(f"expected two positive diffusivities, got {diffusivities}; correct them")
        self.diffusivities = (float(diffusivities[0]), float(diffusivities[1]))

    @abstractmethod
    def reaction(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``R_u`` and ``R_v`` at the points."""

    def linear(self, grid: SpectralGrid) -> Tensor:
        """``-D |k|^2`` per channel."""
        return torch.stack([-d * grid.squared for d in self.diffusivities])

    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """The reaction."""
        u, v = grid.to_space(u_hat).unbind(dim=1)
        return grid.to_modes(torch.stack(self.reaction(u, v), dim=1))


class ReactionDiffusion(TwoSpecies):
    """FitzHugh-Nagumo: an excitable medium, with an activator ``u`` and an inhibitor ``v``.

        u_t = D_u Lap u + u - u^3 - k - v,      v_t = D_v Lap v + u - v

    Args:
        domain: one to three dimensions, axes periodic or Neumann.
        diffusivities: ``(D_u, D_v)``.
        threshold: k.
        dt, num_substeps, method: see :class:`SpectralStepper`.

    Shapes: state ``(batch, 2, *space)``. Order: that of the method in ``dt``, spectral in space.
    Good values: :meth:`pdebench` at 128 x 128 with 10 substeps.
    Source: Takamoto et al. (2022), PDEBench, section on diffusion-reaction; Klaasen and Troy (1984).

    >>> stepper = ReactionDiffusion.pdebench()
    >>> stepper.step(stepper.initial_condition(2, (32, 32))).shape
    torch.Size([2, 2, 32, 32])
    """

    def __init__(
        self,
        domain: Domain,
        *,
        diffusivities: tuple[float, float] = (1e-3, 5e-3),
        threshold: float = 5e-3,
        dt: float,
        num_substeps: int = 1,
        method: ExponentialMethod | None = None,
    ) -> None:
        super().__init__(domain, diffusivities=diffusivities, dt=dt, num_substeps=num_substeps, method=method)
        self.threshold = float(threshold)

    @classmethod
    def pdebench(cls, *, dt: float = 0.05, num_substeps: int = 1) -> "ReactionDiffusion":
        """PDEBench's: (-1, 1)^2, cell centres, no flux, 101 states 0.05 apart.

        Its initial state is white noise per cell, which is another function on every grid; ours is a smooth one.
        """
        domain = Domain.box((2.0, 2.0), boundary="neumann", nodes="cell", origin=(-1.0, -1.0))
        return cls(domain, dt=dt, num_substeps=num_substeps)

    def reaction(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``u - u^3 - k - v`` and ``u - v``."""
        return u - u**3 - self.threshold - v, u - v


class GrayScott(TwoSpecies):
    """A substrate ``u`` is fed and eaten by ``v``, which decays: spots, stripes, self-replication.

        u_t = D_u Lap u - u v^2 + feed (1 - u),      v_t = D_v Lap v + u v^2 - (feed + kill) v

    Args:
        domain: one to three dimensions, axes periodic or Neumann.
        feed, kill: rates, per time, positive.
        diffusivities: ``(D_u, D_v)``.
        dt, num_substeps, method: see :class:`SpectralStepper`.

    Shapes: state ``(batch, 2, *space)``. Order: that of the method in ``dt``, spectral in space.
    Good values: length 1, feed 0.04, kill 0.06, diffusivities (2e-5, 1e-5), ``dt = 10`` with 10 substeps.
    Source: Gray and Scott (1983); Pearson (1993), Science 261.

    >>> stepper = GrayScott(Domain.periodic((1.0, 1.0)), dt=10.0, num_substeps=10)
    >>> stepper.step(stepper.initial_condition(2, (32, 32))).shape
    torch.Size([2, 2, 32, 32])
    """

    def __init__(
        self,
        domain: Domain,
        *,
        feed: float = 0.04,
        kill: float = 0.06,
        diffusivities: tuple[float, float] = (2e-5, 1e-5),
        dt: float,
        num_substeps: int = 1,
        method: ExponentialMethod | None = None,
    ) -> None:
        super().__init__(domain, diffusivities=diffusivities, dt=dt, num_substeps=num_substeps, method=method)
        if not (feed > 0 and kill > 0):
            raise ArgumentError(f"expected feed > 0 and kill > 0, got {feed} and {kill}; correct them")
        self.feed, self.kill = float(feed), float(kill)

    def state_of(self, fields: Tensor) -> Tensor:
        """Patches of ``v`` up to 1/2 in a sea of substrate: smooth, between 0 and 1."""
        v = 0.5 * torch.sigmoid(6 * (fields[:, :1] - 1))
        return torch.cat([1 - v, v], dim=1)

    def reaction(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``-u v^2 + feed (1 - u)`` and ``u v^2 - (feed + kill) v``."""
        eaten = u * v**2
        return self.feed * (1 - u) - eaten, eaten - (self.feed + self.kill) * v
