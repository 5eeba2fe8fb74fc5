"""An equation: a residual, and what each of its arguments means."""

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuralop_kit.constraints.derivatives import Derivative
from neuralop_kit.constraints.terms import LinearOperator, Terms, default_axes
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.optimization.pointwise import PointwiseResidual


class Equation:
    """Sorts the arguments of a residual into terms of the unknown field, coordinates and coefficients, by their names.

        def residual(u, u_t, u_x, u_xx, x, nu): return u_t + u * u_x - nu * u_xx - sin(x)

    The first argument names the field: it and those that begin like it are terms, as are the names of operators;
    letters of axes are coordinates; all others are coefficients, given at every call.

    Args:
        residual: pointwise, signed, never squared; returns a tensor, or a tuple for a system.
        domain: where the field lives.
        arguments: names of the residual's arguments, by default those it was written with.
        axes, derivatives, operators: see :class:`Terms`.

    Raises:
        ArgumentError: the residual has no named arguments, or none of them is a term.
    """

    def __init__(
        self,
        residual: PointwiseResidual,
        domain: Domain,
        *,
        arguments: Sequence[str] | None = None,
        axes: Sequence[str] | None = None,
        derivatives: Sequence[Derivative] | None = None,
        operators: Mapping[str, LinearOperator] | None = None,
    ) -> None:
        self.residual = residual
        self.arguments = _names(residual) if arguments is None else tuple(arguments)
        if not self.arguments:
            raise ArgumentError("expected a residual with at least one argument, got none; write residual(u, u_x, ...)")
        field = self.arguments[0].partition("_")[0]
        self.axes = default_axes(domain, self.arguments) if axes is None else tuple(axes)
        is_term = [
            name == field or name.startswith(field + "_") or name in (operators or {}) for name in self.arguments
        ]
        names = [name for name, chosen in zip(self.arguments, is_term, strict=True) if chosen]
        self.terms = Terms(domain, names, axes=self.axes, derivatives=derivatives, operators=operators)
        others = [name for name, chosen in zip(self.arguments, is_term, strict=True) if not chosen]
        self.coordinate_names = tuple(name for name in others if name in self.axes)
        self.coefficient_names = tuple(name for name in others if name not in self.axes)
        order = [*self.terms.names, *self.coordinate_names, *self.coefficient_names]
        self._positions = [order.index(name) for name in self.arguments]

    def __call__(self, *values: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The residual of term values, coordinates and coefficients, in this order."""
        return self.residual(*[values[i] for i in self._positions])

    def data(
        self,
        like: Tensor,
        coefficients: Mapping[str, Tensor | float] | None,
        *,
        coordinates: Tensor | None = None,
    ) -> list[Tensor]:
        """Coordinates and coefficients at all points of a field ``like``, each ``(batch or 1, *space)``.

        A coefficient is a number, one number per item ``(batch,)``, or a field ``(batch, 1, *space)``. Coordinates,
        ``(num_dims, *space)``, are by default those of the domain's grid.
        """
        given = dict(coefficients or {})
        if set(given) != set(self.coefficient_names):
            raise ArgumentError(
                f"expected coefficients {list(self.coefficient_names)}, got {sorted(given)}; "
                "every argument of the residual that is no term and no coordinate needs a value"
            )
        if coordinates is None:
            domain, space = self.terms.domain, tuple(like.shape[2:])
            coordinates = domain.coordinates(space, dtype=like.dtype, device=like.device)
        lines = [coordinates[self.axes.index(name)].unsqueeze(0) for name in self.coordinate_names]
        return lines + [_at_points(name, given[name], like) for name in self.coefficient_names]


def _names(residual: PointwiseResidual) -> tuple[str, ...]:
    """Names of positional arguments."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(residual).parameters.values()
    if any(p.kind not in kinds for p in parameters):
        raise ArgumentError(
            f"expected a residual whose arguments all have names, got {[str(p) for p in parameters]}; "
            "pass arguments=('u', 'u_x', ...)"
        )
    return tuple(p.name for p in parameters)


def _at_points(name: str, value: Tensor | float, like: Tensor) -> Tensor:
    """A coefficient as ``(batch or 1, *space)``."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    batch, space = like.shape[0], like.shape[2:]
    if tensor.ndim == 0 or tuple(tensor.shape) == (batch,):
        return tensor.reshape(-1, *[1] * len(space)).expand(-1, *space)
    if tuple(tensor.shape) == (batch, 1, *space):
        return tensor.squeeze(1)
    raise ShapeError(
        f"expected coefficient {name!r} to be a number, or of shape ({batch},) or {(batch, 1, *space)}, "
        f"got {tuple(tensor.shape)}; reshape it"
    )
