"""Second-order finite volumes for -div(a grad u) = f on boxes: from fields to conductance networks."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DomainError
from neuralop_kit.solvers.pde.network import ConductanceNetwork, sum_of_fluxes
from neuralop_kit.solvers.sphere import SphereDomain

FaceMean = Callable[[Tensor, Tensor], Tensor]
BoundaryValues = Callable[[Tensor], Tensor]

# Conductance of the way from the outermost unknown to its wall, in units of a / spacing. On vertex nodes with
# Dirichlet data the outermost node is the wall, and the way to it is an ordinary face.
_WALLS = {
    ("dirichlet", "cell"): 2.0,
    ("dirichlet", "interior"): 1.0,
    ("neumann", "cell"): 0.0,
    ("neumann", "vertex"): 0.0,
}


def harmonic_mean(a: Tensor, b: Tensor) -> Tensor:
    """``2ab/(a+b)``: two materials in series; exact for a jump at the face of two cells."""
    return 2 * a * b / (a + b)


def arithmetic_mean(a: Tensor, b: Tensor) -> Tensor:
    """``(a+b)/2``: second order for smooth coefficients, first order or worse at jumps."""
    return (a + b) / 2


class EllipticScheme(ABC):
    """Turns ``-div(a grad u) = f`` on a grid into a conductance network; fields come without channel."""

    domain: Domain

    @abstractmethod
    def system(
        self, coefficient: Tensor, source: Tensor, boundary: BoundaryValues | None
    ) -> tuple[ConductanceNetwork, Tensor]:
        """The network and its load, from fields ``(batch, *shape)`` and Dirichlet values (``None`` for zero)."""

    @abstractmethod
    def extend(self, u: Tensor, boundary: BoundaryValues | None, shape: tuple[int, ...]) -> Tensor:
        """The field ``(batch, *shape)`` from the network's solution."""


@dataclass(frozen=True)
class FiniteVolumes(EllipticScheme):
    """Balance of fluxes over the control volume of each node; fluxes by two-point differences.

    Each node owns the part of the box that is nearer to it than to other nodes: a whole cell, or half a cell (per
    axis) at a Neumann wall with vertex nodes. With Dirichlet data on vertex nodes the outermost nodes are known, all
    others unknown. Fluxes to a Dirichlet wall take the coefficient of the outermost unknown.

    Args:
        domain: a box without periodic axes, with at least one Dirichlet axis.
        mean: coefficient on the face between two nodes.

    Raises:
        DomainError: the domain has a periodic axis or no Dirichlet axis.
    """

    domain: Domain
    mean: FaceMean = harmonic_mean

    def __post_init__(self) -> None:
        kinds = [axis.boundary for axis in self.domain.axes]
        if isinstance(self.domain, SphereDomain) or "periodic" in kinds or "dirichlet" not in kinds:
            raise DomainError(
                f"expected a box with walls, at least one axis of them dirichlet, got {self.domain!r}; "
                "use Domain.box((1.0, 1.0), boundary='dirichlet', nodes='cell')"
            )

    def unknowns(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """The nodes where the solution is not given, as slices of the space axes."""
        known_ends = [axis.boundary == "dirichlet" and axis.nodes == "vertex" for axis in self.domain.axes]
        if any(known and n < 3 for known, n in zip(known_ends, shape, strict=True)):
            raise DomainError(
                f"expected at least 3 vertex nodes along a Dirichlet axis, got {shape}; with 2 nothing is unknown"
            )
        return tuple(slice(1, n - 1) if known else slice(0, n) for known, n in zip(known_ends, shape, strict=True))

    def volumes(self, field: Tensor) -> Tensor:
        """Measure of the control volumes of the unknowns, of the field's dtype and device, shape of the unknowns."""
        shape = tuple(field.shape[1:])
        product = torch.ones((), dtype=torch.float64, device=field.device)
        for axis in range(self.domain.num_dims):
            product = product.unsqueeze(-1) * self._widths(axis, shape, field)
        return product.to(field.dtype)

    def system(
        self, coefficient: Tensor, source: Tensor, boundary: BoundaryValues | None
    ) -> tuple[ConductanceNetwork, Tensor]:
        """The network, and source times volume plus what the boundary values bring."""
        shape = tuple(source.shape[1:])
        network = self.network(coefficient)
        load = source[(slice(None), *self.unknowns(shape))] * self.volumes(source)
        if boundary is not None:
            load = load - sum_of_fluxes(self.wall_fluxes(network, boundary, shape))
        return network, load

    def network(self, coefficient: Tensor) -> ConductanceNetwork:
        """Conductances between the unknowns, and from them to the walls."""
        shape = tuple(coefficient.shape[1:])
        spacing = self.domain.spacing(shape)
        inside = self.unknowns(shape)
        conductances = []
        for axis in range(self.domain.num_dims):
            across = tuple(slice(None) if other == axis else inside[other] for other in range(len(shape)))
            face = self._faces(coefficient[(slice(None), *across)], axis) / spacing[axis]
            for other in range(self.domain.num_dims):
                if other != axis:
                    widths = self._widths(other, shape, coefficient).to(face.dtype)
                    face = face * widths.view(-1, *[1] * (self.domain.num_dims - 1 - other))
            conductances.append(face)
        return ConductanceNetwork(conductances, spacing)

    def wall_fluxes(
        self, network: ConductanceNetwork, boundary: BoundaryValues, shape: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        """Fluxes through the faces that boundary values cause while the unknowns are 0; minus their sum is a load."""
        result = []
        for axis, conductance in enumerate(network.conductances):
            dim, last = 1 + axis, conductance.shape[1 + axis] - 1
            lower = conductance.narrow(dim, 0, 1) * boundary(self._wall_points(axis, False, shape, conductance))
            upper = conductance.narrow(dim, last, 1) * boundary(self._wall_points(axis, True, shape, conductance))
            between = torch.zeros_like(conductance.narrow(dim, 1, last - 1)).expand(
                *lower.shape[:1], *[-1] * len(shape)
            )
            result.append(torch.cat([lower, between, -upper], dim))
        return tuple(result)

    def extend(self, u: Tensor, boundary: BoundaryValues | None, shape: tuple[int, ...]) -> Tensor:
        """The solution at all nodes, from its unknowns and the boundary values; the identity where all are unknown."""
        if tuple(u.shape[1:]) == shape:
            return u
        margins = [
            margin for n, m in zip(reversed(shape), reversed(u.shape), strict=False) for margin in 2 * [(n - m) // 2]
        ]
        full = torch.nn.functional.pad(u, margins)
        if boundary is None:
            return full
        inside = torch.nn.functional.pad(torch.ones_like(u[:1], dtype=torch.bool), margins)
        return torch.where(inside, full, boundary(self.domain.coordinates(shape, dtype=u.dtype, device=u.device)))

    def _faces(self, a: Tensor, axis: int) -> Tensor:
        """Coefficient at all faces that touch an unknown, walls included, in units that make ``/ spacing`` right."""
        dim = 1 + axis
        n = a.shape[dim]
        inner = self.mean(a.narrow(dim, 0, n - 1), a.narrow(dim, 1, n - 1))
        wall = _WALLS.get((self.domain.axes[axis].boundary, self.domain.axes[axis].nodes))
        if wall is None:
            return inner
        return torch.cat([wall * a.narrow(dim, 0, 1), inner, wall * a.narrow(dim, n - 1, 1)], dim)

    def _widths(self, axis: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Width of the control volumes of the unknowns along one axis, float64."""
        widths = torch.full(
            (shape[axis],), self.domain.axes[axis].spacing(shape[axis]), dtype=torch.float64, device=like.device
        )
        if self.domain.axes[axis].nodes == "vertex":
            widths[0] /= 2
            widths[-1] /= 2
        return widths[self.unknowns(shape)[axis]]

    def _wall_points(self, axis: int, is_upper: bool, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Coordinates ``(num_dims, *wall)`` of the wall points opposite to the outermost unknowns."""
        lines = [
            self.domain.axis_coordinates(other, n, device=like.device)[inside]
            for other, (n, inside) in enumerate(zip(shape, self.unknowns(shape), strict=True))
        ]
        end = self.domain.axes[axis].stop if is_upper else self.domain.axes[axis].start
        lines[axis] = lines[axis].new_tensor([end])
        return torch.stack(torch.meshgrid(*lines, indexing="ij")).to(like.dtype)
