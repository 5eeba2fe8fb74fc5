"""The discretization with which the Darcy data of the FNO paper were made, quirks included."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DomainError
from neuralop_kit.solvers.pde.elliptic import BoundaryValues, EllipticScheme, FiniteVolumes, arithmetic_mean
from neuralop_kit.solvers.pde.network import ConductanceNetwork


@dataclass(frozen=True)
class SplineNodal(EllipticScheme):
    """Differences on K nodes per axis, walls included, for fields on K cell centres; splines in between.

    1. Coefficient and source go from the cell centres (2i+1)/(2K) to the nodes i/(K-1) by cubic splines, which
       overshoot at jumps and are extrapolated at the walls.
    2. Five-point differences (2d+1 in d dimensions) with *arithmetic* means of the nodal coefficient, h = 1/(K-1),
       zero on the outermost nodes.
    3. The solution goes back to the cell centres by splines.

    Needed only to equal published data; :class:`FiniteVolumes` is more accurate on the same grid. Users of the
    published files take the values for nodal ones, although they belong to cell centres: an error of order h.

    Where an interface runs close to a wall, the extrapolated coefficient is negative at some nodes of the wall, in
    about half of all samples of {3, 12}. The matrix is then indefinite; its solution is still tame, as u is zero
    there, but conjugate gradients are not made for it. Solve with :class:`SparseDirect`, as the generator did.

    Args:
        domain: Dirichlet on all axes, cell centres.

    Raises:
        DomainError: another kind of domain.

    Source: ``solve_gwf.m`` beside Li et al. (2021), read, not copied; splines are not-a-knot, as Matlab's.
    """

    domain: Domain

    def __post_init__(self) -> None:
        if any((axis.boundary, axis.nodes) != ("dirichlet", "cell") for axis in self.domain.axes):
            raise DomainError(
                f"expected Dirichlet walls and cell centres on every axis, got {self.domain!r}; "
                "use Domain.box((1.0, 1.0), boundary='dirichlet', nodes='cell')"
            )

    def system(
        self, coefficient: Tensor, source: Tensor, boundary: BoundaryValues | None
    ) -> tuple[ConductanceNetwork, Tensor]:
        """The network of the inner nodes."""
        return self._nodal.system(self._resample(coefficient, "vertex"), self._resample(source, "vertex"), boundary)

    def extend(self, u: Tensor, boundary: BoundaryValues | None, shape: tuple[int, ...]) -> Tensor:
        """Values at the cell centres."""
        return self._resample(self._nodal.extend(u, boundary, shape), "cell")

    @property
    def _nodal(self) -> FiniteVolumes:
        """Finite volumes on the nodes; on inner nodes these are five-point differences."""
        corner = [axis.start for axis in self.domain.axes]
        nodes = Domain.box(self.domain.lengths, boundary="dirichlet", nodes="vertex", origin=corner)
        return FiniteVolumes(nodes, mean=arithmetic_mean)

    def _resample(self, u: Tensor, target: str) -> Tensor:
        """Tensor-product spline from cell centres to nodes or back, as many points as before."""
        for dim in range(1, u.ndim):
            matrix = torch.from_numpy(spline_matrix(u.shape[dim], target)).to(u)
            u = (u.movedim(dim, -1) @ matrix.mT).movedim(-1, dim)
        return u


@lru_cache(maxsize=16)
def spline_matrix(num_points: int, target: str) -> np.ndarray:
    """Cubic spline from ``num_points`` cell centres of (0, 1) to as many vertices, or the reverse, as a matrix."""
    from scipy.interpolate import CubicSpline

    cells = (np.arange(num_points) + 0.5) / num_points
    vertices = np.arange(num_points) / (num_points - 1)
    source, points = (cells, vertices) if target == "vertex" else (vertices, cells)
    return np.asarray(CubicSpline(source, np.eye(num_points), bc_type="not-a-knot")(points))
