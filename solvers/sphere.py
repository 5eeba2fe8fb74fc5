"""The surface of a sphere as a domain: latitude-longitude grids and their quadrature."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Axis, Domain
from neuralop_kit.solvers.errors import DomainError
from neuralop_kit.solvers.nodes import Device

GRIDS = ("equiangular", "gauss")


class SphereDomain(Domain):
    """The surface of a sphere, in colatitude ``theta`` (0 at the north pole) and longitude ``phi``.

        equiangular   theta_i = i pi/(N-1), poles included; Clenshaw-Curtis weights, exact to degree N-1
        gauss         cos(theta_i) are Gauss-Legendre nodes; exact to degree 2N-1

    Weights include the ``sin(theta)`` of the surface element and sum to ``4 pi radius^2``. Fields have shape
    ``(batch, channel, num_latitudes, num_longitudes)``; use about twice as many longitudes as latitudes.

    Args:
        radius: in the length unit of the problem, positive.
        grid: ``"equiangular"`` or ``"gauss"``.

    Source: Clenshaw and Curtis (1960); Gauss-Legendre nodes by numpy.

    >>> sphere = Domain.sphere()
    >>> round(sphere.weights((33, 64), dtype=torch.float64).sum().item() / math.pi, 12)
    4.0
    """

    def __init__(self, *, radius: float = 1.0, grid: str = "equiangular") -> None:
        if not (math.isfinite(radius) and radius > 0):
            raise DomainError(f"expected a positive radius, got {radius}; give it in the problem's length unit")
        if grid not in GRIDS:
            raise DomainError(f"expected a grid among {list(GRIDS)}, got {grid!r}; take one of these")
        nodes = "vertex" if grid == "equiangular" else "cell"
        super().__init__([Axis(0.0, math.pi, "neumann", nodes), Axis(0.0, 2 * math.pi, "periodic", "left")])
        self.radius = float(radius)
        self.grid = grid

    @property
    def measure(self) -> float:
        """Surface area."""
        return 4 * math.pi * self.radius**2

    def axis_coordinates(self, index: int, num_points: int, *, device: Device = None) -> Tensor:
        """Colatitudes (``index=0``) or longitudes (``index=1``), float64."""
        if index == 0 and self.grid == "gauss":
            nodes, _ = np.polynomial.legendre.leggauss(num_points)
            return torch.from_numpy(np.arccos(nodes[::-1]).copy()).to(device)
        return super().axis_coordinates(index, num_points, device=device)

    def axis_weights(self, index: int, num_points: int, *, device: Device = None) -> Tensor:
        """Weights of ``sin(theta) d theta`` (they sum to 2) or ``d phi`` (to 2 pi), float64, for the unit sphere."""
        if index == 1:
            return super().axis_weights(index, num_points, device=device)
        if self.grid == "gauss":
            _, weights = np.polynomial.legendre.leggauss(num_points)
            return torch.from_numpy(weights[::-1].copy()).to(device)
        return _clenshaw_curtis(num_points).to(device)

    def weights(self, shape: Sequence[int], *, dtype: torch.dtype | None = None, device: Device = None) -> Tensor:
        """Quadrature weights of all points: shape ``shape``, sum equal to the surface area."""
        unit = super().weights(shape, dtype=torch.float64, device=device)
        return (unit * self.radius**2).to(dtype or torch.get_default_dtype())

    def common_nodes(self, coarse: Sequence[int], fine: Sequence[int]) -> tuple[slice, ...]:
        """Slices that pick the coarse points from a fine field; Gauss grids are never nested."""
        if self.grid == "gauss" and tuple(coarse) != tuple(fine):
            raise DomainError(
                f"expected nested grids, got Gauss latitudes with {tuple(coarse)} and {tuple(fine)} points; "
                "use grid='equiangular' to compare point by point"
            )
        return super().common_nodes(coarse, fine)

    def to_json(self) -> dict[str, Any]:
        """A description of plain numbers and strings."""
        return {"type": "sphere", "radius": self.radius, "grid": self.grid}

    def __hash__(self) -> int:
        return hash((self.radius, self.grid))

    def __repr__(self) -> str:
        return f"SphereDomain(radius={self.radius:g}, grid={self.grid!r})"


def _clenshaw_curtis(num_points: int) -> Tensor:
    """Weights at ``theta_i = i pi/(N-1)`` that integrate ``cos(k theta) sin(theta)`` exactly for all k < N.

    w_i = c_i/n * (1 - sum_j b_j cos(2 j theta_i) / (4 j^2 - 1)),   n = N-1
    """
    n = num_points - 1
    theta = torch.arange(num_points, dtype=torch.float64) * (math.pi / n)
    j = torch.arange(1, n // 2 + 1, dtype=torch.float64)
    b = torch.full_like(j, 2.0)
    if n % 2 == 0:
        b[-1] = 1.0
    weights = 1.0 - (torch.cos(2 * theta[:, None] * j) * (b / (4 * j**2 - 1))).sum(dim=1)
    weights *= 2.0 / n
    weights[[0, -1]] *= 0.5
    return weights
