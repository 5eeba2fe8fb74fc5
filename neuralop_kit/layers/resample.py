"""Resample: the same function on another grid of its domain."""

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_field, check_tensor, with_an_item
from neuralop_kit.layers.interpolation import Cubic, Interpolation, Trigonometric
from neuralop_kit.layers.sphere_transform import SphereTransform, carried_degrees
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.sphere import SphereDomain


class Resample(nn.Module):
    """Move a field to another grid of the same domain, on boxes axis by axis; no learned parameters.

        v(y_i) = (I u)(y_i),     I the interpolation of each axis, y_i the points of the new grid

    By default :class:`Trigonometric` on periodic axes: exact for functions that both grids carry, for every pair of
    sizes. :class:`Cubic` on the others: fourth order up to the walls, without assuming anything about the function
    there. Points are where the domain's node placement puts them, so that nothing shifts by a fraction of a spacing.

    On a sphere ``I`` is the series of spherical harmonics that both grids carry: degrees below the number of Gauss
    latitudes, or below that of equiangular ones less one, and orders below half the number of longitudes. It is exact
    for fields made of these and drops all others, treats the poles like any other point, and commutes with rotations.

    Args:
        domain: a box of one to three dimensions, with any boundaries and node placements, or a sphere.
        interpolation: one rule for all axes, or one each: :class:`Trigonometric`, :class:`CosineSeries`,
            :class:`SineSeries`, :class:`Cubic` or :class:`Linear`. None on a sphere.

    Shape: ``(batch, channel, *space)``, and the sizes of the new grid, to ``(batch, channel, *shape)``.
    Half precision is computed in float32, also under autocast.
    Cost: one dense product per axis, with ``num_new`` operations per value, up to 256 old points; FFTs or gathers on
    longer axes. Axes that get coarser go first. On a sphere, that of a :class:`SphericalConv`.

    Raises:
        DomainError: the domain has more than three axes, a rule does not go with its axis or its sphere, or a grid is
            too small for its nodes.
        ArgumentError: the number of rules is not that of the axes.
        ShapeError: the field has another rank.

    >>> resample = Resample(Domain.box((1.0, 2.0), boundary=("periodic", "dirichlet")))
    >>> resample(torch.randn(2, 3, 16, 17), (24, 33)).shape
    torch.Size([2, 3, 24, 33])
    """

    def __init__(self, domain: Domain, *, interpolation: Interpolation | Sequence[Interpolation] | None = None) -> None:
        super().__init__()
        if domain.num_dims > 3:
            raise DomainError(f"expected a box of one to three dimensions, got {domain}; resample three axes at a time")
        self.domain: Domain = domain
        self.rules: tuple[Interpolation, ...] = ()
        if isinstance(domain, SphereDomain):
            if interpolation is not None:
                raise DomainError(f"expected no rule for the axes of a sphere, got {interpolation}; leave it out")
            return
        if interpolation is None:
            rules: list[Interpolation] = [Trigonometric() if axis.is_periodic else Cubic() for axis in domain.axes]
        elif isinstance(interpolation, Interpolation):
            rules = [interpolation] * domain.num_dims
        else:
            rules = list(interpolation)
        if len(rules) != domain.num_dims:
            raise ArgumentError(f"expected rules for {domain.num_dims} axes, got {len(rules)}; give one for all")
        for rule, axis in zip(rules, domain.axes, strict=True):
            rule.check(axis)
        self.rules = tuple(rules)

    def forward(self, u: Tensor, shape: Sequence[int]) -> Tensor:
        """``u`` on the grid of ``shape``; ``u`` itself where this is its grid already."""
        # Boxes take complex fields as well: networks of complex weights become operators.
        takes_complex = not isinstance(self.domain, SphereDomain)
        check_tensor(u)
        check_field(u.real if u.is_complex() and takes_complex else u, None, self.domain.num_dims)
        old = [operator.index(n) for n in u.shape[2:]]
        new = [operator.index(n) for n in shape]
        self.domain.check_shape(old)
        self.domain.check_shape(new)
        if not len(u):
            return self(with_an_item(u), shape)[:0]
        with torch.autocast(u.device.type, enabled=False):
            v = u.to(torch.promote_types(u.dtype, torch.float32))
            if isinstance(self.domain, SphereDomain) and old != new:
                v = _move_on_sphere(v, self.domain.grid, new)
            # Coarsening first leaves less to do for the other axes.
            for index in sorted(range(len(self.rules)), key=lambda i: new[i] / old[i]):
                if new[index] != old[index]:
                    v = self._move_axis(v, index, new[index])
        return v.to(u.dtype)

    def _move_axis(self, v: Tensor, index: int, num_points: int) -> Tensor:
        """Apply the rule of one axis."""
        before, after = v.shape[: 2 + index], v.shape[3 + index :]
        lines = v.reshape(math.prod(before), v.shape[2 + index], math.prod(after))
        moved = self.rules[index](lines, self.domain.axes[index], num_points)
        return moved.reshape(*before, num_points, *after)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return ", ".join(map(str, (self.domain, *self.rules)))


def _move_on_sphere(u: Tensor, grid: str, shape: Sequence[int]) -> Tensor:
    """By the harmonics that both grids carry."""
    old, new = (operator.index(u.shape[2]), operator.index(u.shape[3])), (shape[0], shape[1])
    kept = min(carried_degrees(grid, old[0]), carried_degrees(grid, new[0]))
    return SphereTransform(grid, new, kept).to_points(SphereTransform(grid, old, kept).to_modes(u))
