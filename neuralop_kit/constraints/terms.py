"""The linear terms of which a residual speaks: ``u_xx`` by name, on a domain, for any number of fields at once."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from neuralop_kit.constraints.derivatives import Derivative, FiniteDifference, SpectralDerivative
from neuralop_kit.constraints.fields import check_field
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError

LinearOperator = Callable[[Tensor], Tensor]


class Terms:
    """Evaluates named linear terms of fields: values, partial derivatives, and whatever linear operator has a name.

    ``u`` is the field, ``u_x`` its first derivative, ``u_tx`` a mixed one; the letters name the axes of the domain.

    Args:
        domain: where the fields live.
        names: of the terms, in the order in which they are stacked. What stands before the underscore is arbitrary.
        axes: one letter per axis of the domain, by default ``t, x, y, z`` if a name has a ``t``, else ``x, y, z``.
        derivatives: how to differentiate along each axis; by default spectral where periodic, else differences of
            order 2.
        operators: linear maps of fields ``(..., *space)`` for names that are no derivatives, such as the velocity that
            belongs to a vorticity.

    Shape: ``(batch, channel, *space) -> (batch, num_terms, channel, *space)``.

    Raises:
        ArgumentError: a name is neither an operator nor a derivative along these axes, or counts do not fit.
        ShapeError: the field has another number of axes.

    >>> domain = Domain.box((1.0, 2.0), boundary=("dirichlet", "periodic"))
    >>> terms = Terms(domain, ("u", "u_t", "u_xx"))
    >>> terms
    Terms(u, u_t, u_xx; axes t, x)
    >>> terms(torch.randn(4, 7, 16, 32)).shape
    torch.Size([4, 3, 7, 16, 32])
    """

    def __init__(
        self,
        domain: Domain,
        names: Sequence[str],
        *,
        axes: Sequence[str] | None = None,
        derivatives: Sequence[Derivative] | None = None,
        operators: Mapping[str, LinearOperator] | None = None,
    ) -> None:
        self.domain, self.names = domain, tuple(names)
        self.operators = dict(operators or {})
        self.axes = default_axes(domain, self.names) if axes is None else tuple(axes)
        if derivatives is None:
            derivatives = [SpectralDerivative() if axis.is_periodic else FiniteDifference() for axis in domain.axes]
        self.derivatives = tuple(derivatives)
        if not len(self.axes) == len(self.derivatives) == domain.num_dims:
            raise ArgumentError(
                f"expected one letter and one derivative for each of {domain.num_dims} axes, got {self.axes} and "
                f"{len(self.derivatives)}; correct them"
            )
        self.orders = {name: self._orders(name) for name in self.names if name not in self.operators}

    def __call__(self, field: Tensor) -> Tensor:
        """All terms of a field, stacked along axis 1."""
        check_field(field, self.domain)
        return torch.stack([self.term(name, field) for name in self.names], dim=1)

    def term(self, name: str, field: Tensor) -> Tensor:
        """One of the terms, of the shape of the field."""
        if name in self.operators:
            return self.operators[name](field)
        return self.derivative(field, self.orders[name])

    def derivative(self, field: Tensor, orders: Sequence[int]) -> Tensor:
        """The partial derivative of the given order along each axis, of the shape of the field."""
        for axis, order in enumerate(orders):
            if order:
                field = self.derivatives[axis](field, self.domain, axis, order=order)
        return field

    def _orders(self, name: str) -> tuple[int, ...]:
        """How often a term is differentiated along each axis."""
        if not is_derivative(name, self.axes):
            raise ArgumentError(
                f"expected terms like u, u_{self.axes[0]}, u_{self.axes[-1] * 2}, got {name!r}; "
                "name an operator for it, or the axes"
            )
        letters = name.partition("_")[2]
        return tuple(letters.count(axis) for axis in self.axes)

    def __repr__(self) -> str:
        return f"Terms({', '.join(self.names)}; axes {', '.join(self.axes)})"


def is_derivative(name: str, axes: Sequence[str]) -> bool:
    """Whether a name is a field's, or a field's with letters of axes behind an underscore.

    >>> [is_derivative(name, ("t", "x")) for name in ("u", "u_xx", "u_y", "nu", "_x")]
    [True, True, False, True, False]
    """
    field, _, letters = name.partition("_")
    return bool(field) and set(letters) <= set(axes)


def default_axes(domain: Domain, names: Sequence[str]) -> tuple[str, ...]:
    """``t, x, y, z`` if a name is ``t`` or has a derivative in it, else ``x, y, z``; as many as there are axes."""
    has_time = any(name == "t" or "t" in name.partition("_")[2] for name in names)
    return tuple(("t", "x", "y", "z") if has_time else ("x", "y", "z"))[: domain.num_dims]
