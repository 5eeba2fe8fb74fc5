"""Domain: where a function lives. Extents, boundaries, node placement, quadrature; no resolution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import DomainError
from neuralop_kit.solvers.nodes import PLACEMENTS, Device, NodePlacement

if TYPE_CHECKING:
    from neuralop_kit.solvers.sphere import SphereDomain

# Which placements make sense at which boundary; the first one is the default.
BOUNDARIES: dict[str, tuple[str, ...]] = {
    "periodic": ("left", "cell"),
    "dirichlet": ("vertex", "interior", "cell"),
    "neumann": ("vertex", "cell"),
}


@dataclass(frozen=True)
class Axis:
    """One axis of a box: an interval, what happens at its ends, and where its points sit.

    Args:
        start, stop: ends of the interval, finite, ``start < stop``; in the length unit of the problem.
        boundary: ``"periodic"``, ``"dirichlet"`` or ``"neumann"``.
        nodes: ``"left"``, ``"vertex"``, ``"interior"`` or ``"cell"``; see :mod:`neuralop_kit.solvers.nodes`.

    Raises:
        DomainError: the interval is empty or not finite, or the nodes do not go with the boundary.
    """

    start: float
    stop: float
    boundary: str
    nodes: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", float(self.start))
        object.__setattr__(self, "stop", float(self.stop))
        if not (math.isfinite(self.start) and math.isfinite(self.stop) and self.start < self.stop):
            raise DomainError(
                f"expected finite ends with start < stop, got [{self.start}, {self.stop}]; swap or correct them"
            )
        if self.boundary not in BOUNDARIES:
            raise DomainError(
                f"expected a boundary among {sorted(BOUNDARIES)}, got {self.boundary!r}; take one of these"
            )
        if self.nodes not in BOUNDARIES[self.boundary]:
            raise DomainError(
                f"expected nodes among {list(BOUNDARIES[self.boundary])} on a {self.boundary} axis, "
                f"got {self.nodes!r}; take one of these"
            )

    @property
    def length(self) -> float:
        """``stop - start``."""
        return self.stop - self.start

    @property
    def placement(self) -> NodePlacement:
        """The rule that places the points."""
        return PLACEMENTS[self.nodes]

    @property
    def is_periodic(self) -> bool:
        """Whether the two ends are the same point."""
        return self.boundary == "periodic"

    def spacing(self, num_points: int) -> float:
        """Distance of neighbouring points when the axis carries ``num_points``."""
        return self.placement.spacing(self.length, num_points)


class Domain:
    """A box in one or more dimensions on which functions live; it holds no resolution.

    Point ``i`` of an axis with ``N`` points sits at ``start + (i + offset) * h``:

        nodes       points                         h          offset   goes with
        left        right end left out             L/N        0        periodic
        vertex      both ends are points           L/(N-1)    0        dirichlet, neumann
        interior    neither end is a point         L/(N+1)    1        dirichlet
        cell        centres of equal cells         L/N        1/2      all

    Args:
        axes: one :class:`Axis` per space dimension, in the order of the field's space axes.

    Domains are immutable, compare by value, are hashable, and survive :meth:`to_json` / :meth:`from_json`.

    >>> domain = Domain.box((2.0, 1.0), boundary="neumann", nodes="cell")
    >>> domain.spacing((64, 32))
    (0.03125, 0.03125)
    >>> round(domain.weights((64, 32)).sum().item(), 6)
    2.0
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        if not axes:
            raise DomainError("expected at least one axis, got none; use Domain.periodic or Domain.box")
        self.axes = tuple(axes)

    @classmethod
    def periodic(
        cls, lengths: Sequence[float], *, origin: Sequence[float] | None = None, nodes: str = "left"
    ) -> "Domain":
        """A torus with the given side lengths.

        >>> Domain.periodic((1.0, 1.0)).num_dims
        2
        """
        return cls.box(lengths, boundary="periodic", nodes=nodes, origin=origin)

    @classmethod
    def box(
        cls,
        lengths: Sequence[float],
        *,
        boundary: str | Sequence[str] = "dirichlet",
        nodes: str | Sequence[str] | None = None,
        origin: Sequence[float] | None = None,
    ) -> "Domain":
        """A box with the given side lengths.

        Args:
            lengths: one positive length per axis.
            boundary: one name for all axes, or one per axis.
            nodes: one name for all axes, or one per axis; by default ``left`` where periodic and ``vertex`` elsewhere.
            origin: lower corner, by default the origin of coordinates.

        >>> channel = Domain.box((4.0, 1.0), boundary=("periodic", "dirichlet"))
        >>> [axis.nodes for axis in channel.axes]
        ['left', 'vertex']
        """
        if isinstance(lengths, int | float):
            raise DomainError(f"expected one length per axis, got {lengths}; write ({lengths},)")
        count = len(lengths)
        starts = _per_axis("origin", [0.0] * count if origin is None else origin, count)
        boundaries = _per_axis("boundary", boundary, count)
        if nodes is None:
            placements = [BOUNDARIES.get(name, ("vertex",))[0] for name in boundaries]
        else:
            placements = _per_axis("nodes", nodes, count)
        return cls(
            [
                Axis(start, start + length, kind, placement)
                for start, length, kind, placement in zip(starts, lengths, boundaries, placements, strict=True)
            ]
        )

    @staticmethod
    def sphere(*, radius: float = 1.0, grid: str = "equiangular") -> "SphereDomain":
        """The surface of a sphere in colatitude and longitude; see :class:`SphereDomain`."""
        from neuralop_kit.solvers.sphere import SphereDomain

        return SphereDomain(radius=radius, grid=grid)

    @property
    def num_dims(self) -> int:
        """Number of space axes."""
        return len(self.axes)

    @property
    def lengths(self) -> tuple[float, ...]:
        """Side lengths."""
        return tuple(axis.length for axis in self.axes)

    @property
    def measure(self) -> float:
        """Length, area or volume."""
        return math.prod(self.lengths)

    @property
    def is_periodic(self) -> bool:
        """Whether every axis is periodic."""
        return all(axis.is_periodic for axis in self.axes)

    def spacing(self, shape: Sequence[int]) -> tuple[float, ...]:
        """Distance of neighbouring points along each axis."""
        self.check_shape(shape)
        return tuple(axis.spacing(n) for axis, n in zip(self.axes, shape, strict=True))

    def axis_coordinates(self, index: int, num_points: int, *, device: Device = None) -> Tensor:
        """Coordinates of the points along one axis, float64, shape ``(num_points,)``."""
        axis = self.axes[index]
        return axis.start + axis.placement.positions(axis.length, num_points, device=device)

    def axis_weights(self, index: int, num_points: int, *, device: Device = None) -> Tensor:
        """Quadrature weights along one axis, float64, shape ``(num_points,)``; they sum to the length."""
        axis = self.axes[index]
        return axis.placement.weights(axis.length, num_points, device=device)

    def coordinates(self, shape: Sequence[int], *, dtype: torch.dtype | None = None, device: Device = None) -> Tensor:
        """Coordinates of all points as a field without batch: shape ``(num_dims, *shape)``."""
        self.check_shape(shape)
        lines = [self.axis_coordinates(i, n, device=device) for i, n in enumerate(shape)]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"))
        return grid.to(dtype or torch.get_default_dtype())

    def weights(self, shape: Sequence[int], *, dtype: torch.dtype | None = None, device: Device = None) -> Tensor:
        """Quadrature weights of all points: shape ``shape``, sum equal to :attr:`measure`.

        Trapezoidal rule on ``left`` and ``vertex`` nodes, midpoint rule on ``cell`` nodes, open trapezoidal rule on
        ``interior`` nodes: the error is O(h^2) for smooth functions, and spectrally small for smooth periodic ones.
        """
        self.check_shape(shape)
        product = torch.ones((), dtype=torch.float64, device=device)
        for i, n in enumerate(shape):
            product = product.unsqueeze(-1) * self.axis_weights(i, n, device=device)
        return product.to(dtype or torch.get_default_dtype())

    def refine(self, shape: Sequence[int], factor: int = 2) -> tuple[int, ...]:
        """Shape of the grid whose spacing is ``factor`` times smaller.

        >>> Domain.box((1.0,), boundary="dirichlet", nodes="vertex").refine((33,))
        (65,)
        """
        self.check_shape(shape)
        return tuple(axis.placement.refine(n, factor) for axis, n in zip(self.axes, shape, strict=True))

    def coarsen(self, shape: Sequence[int], factor: int = 2) -> tuple[int, ...]:
        """Shape of the grid whose spacing is ``factor`` times larger; a :class:`DomainError` names sizes that work."""
        self.check_shape(shape)
        return tuple(axis.placement.coarsen(n, factor) for axis, n in zip(self.axes, shape, strict=True))

    def common_nodes(self, coarse: Sequence[int], fine: Sequence[int]) -> tuple[slice, ...]:
        """Slices that pick, from a field on the fine grid, its values at the points of the coarse one.

        Cell centres are nested under odd factors only; a :class:`DomainError` says which sizes are.

        >>> Domain.periodic((1.0,)).common_nodes((4,), (8,))
        (slice(0, 7, 2),)
        """
        self.check_shape(coarse)
        self.check_shape(fine)
        return tuple(axis.placement.common_nodes(n, m) for axis, n, m in zip(self.axes, coarse, fine, strict=True))

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raise a :class:`DomainError` unless ``shape`` has one valid size per axis."""
        if isinstance(shape, int):
            raise DomainError(f"expected one size per space axis, got {shape}; write ({shape},)")
        if len(shape) != self.num_dims:
            raise DomainError(
                f"expected one size per space axis ({self.num_dims}), got {tuple(shape)}; "
                "pass the space axes only, without batch and channel"
            )
        for axis, n in zip(self.axes, shape, strict=True):
            axis.placement.check(n)

    def to_json(self) -> dict[str, Any]:
        """A description of plain numbers and strings."""
        return {
            "type": "box",
            "axes": [{"start": a.start, "stop": a.stop, "boundary": a.boundary, "nodes": a.nodes} for a in self.axes],
        }

    @staticmethod
    def from_json(description: dict[str, Any]) -> "Domain":
        """Inverse of :meth:`to_json`, of this class and of :class:`SphereDomain`.

        >>> domain = Domain.periodic((1.0, 2.0))
        >>> Domain.from_json(domain.to_json()) == domain
        True
        """
        try:
            if description["type"] == "sphere":
                return Domain.sphere(radius=description["radius"], grid=description["grid"])
            if description["type"] == "box":
                return Domain([Axis(a["start"], a["stop"], a["boundary"], a["nodes"]) for a in description["axes"]])
        except (KeyError, TypeError, ValueError) as error:
            raise DomainError(f"expected a description from Domain.to_json, got {description!r}; {error}") from error
        raise DomainError(f"expected type 'box' or 'sphere', got {description['type']!r}; use Domain.to_json")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Domain) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.axes)

    def __repr__(self) -> str:
        sides = [f"[{a.start:g}, {a.stop:g}] {a.boundary}/{a.nodes}" for a in self.axes]
        return f"Domain({' x '.join(sides)})"


def _per_axis(name: str, value: Any, count: int) -> list[Any]:
    """``value`` once per axis, whether it was given once for all or one by one."""
    values = [value] * count if isinstance(value, str) else list(value)
    if len(values) != count:
        raise DomainError(f"expected {name} for {count} axes, got {len(values)}; give one each or one for all")
    return values
