"""Residuals that act point by point on a few linear terms of the unknown: a PDE over basis functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jvp

from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.optimization.problem import LeastSquaresProblem

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
        return _times(self.matrix, w) - self.target

    def take(self, index: Tensor) -> LinearRows:
        """Rows of some items."""
        return LinearRows(self.matrix.index_select(0, index), self.target.index_select(0, index))

    def detach(self) -> LinearRows:
        """Cut off from the graph."""
        return LinearRows(self.matrix.detach(), self.target.detach())


class PointwiseProblem(LeastSquaresProblem):
    """Least squares with ``r(w) = [ a phi(tau_1, ..., tau_K);  C w - d;  sqrt(ridge) w ]``,  ``tau_k = B_k w + c_k``.

    ``phi`` acts on each point alone, so that its derivatives ``phi_k``, ``phi_kl`` are a few tangents, and gradient,
    Gauss-Newton matrix and exact Hessian are a few batched products with them:

        J = sum_k diag(a phi_k) B_k
        g = sum_k B_k^T f_k + C^T (C w - d) + ridge w,      f = 1/2 |a phi|^2 at each point
        H = sum_kl B_k^T diag(f_kl) B_l + C^T C + ridge I

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

    Cost: ``K + 1`` products of ``num_points * num_unknowns^2`` per Hessian, one per Gauss-Newton matrix; memory is that
    of ``terms`` and of one ``B_k``.

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

    def values(self, w: Tensor) -> Tensor:
        """``tau``, shape ``(batch, K, num_points)``."""
        tau = _times(self.terms.flatten(1, 2), w).unflatten(1, self.terms.shape[1:3])
        return tau if self.offsets is None else tau + self.offsets

    def equations(self, *arguments: Tensor) -> Tensor:
        """``a phi`` of term values and coefficients, with the equations stacked first: ``(E, batch, num_points)``."""
        value = self.function(*arguments)
        stacked = torch.stack(value) if isinstance(value, tuple) else value.unsqueeze(0)
        return stacked if self.weights is None else stacked * self.weights

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
        cost, gradient = 0.5 * residual.square().sum(-1), _times(jacobian.mT, residual)
        matrix = jacobian.mT @ jacobian
        if self.linear is not None:
            rest = self.linear.residual(w)
            cost = cost + 0.5 * rest.square().sum(-1)
            gradient = gradient + _times(self.linear.matrix.mT, rest)
        if self.ridge is not None:
            cost = cost + 0.5 * self.ridge * w.square().sum(-1)
            gradient = gradient + self.ridge.unsqueeze(-1) * w
        return cost, gradient, self._with_linear_part(matrix)

    def gradient(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`."""
        gradient = _times(self.terms.flatten(1, 2).mT, self._slopes(self.values(w)).flatten(1, 2))
        if self.linear is not None:
            gradient = gradient + _times(self.linear.matrix.mT, self.linear.residual(w))
        return gradient if self.ridge is None else gradient + self.ridge.unsqueeze(-1) * w

    def hessian(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`."""
        tau, num_terms = self.values(w), self.terms.shape[1]
        # Row l holds f_kl for all k: forward over reverse mode, one tangent per term.
        curvatures = [jvp(self._slopes, (tau,), (_tangent(tau, k),))[1] for k in range(num_terms)]
        matrix: Tensor | float = 0.0
        for k in range(num_terms):
            product: Tensor | float = 0.0
            for curvature, term in zip(curvatures, self.terms.unbind(1), strict=True):
                product = product + curvature[:, k].unsqueeze(-1) * term
            matrix = matrix + self.terms[:, k].mT @ product
        return self._with_linear_part(torch.as_tensor(matrix))

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

    def _slopes(self, tau: Tensor) -> Tensor:
        """``f_k``: derivatives of ``f = 1/2 |a phi|^2`` with respect to each term, shape like ``tau``."""

        def half_square(values: Tensor) -> Tensor:
            return 0.5 * self.equations(*values.unbind(1), *self.coefficients).square().sum()

        return grad(half_square)(tau)

    def _equation_rows(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the equations alone, and their Jacobian."""
        tau = self.values(w)

        def equations(values: Tensor) -> Tensor:
            return self.equations(*values.unbind(1), *self.coefficients)

        residual = equations(tau)
        slopes = [jvp(equations, (tau,), (_tangent(tau, k),))[1].unsqueeze(-1) for k in range(tau.shape[1])]
        jacobian = slopes[0] * self.terms[:, 0]
        for slope, term in zip(slopes[1:], self.terms.unbind(1)[1:], strict=True):
            jacobian.addcmul_(slope, term)
        return residual.transpose(0, 1).flatten(1), jacobian.transpose(0, 1).flatten(1, 2)

    def _with_linear_part(self, matrix: Tensor) -> Tensor:
        """Add ``C^T C + ridge I``."""
        if self.linear is not None:
            matrix = matrix + self.linear.matrix.mT @ self.linear.matrix
        if self.ridge is not None:
            matrix = matrix + torch.diag_embed(self.ridge.unsqueeze(-1).expand(matrix.shape[:2]))
        return matrix


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Batched product of matrix and vector."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _tangent(tau: Tensor, k: int) -> Tensor:
    """One in term ``k`` at every point, zero in the others."""
    one = torch.zeros(tau.shape[1], dtype=tau.dtype, device=tau.device)
    one[k] = 1.0
    return one.view(1, -1, 1).expand_as(tau)


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
