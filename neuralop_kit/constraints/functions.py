"""Basis functions given as functions of the coordinates, with derivatives by automatic differentiation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import jvp

from neuralop_kit.constraints.conditions import Condition
from neuralop_kit.constraints.terms import Terms
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

# Coordinates (num_points, num_dims) to values (batch, num_points, num_basis), point by point.
CoordinateFunction = Callable[[Tensor], Tensor]


def differentiated(function: CoordinateFunction, orders: Sequence[int]) -> CoordinateFunction:
    """The partial derivative of a function, of the given order along each axis, in forward mode; exact.

    >>> slope = differentiated(lambda x: x[None] ** 3, (2,))
    >>> slope(torch.tensor([[1.0], [2.0]]))
    tensor([[[ 6.],
             [12.]]])
    """
    for axis, order in enumerate(orders):
        for _ in range(order):
            function = _along(function, axis)
    return function


def terms_at(terms: Terms, function: CoordinateFunction, points: Tensor) -> Tensor:
    """All terms of all functions at points ``(num_points, num_dims)``: ``(batch, num_terms, num_points, num_basis)``.

    Raises:
        ArgumentError: a term is an operator, which needs the function on a grid. ShapeError: values have another shape.
    """
    if terms.operators:
        raise ArgumentError(f"expected derivatives only, got the operators {sorted(terms.operators)}; use a grid")
    values = [differentiated(function, terms.orders[name])(points) for name in terms.names]
    if values[0].ndim != 3 or values[0].shape[1] != len(points):
        raise ShapeError(
            f"expected functions with values of shape (batch, {len(points)}, num_basis), got {tuple(values[0].shape)}; "
            "a batch of one still needs its axis"
        )
    return torch.stack(values, dim=1)


def trace_at(condition: Condition, function: CoordinateFunction, points: Tensor) -> Tensor:
    """What a condition is about, at points on its wall: ``(batch, num_points, num_basis)``."""
    num_dims = points.shape[1]
    parts = []
    for order, coefficient in enumerate(condition.coefficients):
        if coefficient:
            orders = [order if axis == condition.axis else 0 for axis in range(num_dims)]
            parts.append(coefficient * differentiated(function, orders)(points))
    return torch.stack(parts).sum(dim=0)


def _along(function: CoordinateFunction, axis: int) -> CoordinateFunction:
    """The derivative along one axis; points do not see each other, so that one tangent serves all of them."""

    def slope(points: Tensor) -> Tensor:
        direction = torch.zeros_like(points)
        direction[:, axis] = 1.0
        return jvp(function, (points,), (direction,))[1]

    return slope
