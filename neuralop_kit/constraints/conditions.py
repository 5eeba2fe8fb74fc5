"""Conditions on the ends of an axis: initial values, boundary values, fluxes, as weighted rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralop_kit.constraints.derivatives import on_wall
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.optimization.pointwise import LinearRows


@dataclass(frozen=True)
class Condition:
    """On one end of an axis:  ``weight (sum_j coefficients[j] d^j u / dx^j - target) = 0``; see the two leaves.

    Rows are averaged over the end, so that ``weight`` means the same at every resolution. A hard condition needs a
    lifting instead, since rows compete with the equation.

    Args:
        name: under which targets are given.
        axis: number of the axis, from 0.
        coefficients: of value, first derivative, and so on; ``(1.0,)`` fixes the value, ``(0.0, 1.0)`` the slope along
            the axis, which at the start points inward.
        weight: positive, relative to the equation's residual. Good values: 1 to 20 for initial values.
        target: where none is given at the call.
    """

    name: str
    axis: int
    coefficients: Sequence[float] = (1.0,)
    weight: float = 1.0
    target: float = 0.0

    def __post_init__(self) -> None:
        if not self.weight > 0 or not any(self.coefficients):
            raise ArgumentError(
                f"expected a positive weight and a coefficient that is not zero, got {self.weight} and "
                f"{self.coefficients} in condition {self.name!r}; correct them"
            )

    @property
    def at_stop(self) -> bool:
        """Which end."""
        raise NotImplementedError

    def trace(self, field: Tensor, domain: Domain) -> Tensor:
        """``sum_j coefficients[j] d^j u / dx^j`` on the end: ``(..., *space) -> (..., *space without the axis)``."""
        parts = [
            c * on_wall(field, domain, self.axis, at_stop=self.at_stop, order=j)
            for j, c in enumerate(self.coefficients)
            if c
        ]
        return torch.stack(parts).sum(dim=0)

    def rows(self, basis: Tensor, domain: Domain, *, target: Tensor | None, offset: Tensor | None) -> WallRows:
        """Rows for the coefficients of basis functions ``(batch, num_basis, *space)``.

        Args:
            basis: the functions.
            domain: where they live.
            target: a number per item ``(batch,)`` or a field on the end ``(batch, *space without the axis)``.
            offset: ``(batch, 1, *space)``, a part of the field that is not made of basis functions.
        """
        rows = self.with_target(self.trace(basis, domain).movedim(1, -1), target)
        return rows if offset is None else replace(rows, target=rows.target - self.trace(offset, domain).squeeze(1))

    def with_target(self, matrix: Tensor, target: Tensor | None) -> WallRows:
        """Rows from their matrix ``(batch, *wall, num_basis)`` and a target that broadcasts, see :meth:`rows`."""
        wall = tuple(matrix.shape[:-1])
        if target is None:
            return WallRows(self, matrix, matrix.new_full(wall, self.target))
        if tuple(target.shape) not in ((wall[0],), wall):
            raise ShapeError(
                f"expected a target of shape ({wall[0]},) or {wall} for condition {self.name!r}, "
                f"got {tuple(target.shape)}; leave out channel and axis"
            )
        return WallRows(self, matrix, target.reshape(*target.shape, *[1] * (len(wall) - target.ndim)).expand(wall))


class AtStart(Condition):
    """A :class:`Condition` where the axis begins, such as the initial value on a time axis.

    Args:
        name, axis, coefficients, weight, target: see :class:`Condition`.

    >>> AtStart("initial", 0, weight=20.0).at_stop
    False
    """

    @property
    def at_stop(self) -> bool:
        """No."""
        return False


class AtStop(Condition):
    """A :class:`Condition` where the axis ends.

    Args:
        name, axis, coefficients, weight, target: see :class:`Condition`.

    >>> AtStop("outflow", 1, (1.0, 5e-4)).at_stop  # u + 5e-4 u_x = 0
    True
    """

    @property
    def at_stop(self) -> bool:
        """Yes."""
        return True


@dataclass(frozen=True)
class WallRows:
    """Rows of one condition with the shape of the wall kept, so that they can be cut along its axes.

    Args:
        condition: where they come from.
        matrix: ``(batch, *wall, num_basis)``, without weight.
        target: ``(batch, *wall)``.
    """

    condition: Condition
    matrix: Tensor
    target: Tensor

    def flat(self) -> LinearRows:
        """As rows of a least-squares problem, weighted, averaged over the wall."""
        # Not by -1, which an empty batch leaves open.
        target, matrix = self.target.unsqueeze(-1).flatten(1), self.matrix.unsqueeze(1).flatten(1, -2)
        scale = self.condition.weight / target.shape[1] ** 0.5
        return LinearRows(scale * matrix, scale * target)
