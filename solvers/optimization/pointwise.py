"""Residuals that act point by point on a few linear terms of the unknown: a PDE over basis functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vjp

from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.optimization.problem import LeastSquaresProblem
from neuralop_kit.solvers.optimization.products import times

PointwiseResidual = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class LinearRows:
    """Rows ``C w - d``: initial values, boundary values, jumps between neighbours; weights are multiplied in.

    Args:
        matrix: ``C``, shape ``(batch, num_rows, num_unknowns)``.
        target: ``d``, shape ``(batch, num_rows)``.
    """

    matrix: Tensor
    target: Tensor

    @staticmethod
    def join(*blocks: LinearRows) -> LinearRows:
        """All rows below each other."""
        return LinearRows(torch.cat([b.matrix for b in blocks], 1), torch.cat([b.target for b in blocks], 1))

    def residual(self, w: Tensor) -> Tensor:
        """``C w - d``."""
        return times(self.matrix, w) - self.target

    def take(self, index: Tensor) -> LinearRows:
        """Rows of some items."""
        return LinearRows(self.matrix.index_select(0, index), self.target.index_select(0, index))

    def detach(self) -> LinearRows:
        """Cut off from the graph."""
        return LinearRows(self.matrix.detach(), self.target.detach())


class PointwiseProblem(LeastSquaresProblem):
    """Least squares with ``r(w) = [ a phi(tau_1, ..., tau_K);  C w - d;  sqrt(ridge) w ]``,  ``tau_k = B_k w + c_k``.

    ``phi`` acts on each point alone, so that its derivatives ``phi_k``, ``phi_kl`` are a few backward passes at the
    points, and gradient, Gauss-Newton matrix and exact Hessian are a few batched products with them:

        J = sum_k diag(a phi_k) B_k
        g = sum_k B_k^T f_k + C^T (C w - d) + ridge w,      f = 1/2 |a phi|^2 at each point
        H = J^T J + C^T C + ridge I + sum_kl B_k^T diag(a^2 phi . phi_kl) B_l

    Args:
        function: ``phi``; takes the ``K`` term values, each ``(batch, num_points)``, then the coefficients, and returns
            a tensor like them, or a tuple of several equations. Signed, never squared. It must be finite where
            ``weights`` are zero, too: fill up uneven items with copies of a point they have.
        terms: ``B``, shape ``(batch, K, num_points, num_unknowns)``.
        offsets: ``c``, shape ``(batch, K, num_points)``, or None for zero.
        coefficients: further arguments of ``phi``, each broadcastable to ``(batch, num_points)``.
        weights: ``a``, shape ``(batch, num_points)``, zero for points that are only filling, or None for one.
        linear: further rows.
        ridge: shape ``(batch,)``, non-negative; it is added to ``J^T J`` as it is, not squared.

    Cost: one product of ``num_points * num_unknowns^2`` per Gauss-Newton matrix, and one more in the Hessian for every
    pair of terms with ``phi_kl`` not zero; memory is that of ``terms`` and of one ``B_k``.

    Raises:
        ShapeError: the shapes do not belong together.

    >>> problem = PointwiseProblem(lambda u: u**2 - 2, torch.ones(1, 1, 1, 1, dtype=torch.float64))
    >>> problem.gradient(torch.ones(1, 1, dtype=torch.float64))  # r = -1, J = 2
    tensor([[-2.]], dtype=torch.float64)
    """

    def __init__(
        self,
        function: PointwiseResidual,
        terms: Tensor,
        *,
        offsets: Tensor | None = None,
        coefficients: Sequence[Tensor] = (),
        weights: Tensor | None = None,
        linear: LinearRows | None = None,
        ridge: Tensor | None = None,
    ) -> None:
        _check(terms, offsets, weights, linear)
        self.function, self.terms = function, terms
        # Unknowns before terms and points: a vector times all terms is one product, and what multiplies a term point by
        # point runs along contiguous memory.
        self._columns = terms.permute(0, 3, 1, 2).contiguous()
        self.offsets, self.weights, self.linear, self.ridge = offsets, weights, linear, ridge
        self.coefficients = tuple(c.expand(terms.shape[0], terms.shape[2]) for c in coefficients)
        self._kept: Tensor | None = None

    def images(self, w: Tensor) -> Tensor:
        """``B_k w``, shape ``(batch, K, num_points)``."""
        return times(self._columns.flatten(2).mT, w).unflatten(1, self._columns.shape[2:])

    def values(self, w: Tensor) -> Tensor:
        """``tau``, shape ``(batch, K, num_points)``."""
        return self.images(w) if self.offsets is None else self.images(w) + self.offsets

    def equations(self, tau: Tensor) -> Tensor:
        """``a phi`` of term values, with the equations stacked first: ``(E, batch, num_points)``."""
        return self._at(*tau.unbind(1))

    def slopes(self, tau: Tensor) -> Tensor:
        """``f_k``: derivatives of ``f = 1/2 |a phi|^2`` with respect to each term, shape like ``tau``."""
        return grad(lambda values: 0.5 * self.equations(values).square().sum())(tau)

    def rows(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`LeastSquaresProblem`."""
        residual, jacobian = self._equation_rows(w)
        residuals, jacobians = [residual], [jacobian]
        if self.linear is not None:
            residuals.append(self.linear.residual(w))
            jacobians.append(self.linear.matrix)
        if self.ridge is not None:
            root = self.ridge.sqrt().unsqueeze(-1).expand_as(w)
            residuals.append(root * w)
            jacobians.append(torch.diag_embed(root))
        return torch.cat(residuals, dim=1), torch.cat(jacobians, dim=1)

    def normal_equations(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`LeastSquaresProblem`."""
        residual, pull_back, *_ = vjp(self._at, *self.values(w).unbind(1))
        return self._squared(w, residual, [pull_back(unit) for unit in _units(residual)])

    def newton_equations(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See :class:`LeastSquaresProblem`; residual and slopes serve both parts of the Hessian."""
        residual, slopes, curvatures = self._derivatives(w)
        cost, gradient, square = self._squared(w, residual, slopes)
        return cost, gradient, square, square + self._contracted(curvatures)

    def gradient(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`."""
        gradient = times(self._columns.flatten(2), self.slopes(self.values(w)).flatten(1, 2))
        if self.linear is not None:
            gradient = gradient + times(self.linear.matrix.mT, self.linear.residual(w))
        return gradient if self.ridge is None else gradient + self.ridge.unsqueeze(-1) * w

    def second_order(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`; terms that enter linearly, or do not meet, cost nothing.

        Which ones do is read from the data, for which a GPU is waited for once: less than products with zeros cost.
        """
        return self._contracted(self._derivatives(w)[2])

    def hessian_product(self, w: Tensor, direction: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`; linear in the number of unknowns."""
        _, pull_back, *_ = vjp(self.slopes, self.values(w))
        (change,) = pull_back(self.images(direction))
        product = times(self._columns.flatten(2), change.flatten(1, 2))
        if self.linear is not None:
            product = product + times(self.linear.matrix.mT, times(self.linear.matrix, direction))
        return product if self.ridge is None else product + self.ridge.unsqueeze(-1) * direction

    def take(self, index: Tensor) -> PointwiseProblem:
        """See :class:`LeastSquaresProblem`."""
        return self._map(lambda t: t.index_select(0, index), lambda rows: rows.take(index))

    def detach(self) -> PointwiseProblem:
        """See :class:`LeastSquaresProblem`."""
        return self._map(Tensor.detach, LinearRows.detach)

    def with_ridge(self, ridge: Tensor) -> PointwiseProblem:
        """The same problem with another ridge."""
        problem = self._map(lambda t: t, lambda rows: rows)
        problem.ridge, problem._kept = ridge, None
        return problem

    def _map(self, one: Callable[[Tensor], Tensor], rows: Callable[[LinearRows], LinearRows]) -> PointwiseProblem:
        problem = PointwiseProblem(
            self.function,
            one(self._columns).permute(0, 2, 3, 1),
            offsets=None if self.offsets is None else one(self.offsets),
            coefficients=[one(c) for c in self.coefficients],
            weights=None if self.weights is None else one(self.weights),
            linear=None if self.linear is None else rows(self.linear),
            ridge=None if self.ridge is None else one(self.ridge),
        )
        problem._kept = None if self._kept is None else one(self._kept)
        return problem

    def _at(self, *tau: Tensor) -> Tensor:
        """:meth:`equations` of the terms one by one."""
        value = self.function(*tau, *self.coefficients)
        stacked = torch.stack(value) if isinstance(value, tuple) else value.unsqueeze(0)
        return stacked if self.weights is None else stacked * self.weights

    def _equation_rows(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the equations alone, and their Jacobian."""
        residual, pull_back, *_ = vjp(self._at, *self.values(w).unbind(1))
        jacobians = [self._transposed_jacobian(pull_back(unit)) for unit in _units(residual)]
        return residual.transpose(0, 1).flatten(1), torch.cat(jacobians, dim=2).mT

    def _transposed_jacobian(self, slopes: Sequence[Tensor]) -> Tensor:
        """``sum_k B_k^T diag(phi_k)`` of one equation, shape ``(batch, num_unknowns, num_points)``."""
        first, *others = self._columns.unbind(2)
        jacobian = slopes[0].unsqueeze(1) * first
        for slope, term in zip(slopes[1:], others, strict=True):
            jacobian.addcmul_(slope.unsqueeze(1), term)
        return jacobian

    def _squared(
        self, w: Tensor, residual: Tensor, slopes: Sequence[Sequence[Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cost, gradient and ``J^T J`` of everything, from residual and slopes of the equations."""
        cost = 0.5 * residual.square().sum(dim=(0, 2))
        gradient, matrix = torch.zeros_like(w), self._linear_square(w)
        for value, each in zip(residual, slopes, strict=True):
            jacobian = self._transposed_jacobian(each)
            gradient = gradient + times(jacobian, value)
            matrix = torch.baddbmm(matrix, jacobian, jacobian.mT)
        if self.linear is not None:
            rest = self.linear.residual(w)
            cost = cost + 0.5 * rest.square().sum(-1)
            gradient = gradient + times(self.linear.matrix.mT, rest)
        if self.ridge is not None:
            cost = cost + 0.5 * self.ridge * w.square().sum(-1)
            gradient = gradient + self.ridge.unsqueeze(-1) * w
        return cost, gradient, matrix

    def _derivatives(self, w: Tensor) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...], list[tuple[Tensor, ...]]]:
        """``a phi``, its slopes by equation and term, and ``a^2 phi . phi_kl`` by term and term."""

        def slopes_of(*tau: Tensor) -> tuple[tuple[Tensor, ...], ...]:
            residual, pull_back, *_ = vjp(self._at, *tau)
            return tuple(pull_back(unit) for unit in _units(residual))

        tau = self.values(w).unbind(1)
        residual = self._at(*tau)
        slopes, pull_back, *_ = vjp(slopes_of, *tau)
        zero, count = torch.zeros_like(residual[0]), len(tau)
        curvatures = [
            pull_back(tuple(tuple(r if j == k else zero for j in range(count)) for r in residual)) for k in range(count)
        ]
        return residual, slopes, curvatures

    def _contracted(self, curvatures: Sequence[Sequence[Tensor]]) -> Tensor:
        """``sum_kl B_k^T diag(c_kl) B_l`` over the pairs with ``c_kl`` not zero."""
        terms, count = self._columns.unbind(2), len(curvatures)
        matrix = terms[0].new_zeros(len(terms[0]), terms[0].shape[1], terms[0].shape[1])
        pairs = [(k, j) for k in range(count) for j in range(k, count)]
        # NaN is not zero: items that overflow stay visible.
        present = torch.stack([(curvatures[k][j] != 0).any() for k, j in pairs]).tolist()
        for (k, j), is_present in zip(pairs, present, strict=True):
            if is_present:
                product = terms[k] @ (curvatures[k][j].unsqueeze(1) * terms[j]).mT
                matrix = matrix + (product if j == k else product + product.mT)
        return matrix

    def _linear_square(self, w: Tensor) -> Tensor:
        """``C^T C + ridge I``, kept where no graph could be freed under it: it is the same for all ``w``."""
        if self._kept is not None:
            return self._kept
        if self.linear is None:
            square = w.new_zeros(*w.shape, w.shape[1])
        else:
            square = self.linear.matrix.mT @ self.linear.matrix
        if self.ridge is not None:
            square = square + torch.diag_embed(self.ridge.unsqueeze(-1).expand_as(w))
        if not square.requires_grad:
            self._kept = square
        return square


def _units(residual: Tensor) -> list[Tensor]:
    """For every equation, stacked first, one in its place and zero in the others."""
    return [
        torch.zeros_like(residual).index_fill_(0, torch.tensor(e, device=residual.device), 1.0)
        for e in range(len(residual))
    ]


def _check(terms: Tensor, offsets: Tensor | None, weights: Tensor | None, linear: LinearRows | None) -> None:
    if terms.ndim != 4:
        raise ShapeError(
            f"expected terms of shape (batch, num_terms, num_points, num_unknowns), got {tuple(terms.shape)}; "
            "stack the terms along axis 1"
        )
    batch, num_terms, num_points, num_unknowns = terms.shape
    expected = {
        "offsets": (offsets, (batch, num_terms, num_points)),
        "weights": (weights, (batch, num_points)),
        "linear rows": (None if linear is None else linear.matrix[:, :0], (batch, 0, num_unknowns)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ShapeError(
                f"expected {name} of shape {shape} beside terms {tuple(terms.shape)}, got {tuple(tensor.shape)}; "
                "every item needs its own"
            )
