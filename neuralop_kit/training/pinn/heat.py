"""The heat equation on an interval."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from neuralop_kit.training.pinn.problem import PointProblem, derivatives, values


class Heat1D(PointProblem):
    """One mode that decays.

        u_t = u_xx / 4 for 0 < x < 1, 0 < t <= 1,    u(x, 0) = sin(pi x),    u = 0 at both ends
        u   = exp(-pi^2 t / 4) sin(pi x)

    900 points inside, 30 at each end, 60 at the start; network 2-64-1, 257 weights: that of the literature. Published
    errors are after 1000 s on a GPU, absolute ones divided by the root mean square of u, 0.317.
    Source: Dangel, Mueller and Zeinhofer (2024).

    >>> problem = Heat1D()
    >>> problem.exact(torch.tensor([[0.5, 0.0]]))
    tensor([1.])
    """

    num_dims = 2
    published = MappingProxyType(
        {"ENGD": 8.8e-8, "Hessian-free": 2.0e-6, "KFAC": 2.6e-6, "Adam": 2.5e-4, "L-BFGS": 8.5e-4, "SGD": 8.8e-4}
    )

    def draw(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Uniform in space and time."""
        inside = torch.rand(900, 2, generator=generator, dtype=torch.float64)
        start, ends = (torch.rand(60, 2, generator=generator, dtype=torch.float64) for _ in range(2))
        start[:, 1] = 0.0
        ends[:30, 0], ends[30:, 0] = 0.0, 1.0
        return {"interior": inside.requires_grad_(True), "initial": start, "boundary": ends}

    def residuals(self, network: nn.Module, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``u_t - u_xx / 4``, ``u - sin(pi x)`` and ``u``."""
        x, start = points["interior"], points["initial"]
        gradient, (u_xx,) = derivatives(values(network, x), x, (0,))
        return {
            "interior": gradient[:, 1] - u_xx / 4,
            "initial": values(network, start) - self.exact(start),
            "boundary": values(network, points["boundary"]),
        }

    def exact(self, x: Tensor) -> Tensor:
        """``exp(-pi^2 t / 4) sin(pi x)``."""
        return torch.exp(-(math.pi**2) * x[:, 1] / 4) * torch.sin(math.pi * x[:, 0])

    def test_points(self) -> Tensor:
        """A grid of 101 x 101 points, sides included."""
        line = torch.linspace(0, 1, 101, dtype=torch.float64)
        return torch.cartesian_prod(line, line)
