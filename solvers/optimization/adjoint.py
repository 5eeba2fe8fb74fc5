"""The closed-form adjoint of a pointwise least-squares problem: exact derivatives with nothing but the data stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.func import grad

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.optimization.hessian import HessianFactor
from neuralop_kit.solvers.optimization.implicit import Differentiation
from neuralop_kit.solvers.optimization.pointwise import LinearRows, PointwiseProblem
from neuralop_kit.solvers.optimization.problem import LeastSquaresProblem


class ClosedFormAdjoint(Differentiation):
    """Reverse mode by one solve with the exact Hessian and two outer products per term; saves memory.

        H s = w_bar,   sigma_k = B_k s,   y = sum_l phi_l sigma_l,   q_k = phi_k y + e sum_l phi_kl sigma_l
        B_bar_k = -(q_k w^T + e phi_k s^T),   c_bar_k = -q_k,   C_bar = -((C s) w^T + (C w - d) s^T),   d_bar = C s

    Only the data of the problem, ``w`` and the factor of ``H`` are kept for the backward pass, where
    :class:`Reattachment` keeps several arrays of the size of the points. The backward pass may be differentiated once
    more. No forward mode, no ``torch.func``; for :class:`PointwiseProblem` alone; and tensors that the residual closes
    over would receive nothing, so that one which requires a gradient is refused.

    Raises:
        ArgumentError: the problem is of another kind, or closes over a tensor that requires a gradient.
    """

    def attach(self, problem: LeastSquaresProblem, w: Tensor, factor: HessianFactor) -> Tensor:
        """See :class:`Differentiation`."""
        if not isinstance(problem, PointwiseProblem):
            raise ArgumentError(f"expected a PointwiseProblem, got {type(problem).__name__}; use Reattachment")
        detached = problem.detach()
        if detached.equations(detached.values(w.detach())).requires_grad:
            raise ArgumentError(
                "expected a residual that closes over no tensor with a gradient, got one; "
                "make it a coefficient, or use Reattachment"
            )
        result: Tensor = _Solution.apply(w.detach(), problem.function, factor, *_data(problem))
        return result


class _Solution(torch.autograd.Function):
    """``w`` as a function of the data."""

    @staticmethod
    def forward(w: Tensor, function: Any, factor: HessianFactor, *data: Tensor | None) -> Tensor:
        return w.clone()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, function, factor, *data = inputs
        # The saved output carries this very node, which makes the derivative of the backward pass complete.
        ctx.save_for_backward(output, *data)
        ctx.function, ctx.factor = function, factor  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: Any, w_bar: Tensor) -> tuple[Tensor | None, ...]:
        w, *data = ctx.saved_tensors
        problem = _problem(ctx.function, data)
        s = ctx.factor.solve(w_bar)
        if torch.is_grad_enabled():
            # The factor is a constant; one more step gives s the derivative of H^-1.
            s = s.detach()
            s = s + ctx.factor.solve(w_bar - problem.hessian_product(w, s) - ctx.factor.shifted_by(s))
        return None, None, None, *_pull_back(problem, w, s)


def _pull_back(problem: PointwiseProblem, w: Tensor, s: Tensor) -> list[Tensor | None]:
    """``-d<s, g(w, z)>/dz`` for all data ``z``, in the order of :func:`_data`."""
    sigma = problem.images(s)

    def slope_along(tau: Tensor, weights: Tensor | None, coefficients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The derivative of the cost along ``s``, as a function of what happens at the points; and ``e phi_k``."""
        slopes = PointwiseProblem(problem.function, problem.terms, weights=weights, coefficients=coefficients).slopes(
            tau
        )
        return (slopes * sigma).sum(), slopes

    wanted = (0, 2) if problem.weights is None else (0, 1, 2)
    inputs = (problem.values(w), problem.weights, problem.coefficients)
    (q, *rest), along = grad(slope_along, argnums=wanted, has_aux=True)(*inputs)
    terms = -(q.unsqueeze(-1) * w[:, None, None] + along.unsqueeze(-1) * s[:, None, None])
    matrix = target = None
    if problem.linear is not None:
        image, residual = problem.linear.matrix @ s.unsqueeze(-1), problem.linear.residual(w).unsqueeze(-1)
        matrix, target = -(image * w.unsqueeze(-2) + residual * s.unsqueeze(-2)), image.squeeze(-1)
    return [
        terms,
        None if problem.offsets is None else -q,
        None if problem.weights is None else -rest[0],
        matrix,
        target,
        None if problem.ridge is None else -(s * w).sum(dim=-1),
        *(-c for c in rest[-1]),
    ]


def _data(problem: PointwiseProblem) -> list[Tensor | None]:
    """Everything a problem is made of, but its function."""
    matrix, target = (None, None) if problem.linear is None else (problem.linear.matrix, problem.linear.target)
    return [problem.terms, problem.offsets, problem.weights, matrix, target, problem.ridge, *problem.coefficients]


def _problem(function: Any, data: list[Any]) -> PointwiseProblem:
    """Inverse of :func:`_data`."""
    terms, offsets, weights, matrix, target, ridge, *coefficients = data
    linear = None if matrix is None else LinearRows(matrix, target)
    return PointwiseProblem(
        function, terms, offsets=offsets, coefficients=coefficients, weights=weights, linear=linear, ridge=ridge
    )
