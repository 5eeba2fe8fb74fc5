"""Kuramoto-Sivashinsky equation: the smallest PDE with spatio-temporal chaos."""

from torch import Tensor

from neuralop_kit.solvers.pde.spectral import SpectralStepper
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid


class KuramotoSivashinsky(SpectralStepper):
    """Flame fronts and thin films.

        u_t = -1/2 |grad u|^2 - Lap u - Lap^2 u            periodic

    The second derivative feeds energy in, the fourth takes it out, the nonlinear term carries it between scales. The
    mean of ``u`` drifts; that of its slope is zero for all times. This is the combustion form; the slope ``v = u_x``
    of a one-dimensional solution solves the conservative form ``v_t = -v v_x - v_xx - v_xxxx``.

    Args:
        domain: periodic, one to three dimensions.
        dt, num_substeps, method: see :class:`SpectralStepper`.

    Shapes: state ``(batch, 1, *space)``. Order: that of the method in ``dt``, spectral in space.
    Good values: length 60, 128 points, ``dt = 0.1``. Chaotic for lengths above about 40; the first 500 steps are
    transient.
    Source: Sivashinsky (1977); Kassam and Trefethen (2005), section 4, for the method.

    >>> from neuralop_kit import Domain
    >>> stepper = KuramotoSivashinsky(Domain.periodic((60.0,)), dt=0.1)
    >>> stepper.rollout(stepper.initial_condition(8, (128,)), num_steps=50, save_every=10).shape
    torch.Size([8, 6, 1, 128])
    """

    is_even = True

    def linear(self, grid: SpectralGrid) -> Tensor:
        """``|k|^2 - |k|^4``."""
        return grid.squared - grid.squared**2

    def nonlinear(self, u_hat: Tensor, grid: SpectralGrid) -> Tensor:
        """``-1/2 |grad u|^2``."""
        slopes = [grid.to_space(grid.derivative(u_hat, axis)) for axis in range(len(grid.shape))]
        squared = slopes[0] ** 2
        for slope in slopes[1:]:
            squared = squared + slope**2
        return grid.to_modes(-0.5 * squared)
