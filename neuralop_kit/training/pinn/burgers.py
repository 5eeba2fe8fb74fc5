"""Burgers' equation on an interval, and its solution by Cole and Hopf."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.training.pinn.problem import PointProblem, derivatives, values


class Burgers1D(PointProblem):
    """A wave that becomes a standing shock.

        u_t + u u_x = nu u_xx for -1 < x < 1, 0 < t <= 1,    u(x, 0) = -sin(pi x),    u = 0 at both ends

    The slope at ``x = 0`` reaches about ``-1 / (2 nu)``. 1,000 points inside, 100 at the start, 50 at each end; network
    2-16-16-1, 337 weights.

    Args:
        viscosity: nu > 0. The literature's 0.01/pi wants deeper networks, more points and minutes; 0.1/pi, our own
            choice, takes seconds, and there is no published error to set beside it.

    Source: Raissi, Perdikaris and Karniadakis (2019), appendix A.

    >>> problem = Burgers1D()
    >>> problem.exact(torch.tensor([[0.0, 0.5]], dtype=torch.float64)).abs().item() < 1e-12
    True
    """

    num_dims = 2
    widths = (16, 16)

    def __init__(self, *, viscosity: float = 0.1 / math.pi) -> None:
        if not viscosity > 0:
            raise ArgumentError(f"expected viscosity > 0, got {viscosity}; an inviscid shock has no derivatives")
        self.viscosity = viscosity

    def draw(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Uniform in space and time."""
        inside, start, ends = (
            torch.rand(count, 2, generator=generator, dtype=torch.float64) for count in (1000, 100, 100)
        )
        for points in (inside, start):
            points[:, 0] = 2 * points[:, 0] - 1
        start[:, 1] = 0.0
        ends[:50, 0], ends[50:, 0] = -1.0, 1.0
        return {"interior": inside.requires_grad_(True), "initial": start, "boundary": ends}

    def residuals(self, network: nn.Module, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``u_t + u u_x - nu u_xx``, ``u + sin(pi x)`` and ``u``."""
        x, start = points["interior"], points["initial"]
        u = values(network, x)
        gradient, (u_xx,) = derivatives(u, x, (0,))
        return {
            "interior": gradient[:, 1] + u * gradient[:, 0] - self.viscosity * u_xx,
            "initial": values(network, start) + torch.sin(math.pi * start[:, 0]),
            "boundary": values(network, points["boundary"]),
        }

    def exact(self, x: Tensor) -> Tensor:
        """By :func:`cole_hopf`."""
        return cole_hopf(x[:, 0], x[:, 1], self.viscosity)

    def test_points(self) -> Tensor:
        """A grid of 201 points in space and 21 in time, sides included."""
        space = torch.linspace(-1, 1, 201, dtype=torch.float64)
        return torch.cartesian_prod(space, torch.linspace(0, 1, 21, dtype=torch.float64))


def cole_hopf(x: Tensor, t: Tensor, viscosity: float, *, num_nodes: int = 2001) -> Tensor:
    """The solution of Burgers' equation on the line that starts from ``-sin(pi x)``.

        u(x, t) = - int sin(pi (x - s)) F(x - s) G(s) ds / int F(x - s) G(s) ds
        F(y) = exp(-cos(pi y) / (2 pi nu)),    G(s) = exp(-s^2 / (4 nu t))

    by the trapezoidal rule, which converges faster than any power for such integrands: to about 1e-13 by default for
    ``nu >= 0.003`` and ``t <= 1``.

    Args:
        x, t: points, of one shape ``(num_points,)``, float64; ``t >= 0``.
        viscosity: nu > 0.
        num_nodes: of the rule, as far as F can outweigh G.

    Source: Cole (1951), Hopf (1950); Basdevant et al. (1986), eq. 2.5.

    >>> cole_hopf(torch.tensor([0.5]).double(), torch.tensor([0.0]).double(), 0.1)
    tensor([-1.], dtype=torch.float64)
    """
    # F varies by exp(1 / (pi nu)); beyond these standard deviations of G the integrand is below exp(-40) of its peak.
    reach = math.sqrt(2 / (math.pi * viscosity) + 80)
    nodes = torch.linspace(-reach, reach, num_nodes, dtype=x.dtype, device=x.device)
    y = x.unsqueeze(1) - (2 * viscosity * t).sqrt().unsqueeze(1) * nodes
    exponent = -torch.cos(math.pi * y) / (2 * math.pi * viscosity) - nodes.square() / 2
    return -(torch.softmax(exponent, dim=1) * torch.sin(math.pi * y)).sum(dim=1)
