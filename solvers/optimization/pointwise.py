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
        self.function = function
        self.terms = terms.contiguous()
        self.offsets, self.weights, self.linear, self.ridge = offsets, weights, linear, ridge
        self.coefficients = tuple(c.expand(terms.shape[0], terms.shape[2]) for c in coefficients)

    def images(self, w: Tensor) -> Tensor:
        """``B_k w``, shape ``(batch, K, num_points)``."""
        return times(self.terms.flatten(1, 2), w).unflatten(1, self.terms.shape[1:3])

    def values(self, w: Tensor) -> Tensor:
        """``tau``, shape ``(batch, K, num_points)``."""
        return self.images(w) if self.offsets is None else self.images(w) + self.offsets

    def equations(self, tau: Tensor) -> Tensor:
        """``a phi`` of term values, with the equations stacked first: ``(E, batch, num_points)``."""
        value = self.function(*tau.unbind(1), *self.coefficients)
        stacked = torch.stack(value) if isinstance(value, tuple) else value.unsqueeze(0)
        return stacked if self.weights is None else stacked * self.weights

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
        residual, jacobian = self._equation_rows(w)
        cost, gradient = 0.5 * residual.square().sum(-1), times(jacobian.mT, residual)
        matrix = jacobian.mT @ jacobian
        if self.linear is not None:
            rest = self.linear.residual(w)
            cost = cost + 0.5 * rest.square().sum(-1)
            gradient = gradient + times(self.linear.matrix.mT, rest)
        if self.ridge is not None:
            cost = cost + 0.5 * self.ridge * w.square().sum(-1)
            gradient = gradient + self.ridge.unsqueeze(-1) * w
        return cost, gradient, self._with_linear_part(matrix)

    def gradient(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`."""
        gradient = times(self.terms.flatten(1, 2).mT, self.slopes(self.values(w)).flatten(1, 2))
        if self.linear is not None:
            gradient = gradient + times(self.linear.matrix.mT, self.linear.residual(w))
        return gradient if self.ridge is None else gradient + self.ridge.unsqueeze(-1) * w

    def second_order(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`; terms that enter linearly, or do not meet, cost nothing.

        Which ones do is read from the data, for which a GPU is waited for once: less than products with zeros cost.
        """
        tau = self.values(w)
        residual = self.equations(tau)

        def contracted(values: Tensor) -> Tensor:
            return (residual * self.equations(values)).sum()

        _, pull_back, *_ = vjp(grad(contracted), tau)
        count = tau.shape[1]
        curvatures = torch.stack([pull_back(_unit(k, count, tau))[0] for k in range(count)])
        matrix = torch.zeros(len(w), w.shape[1], w.shape[1], dtype=w.dtype, device=w.device)
        # NaN is not zero: items that overflow stay visible.
        present = (curvatures != 0).any(dim=-1).any(dim=1).tolist()
        for k in range(count):
            for j in range(k, count):
                if present[k][j]:
                    product = self.terms[:, k].mT @ (curvatures[k, :, j].unsqueeze(-1) * self.terms[:, j])
                    matrix = matrix + (product if j == k else product + product.mT)
        return matrix

    def hessian_product(self, w: Tensor, direction: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`; linear in the number of unknowns."""
        _, pull_back, *_ = vjp(self.slopes, self.values(w))
        (change,) = pull_back(self.images(direction))
        product = times(self.terms.flatten(1, 2).mT, change.flatten(1, 2))
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
        problem.ridge = ridge
        return problem

    def _map(self, one: Callable[[Tensor], Tensor], rows: Callable[[LinearRows], LinearRows]) -> PointwiseProblem:
        return PointwiseProblem(
            self.function,
            one(self.terms),
            offsets=None if self.offsets is None else one(self.offsets),
            coefficients=[one(c) for c in self.coefficients],
            weights=None if self.weights is None else one(self.weights),
            linear=None if self.linear is None else rows(self.linear),
            ridge=None if self.ridge is None else one(self.ridge),
        )

    def _equation_rows(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the equations alone, and their Jacobian."""
        residual, pull_back, *_ = vjp(self.equations, self.values(w))
        jacobians = []
        for e in range(len(residual)):
            (slopes,) = pull_back(_unit(e, len(residual), residual.transpose(0, 1)).transpose(0, 1))
            jacobian = slopes[:, 0].unsqueeze(-1) * self.terms[:, 0]
            for slope, term in zip(slopes.unbind(1)[1:], self.terms.unbind(1)[1:], strict=True):
                jacobian.addcmul_(slope.unsqueeze(-1), term)
            jacobians.append(jacobian)
        joined = jacobians[0] if len(jacobians) == 1 else torch.cat(jacobians, dim=1)
        return residual.transpose(0, 1).flatten(1), joined

    def _with_linear_part(self, matrix: Tensor) -> Tensor:
        """Add ``C^T C + ridge I``."""
        if self.linear is not None:
            matrix = matrix + self.linear.matrix.mT @ self.linear.matrix
        if self.ridge is not None:
            matrix = matrix + torch.diag_embed(self.ridge.unsqueeze(-1).expand(matrix.shape[:2]))
        return matrix


def _unit(k: int, count: int, like: Tensor) -> Tensor:
    """One in entry ``k`` of axis 1 everywhere, zero in the others."""
    one = torch.zeros(count, dtype=like.dtype, device=like.device)
    one[k] = 1.0
    return one.view(1, -1, 1).expand_as(like)


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
