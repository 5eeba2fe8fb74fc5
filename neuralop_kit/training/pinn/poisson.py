"""Poisson's equation on unit cubes."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from neuralop_kit.training.pinn.problem import PointProblem, derivatives, on_faces, values


class Poisson(PointProblem):
    """Base of the two: the same equation, a solution each.

    -Laplace u = f in (0, 1)^d,    u given on the boundary
    """

    num_interior: int
    num_per_face: int

    def draw(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Uniform inside and on each face."""
        inside = torch.rand(self.num_interior, self.num_dims, generator=generator, dtype=torch.float64)
        return {
            "interior": inside.requires_grad_(True),
            "boundary": on_faces(self.num_dims, self.num_per_face, generator),
        }

    def residuals(self, network: nn.Module, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``Laplace u + f`` and ``u - exact``."""
        x, edge = points["interior"], points["boundary"]
        _, seconds = derivatives(values(network, x), x, range(self.num_dims))
        laplacian = torch.stack(seconds).sum(dim=0)
        return {"interior": laplacian + self.source(x.detach()), "boundary": values(network, edge) - self.exact(edge)}

    @abstractmethod
    def source(self, x: Tensor) -> Tensor:
        """f, ``(num_points, num_dims) -> (num_points,)``."""


class Poisson2D(Poisson):
    """One bump on the unit square.

        f = 2 pi^2 sin(pi x) sin(pi y),    u = sin(pi x) sin(pi y)

    900 points inside, 30 on each side; network 2-64-1, 257 weights: as published. Published errors are after 1000 s on
    a GPU, there as absolute ones, here divided by the root mean square of u, 1/2.
    Source: Dangel, Mueller and Zeinhofer (2024), "Kronecker-factored approximate curvature for PINNs".

    >>> problem = Poisson2D()
    >>> sum(p.numel() for p in problem.network().parameters())
    257
    """

    num_dims = 2
    num_interior, num_per_face = 900, 30
    published = MappingProxyType(
        {"ENGD": 1.2e-7, "KFAC": 4.0e-7, "Hessian-free": 6.4e-7, "SGD": 5.4e-5, "Adam": 1.9e-4, "L-BFGS": 3.2e-4}
    )

    def exact(self, x: Tensor) -> Tensor:
        """``sin(pi x) sin(pi y)``."""
        return torch.sin(math.pi * x).prod(dim=1)

    def source(self, x: Tensor) -> Tensor:
        """``2 pi^2 u``."""
        return 2 * math.pi**2 * self.exact(x)

    def test_points(self) -> Tensor:
        """A grid of 101 x 101 points, sides included."""
        line = torch.linspace(0, 1, 101, dtype=torch.float64)
        return torch.cartesian_prod(line, line)


class Poisson5D(Poisson):
    """A sum of waves in five dimensions.

        f = pi^2 sum_i cos(pi x_i),    u = sum_i cos(pi x_i)

    1,500 points inside, 50 on each of the ten faces; network 5-64-1, 449 weights. Published errors are after 3000 s on
    a GPU, absolute ones divided by the root mean square of u, 1.58; that of SPRING after 7000 s, with points drawn anew
    each step, 3,500 of them, and a network 5-64-64-48-48-1 of 10,065 weights.
    Source: Dangel, Mueller and Zeinhofer (2024); Guzman-Cordero et al. (2025).

    >>> problem = Poisson5D()
    >>> sum(p.numel() for p in problem.network().parameters())
    449
    """

    num_dims = 5
    num_interior, num_per_face = 1500, 50
    published = MappingProxyType(
        {"ENGD": 3.5e-8, "SPRING": 1.6e-7, "KFAC": 1.6e-6, "Hessian-free": 3.9e-6, "L-BFGS": 5.6e-4, "Adam": 7.0e-4}
    )

    def exact(self, x: Tensor) -> Tensor:
        """``sum_i cos(pi x_i)``."""
        return torch.cos(math.pi * x).sum(dim=1)

    def source(self, x: Tensor) -> Tensor:
        """``pi^2 u``."""
        return math.pi**2 * self.exact(x)

    def test_points(self) -> Tensor:
        """10,000 random points, always the same."""
        generator = torch.Generator().manual_seed(10_000)
        return torch.rand(10_000, 5, generator=generator, dtype=torch.float64)
