"""Linear advection: transport without change of shape."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.spectral import SpectralStepper
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid


class Advection(SpectralStepper):
    """Transport at constant velocity: the solution is a shift, and here exactly that.

        u_t + c . grad u = 0            periodic

    Exact for every ``dt`` and every band-limited field; the unpaired highest mode of an even axis, which has no sine
    partner to move to, stays.

    Args:
        domain: periodic, one to three dimensions.
        velocity: ``c``, one number per axis, in length per time.
        dt: time between two states.

    Shapes: state ``(batch, 1, *space)``. Good values: length 1, ``velocity`` 0.1 to 4, ``dt = 0.01`` (as PDEBench).

    >>> stepper = Advection(Domain.periodic((1.0,)), velocity=(1.0,), dt=0.25)
    >>> u = torch.tensor([[[0.0, 1.0, 0.0, -1.0]]], dtype=torch.float64)
    >>> torch.allclose(stepper.step(u), u.roll(1))
    True
    """

    degree = 1

    def __init__(self, domain: Domain, *, velocity: Sequence[float], dt: float) -> None:
        super().__init__(domain, dt=dt)
        if len(velocity) != domain.num_dims:
            raise ArgumentError(
                f"expected one velocity per axis ({domain.num_dims}), got {tuple(velocity)}; give one each"
            )
        if not all(map(math.isfinite, velocity)):
            raise ArgumentError(f"expected finite velocities, got {tuple(velocity)}; correct them")
        self.velocity = tuple(float(c) for c in velocity)

    def linear(self, grid: SpectralGrid) -> Tensor:
        """``-i c . k``."""
        total = sum(c * grid.first_derivative_symbol(axis) for axis, c in enumerate(self.velocity))
        return -1j * torch.as_tensor(total)

    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """None."""
        return torch.zeros_like(u_hat)
