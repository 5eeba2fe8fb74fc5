"""Dirichlet walls that are points: an operator works on the points between them, and its result vanishes there."""

from torch import Tensor
from torch.nn import functional

from neuralop_kit.solvers.domain import Axis, Domain


def _has_wall_points(axis: Axis) -> bool:
    return axis.boundary == "dirichlet" and axis.nodes == "vertex"


def without_wall_points(domain: Domain) -> Domain:
    """The same box with the same spacings, whose grids leave out Dirichlet walls."""
    return Domain(
        [Axis(a.start, a.stop, a.boundary, "interior" if _has_wall_points(a) else a.nodes) for a in domain.axes]
    )


def cut_walls(u: Tensor, domain: Domain) -> Tensor:
    """The values at the points that are kept; a zero function on the walls carries nothing else."""
    for dim, axis in enumerate(domain.axes, start=2):
        if _has_wall_points(axis):
            u = u.narrow(dim, 1, u.shape[dim] - 2)
    return u


def restore_walls(u: Tensor, domain: Domain) -> Tensor:
    """Inverse of :func:`cut_walls` for functions that vanish on the walls."""
    widths = [int(_has_wall_points(axis)) for axis in reversed(domain.axes) for _ in range(2)]
    return functional.pad(u, widths) if any(widths) else u
