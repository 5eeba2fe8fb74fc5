"""Extended: an operator for periodic functions, applied to functions on a box."""

import math
import operator

import numpy as np
import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_field
from neuralop_kit.layers.constants import constant
from neuralop_kit.layers.padding import Matrix, Padding, key_of, padding_of
from neuralop_kit.solvers.domain import Axis, Domain
from neuralop_kit.solvers.nodes import PLACEMENTS


class Extended(nn.Module):
    """Continue a field beyond the walls, apply an operator for periodic fields, cut off the strip.

        v = R A (E u)

    ``A`` acts on the longer domain :func:`longer_domain`, on a grid of the same spacing. Its period is that of the
    domain rounded to a whole number of spacings: exact, and the same for all resolutions, where ``1 + fraction`` times
    the number of intervals is whole (``fraction=0.25`` and a multiple of 4 intervals); else off by up to ``h / 2``,
    which costs an error O(h). :class:`BoundedSpectralConv` does without rounding, and without the extra points.

    Args:
        operator: maps fields on the longer domain to fields on the same grid.
        padding: the continuation ``E``.
        domain: the box where ``u`` lives.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any resolution.

    Raises:
        ShapeError: the field has another number of space axes.

    >>> from neuralop_kit.layers import ReflectionPadding, SpectralConv
    >>> layer = Extended(SpectralConv(2, 3, (8, 8)), ReflectionPadding(0.25), domain=Domain.box((1.0, 1.0)))
    >>> layer(torch.randn(4, 2, 33, 33)).shape
    torch.Size([4, 3, 33, 33])
    """

    def __init__(self, operator: nn.Module, padding: Padding, *, domain: Domain) -> None:
        super().__init__()
        self.operator, self.padding, self.domain = operator, padding, domain
        self._key = key_of(padding)

    def forward(self, u: Tensor) -> Tensor:
        """Extend, apply, restrict."""
        check_field(u, None, self.domain.num_dims)
        return self.operator(self.extend(u))[(..., *(slice(n) for n in u.shape[2:]))]

    def extend(self, u: Tensor) -> Tensor:
        """``E u``: the field on the grid of the longer domain."""
        for index, axis in enumerate(self.domain.axes):
            if not axis.is_periodic:
                dim = index + 2
                num_points = operator.index(u.shape[dim])
                inside = _inside(num_points, axis.nodes, self._key, u.dtype, u.device)
                strip = _strip(num_points, axis.nodes, self._key, u.dtype, u.device)
                behind = torch.tensordot(u, strip, dims=([dim], [1])).movedim(-1, dim)
                weighted = u if self.padding.is_continuous else u * inside.view(-1, *[1] * (u.ndim - 1 - dim))
                u = torch.cat([weighted, behind], dim=dim)
        return u

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.padding}, domain={self.domain}"


def longer_domain(domain: Domain, padding: Padding) -> Domain:
    """The periodic domain that padding makes of a box.

    ``interior`` nodes become ``left`` ones, shifted by one spacing, which no convolution notices.

    >>> from neuralop_kit.layers import ZeroPadding
    >>> longer_domain(Domain.box((1.0,)), ZeroPadding(0.25))
    Domain([0, 1.25] periodic/left)
    """
    longer = []
    for axis in domain.axes:
        stop = axis.stop if axis.is_periodic else axis.start + (1 + padding.fraction) * axis.length
        longer.append(Axis(axis.start, stop, "periodic", "cell" if axis.nodes == "cell" else "left"))
    return Domain(longer)


@constant
def _inside(num_points: int, nodes: str, key: str) -> Matrix:
    """Weights of the nodes of the axis."""
    return padding_of(key).inside(PLACEMENTS[nodes], num_points)


@constant
def _strip(num_points: int, nodes: str, key: str) -> Matrix:
    """Matrix from the nodes of the axis to those of the strip."""
    padding, placement = padding_of(key), PLACEMENTS[nodes]
    intervals = placement.num_intervals(num_points)
    num_strip = max(math.floor((1 + padding.fraction) * intervals + 0.5) - num_points, 0)
    # The first node behind the last one sits one spacing further on; the period ends where the first one returns.
    behind = np.arange(num_strip) + 1 - placement.offset
    return padding.on_strip(placement, num_points, behind, max(num_points + num_strip - intervals, 1))
