"""What experts have found, and the field made of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import comb, prod

import torch
from torch import Tensor

from neuralop_kit.constraints.conditions import WallRows
from neuralop_kit.constraints.equation import Equation
from neuralop_kit.constraints.interface import Interface
from neuralop_kit.constraints.partition import Assignment, Interfaces
from neuralop_kit.solvers.optimization.levenberg_marquardt import LeastSquaresInfo
from neuralop_kit.solvers.status import SolveInfo


@dataclass(frozen=True)
class ExpertsInfo(LeastSquaresInfo):
    """Report of all experts; attributes as in :class:`LeastSquaresInfo`, but of shape ``(batch, experts)``.

    Args:
        jump: largest difference of two neighbouring experts at a point between them, ``(batch,)``, in the unit of the
            field: how far the experts are from one function. Zero for one expert.
    """

    jump: Tensor

    def raise_if_failed(self) -> None:
        """See :class:`SolveInfo`; experts of an item are counted one after the other."""
        SolveInfo(self.status.flatten(), self.iterations.flatten(), self.residual_norm.flatten()).raise_if_failed()


@dataclass(frozen=True)
class ExpertSolution:
    """Coefficients of all experts, and the field they make: ``u = offset + sum_k chi_k sum_n w_kn b_n``.

    Args:
        coefficients: ``w``, ``(batch, experts, num_basis)``.
        info: what became of the solves.
        equation, assignment, interface: of the layer.
        basis: ``b``, ``(batch, num_basis, *space)``.
        terms: of the basis, ``(batch, num_terms, num_basis, *space)``.
        offset: ``(batch, 1, *space)``, or None.
        data: coordinates and coefficients of the equation, each ``(batch or 1, *space)``.
        walls: rows of the conditions.
    """

    coefficients: Tensor
    info: ExpertsInfo
    equation: Equation
    assignment: Assignment
    interface: Interface
    basis: Tensor
    terms: Tensor
    offset: Tensor | None
    data: Sequence[Tensor]
    walls: Sequence[WallRows]

    def field(self) -> Tensor:
        """The joined field, ``(batch, 1, *space)``."""
        u = self._joined(self.basis, (0,) * (self.basis.ndim - 2)).unsqueeze(1)
        return u if self.offset is None else u + self.offset

    def term_values(self) -> Tensor:
        """The terms of the joined field, ``(batch, num_terms, *space)``: piecewise, or by the product rule.

        Where windows are smooth, ``d^a u = sum_(c <= a) binomial(a, c) sum_k d^c chi_k d^(a-c) u_k`` with derivatives
        of windows in closed form, and operators that are no derivatives act on the joined field. Where the field jumps,
        each expert's own terms are joined; an operator that is not local then sees that expert's field everywhere.
        """
        values = [self._term(i, name) for i, name in enumerate(self.equation.terms.names)]
        stacked = torch.stack(values, dim=1)
        return stacked if self.offset is None else stacked + self.equation.terms(self.offset).squeeze(2)

    def residual(self) -> Tensor:
        """The equation's residual at all points, ``(batch, num_equations, *space)``: what a loss is made of."""
        value = self.equation(*self.term_values().unbind(1), *self.data)
        return torch.stack(value, dim=1) if isinstance(value, tuple) else value.unsqueeze(1)

    def wall_residuals(self) -> list[Tensor]:
        """By how much every condition is missed, without its weight, ``(batch, *wall)``: the rest of a loss."""
        u = self._joined(self.basis, (0,) * (self.basis.ndim - 2)).unsqueeze(1)
        domain = self.assignment.domain
        return [rows.condition.trace(u, domain).squeeze(1) - rows.target for rows in self.walls]

    def _term(self, number: int, name: str) -> Tensor:
        """One term of the joined field, ``(batch, *space)``, without the offset."""
        terms = self.equation.terms
        none = (0,) * (self.basis.ndim - 2)
        if not self.interface.is_smooth:
            return self._joined(self.terms[:, number], none)
        if name not in terms.orders:
            return terms.operators[name](self._joined(self.basis, none).unsqueeze(1)).squeeze(1)
        total = self._joined(self.terms[:, number], none)
        for lower, factor in _below(terms.orders[name]):
            rest = tuple(a - c for a, c in zip(terms.orders[name], lower, strict=True))
            total = total + factor * self._joined(terms.derivative(self.basis, rest), lower)
        return total

    def _joined(self, functions: Tensor, orders: Sequence[int]) -> Tensor:
        """``sum_k d^orders chi_k sum_n w_kn f_n``: ``(batch, num_basis, *space) -> (batch, *space)``."""
        windows = self.interface.windows(self.assignment, functions.shape[2:], orders, functions)
        return (windows * torch.einsum("bkn,bn...->bk...", self.coefficients, functions)).sum(dim=1)


def largest_jump(coefficients: Tensor, basis: Tensor, meets: Interfaces) -> Tensor:
    """``max |b . (w_k - w_l)|`` over the interfaces, ``(batch,)``."""
    if len(meets.points) == 0:
        return basis.new_zeros(len(basis))
    values = basis.flatten(2).index_select(-1, meets.points).mT
    difference = coefficients.index_select(1, meets.first) - coefficients.index_select(1, meets.second)
    return (values * difference).sum(dim=-1).abs().amax(dim=1)


def _below(orders: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Multi-indices between zero and ``orders``, zero left out, with their binomial coefficients."""
    for lower in product(*(range(a + 1) for a in orders)):
        if any(lower):
            yield lower, prod(comb(a, c) for a, c in zip(orders, lower, strict=True))
