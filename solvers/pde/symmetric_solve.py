"""Differentiable solution with symmetric matrices whose factors are kept: the adjoint solve costs no factorization."""

from typing import Any, Protocol

import torch
from torch import Tensor

from neuralop_kit.solvers.pde.nine_point import NinePointMatrix, neighbours


class Factors(Protocol):
    """What a factorization can do."""

    def solve(self, rhs: Tensor) -> Tensor:
        """``A^-1 rhs``."""


class SymmetricSolve(torch.autograd.Function):
    """(factors, entries, rhs) -> u with ``A u = rhs`` and ``A = A^T`` (not Hermitian where complex), to any order.

    One step of iterative refinement follows the elimination. With ``A^H w = du`` the gradients are ``w`` for ``rhs``
    and ``-w_i conj(u_j)`` for the entry that couples i to j.
    """

    @staticmethod
    def forward(factors: Factors, entries: Tensor, rhs: Tensor) -> Tensor:
        """Solve and refine."""
        u = factors.solve(rhs)
        return u + factors.solve(rhs - NinePointMatrix(entries).apply(u))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the solution and the matrix."""
        ctx.factors, entries, _ = inputs
        ctx.save_for_backward(entries, output)
        ctx.save_for_forward(entries, output)

    @staticmethod
    def backward(ctx: Any, grad_u: Tensor) -> Any:
        """One adjoint solve, itself differentiable."""
        entries, u = ctx.saved_tensors
        w = SymmetricSolve.apply(ctx.factors, entries, grad_u.conj().resolve_conj()).conj()
        return None, -w.unsqueeze(1) * neighbours(u).conj(), w

    @staticmethod
    def jvp(ctx: Any, _factors: None, entries_t: Tensor | None, rhs_t: Tensor | None) -> Any:
        """``A du = d rhs - dA u``."""
        entries, u = ctx.saved_tensors
        load = torch.zeros_like(u) if rhs_t is None else rhs_t
        if entries_t is not None:
            load = load - NinePointMatrix(entries_t).apply(u)
        return SymmetricSolve.apply(ctx.factors, entries, load)
