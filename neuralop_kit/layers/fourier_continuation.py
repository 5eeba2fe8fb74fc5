"""FourierContinuation: make a smooth function on a box periodic without losing its smoothness."""

from dataclasses import dataclass

import numpy as np

from neuralop_kit.layers.padding import Matrix, Padding
from neuralop_kit.registry import register_component
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.nodes import NodePlacement


@register_component("fourier_continuation")
@dataclass(frozen=True)
class FourierContinuation(Padding):
    """Continue by polynomials fitted next to the walls.

        p = argmin over polynomials with p(wall) = u(wall) of  integral (1 - d / width)^2 (p - u)^2 dx

    where ``d`` is the distance from the wall, up to ``width = fraction * length``. This is the FC-Gram continuation of
    Bruno and Lyon (2010) with one change: they fit the last few *grid points*, a stretch that shrinks as the grid is
    refined, and the continuation with it. A stretch of fixed length has a limit, so that the same operator acts at
    every resolution. The continued function is continuous; its slopes match up to the error of the fit. Truncated
    Fourier series of smooth functions are some hundred times more accurate than with mirror images.

    The price is that noise at a wall is amplified. On rough fields, such as the features of a network that sees a
    two-phase coefficient, that is worse than a kink: with ``degree=3`` an FNO of four layers does not train on Darcy
    flow. Use it for smooth fields.

    Args:
        fraction: as in :class:`Padding`; below 0.125 the fade itself needs many modes.
        degree: of the polynomials, 1 to 5. The strip can be larger than the field by a factor of up to 4, 13, 48, 180,
            660 for degrees 1 to 5.

    Order under refinement: 4 for the values at walls that are not nodes, 2 for what is left of the kink.

    Raises:
        ArgumentError: the fraction or the degree is out of range.

    Source: Bruno and Lyon (2010), J. Comput. Phys. 229, section 3.

    >>> from neuralop_kit.solvers.nodes import Vertex
    >>> u = np.linspace(0, 1, 65) ** 2
    >>> (FourierContinuation().on_strip(Vertex(), 65, np.array([0.0, 1.0, 16.0]), 16.0) @ u).round(3)
    array([1.   , 1.031, 0.   ])
    """

    degree: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.degree <= 5:
            raise ArgumentError(f"expected a degree from 1 to 5, got {self.degree}; 2 is a good value")

    def beyond_wall(self, placement: NodePlacement, num_points: int, distance: Matrix) -> Matrix:
        """Rows of the fit, evaluated beyond the wall."""
        nodes = np.arange(num_points) + placement.offset
        # A fit needs more points than coefficients, also on coarse grids.
        width = max(self.fraction * placement.num_intervals(num_points), self.degree + 1.5)
        # Powers 1, 2, ... of d / width: they vanish at the wall, where the value is prescribed.
        powers = np.arange(1, self.degree + 1)
        columns = (nodes[:, None] / width) ** powers
        weighted = columns.T * np.clip(1 - nodes / width, 0, None) ** 2
        coefficients = np.linalg.solve(weighted @ columns, weighted)
        wall = _wall_value(nodes)
        rise = (-distance[:, None] / width) ** powers @ coefficients
        return wall + rise - np.outer(rise.sum(axis=1), wall)


def _wall_value(nodes: Matrix) -> Matrix:
    """Row that takes values to the value at the wall: cubic in the four nearest, exact where the wall is a node."""
    row = np.zeros(len(nodes))
    nearest = nodes[:4]
    row[: len(nearest)] = np.linalg.solve(np.vander(nearest, increasing=True).T, np.eye(len(nearest))[0])
    return row
