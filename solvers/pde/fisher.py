"""Fisher's equation: a substance spreads and grows until it is everywhere."""

from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde.exponential import ExponentialMethod
from neuralop_kit.solvers.pde.spectral import SpectralStepper
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid


class Fisher(SpectralStepper):
    """Logistic growth and diffusion: fronts travel at ``2 sqrt(diffusivity rate)``. PDEBench's 1-D reaction-diffusion.

        u_t = diffusivity Lap u + rate u (1 - u)

    ``u = 0`` is unstable and ``u = 1`` stable; states between 0 and 1 stay there.

    Args:
        domain: one to three dimensions, axes periodic or Neumann.
        diffusivity: in length^2 per time, positive.
        rate: of growth, per time, >= 0.
        dt, num_substeps, method: see :class:`SpectralStepper`.

    Shapes: state ``(batch, 1, *space)``. Order: that of the method in ``dt``, spectral in space.
    Good values: :meth:`pdebench` at 1024 points.
    Source: Fisher (1937); Takamoto et al. (2022), PDEBench, eq. 7.

    >>> stepper = Fisher.pdebench()
    >>> stepper.step(stepper.initial_condition(2, (64,))).shape
    torch.Size([2, 1, 64])
    """

    is_even = True

    def __init__(
        self,
        domain: Domain,
        *,
        diffusivity: float,
        rate: float,
        dt: float,
        num_substeps: int = 1,
        method: ExponentialMethod | None = None,
    ) -> None:
        super().__init__(domain, dt=dt, num_substeps=num_substeps, method=method)
        if not (diffusivity > 0 and rate >= 0):
            raise ArgumentError(f"expected diffusivity > 0 and rate >= 0, got {diffusivity} and {rate}; correct them")
        self.diffusivity, self.rate = float(diffusivity), float(rate)

    @classmethod
    def pdebench(
        cls, *, diffusivity: float = 0.5, rate: float = 1.0, dt: float = 0.01, num_substeps: int = 4
    ) -> "Fisher":
        """PDEBench's: unit interval, 101 states 0.01 apart; published with diffusivities 0.5 to 5, rates 1 to 10."""
        domain = Domain.periodic((1.0,), nodes="cell")
        return cls(domain, diffusivity=diffusivity, rate=rate, dt=dt, num_substeps=num_substeps)

    def state_of(self, fields: Tensor) -> Tensor:
        """Between 0 and 1."""
        return fields.sigmoid()

    def linear(self, grid: SpectralGrid) -> Tensor:
        """``-diffusivity |k|^2``."""
        return -self.diffusivity * grid.squared

    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """``rate u (1 - u)``: growth too, because waves that are too short for the square to stop must not grow."""
        return self.rate * (u_hat - grid.to_modes(grid.to_space(u_hat) ** 2))
