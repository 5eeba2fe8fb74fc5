"""Allen-Cahn equation: two phases that separate and then coarsen."""

from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.exponential import ExponentialMethod
from neuralop_kit.solvers.pde.spectral import SpectralStepper
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid


class AllenCahn(SpectralStepper):
    """Phase separation: ``u`` tends to -1 or 1, with interfaces about ``sqrt(2 diffusivity)`` wide that shorten.

        u_t = diffusivity Lap u + u - u^3            periodic, or no flux at walls

    It is the gradient flow of ``integral of diffusivity/2 |grad u|^2 + (u^2 - 1)^2 / 4``, which therefore never grows.

    Args:
        domain: one to three dimensions, axes periodic or Neumann.
        diffusivity: in length^2 per time, positive.
        dt, num_substeps, method: see :class:`SpectralStepper`.

    Shapes: state ``(batch, 1, *space)``. Order: that of the method in ``dt``, spectral in space.
    Good values: length 2 pi, diffusivity 5e-3, 128 points, ``dt = 0.1``.
    Source: Allen and Cahn (1979); Kassam and Trefethen (2005), section 4.

    >>> stepper = AllenCahn(Domain.box((1.0, 1.0), boundary="neumann", nodes="cell"), diffusivity=1e-3, dt=0.1)
    >>> stepper.step(stepper.initial_condition(2, (32, 32))).shape
    torch.Size([2, 1, 32, 32])
    """

    degree = 3
    is_even = True

    def __init__(
        self,
        domain: Domain,
        *,
        diffusivity: float = 5e-3,
        dt: float,
        num_substeps: int = 1,
        method: ExponentialMethod | None = None,
    ) -> None:
        super().__init__(domain, dt=dt, num_substeps=num_substeps, method=method)
        if not diffusivity > 0:
            raise ArgumentError(f"expected diffusivity > 0, got {diffusivity}; correct it")
        self.diffusivity = float(diffusivity)

    def linear(self, grid: SpectralGrid) -> Tensor:
        """``-diffusivity |k|^2``."""
        return -self.diffusivity * grid.squared

    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """``u - u^3``: growth too, because waves that are too short for the cubic to stop must not grow."""
        return u_hat - grid.to_modes(grid.to_space(u_hat) ** 3)
