"""Differentiable solution of conductance networks: one adjoint solve, whatever the solver did inside."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuralop_kit.solvers.pde.linear_solvers import LinearSolver
from neuralop_kit.solvers.pde.network import ConductanceNetwork, sum_of_fluxes
from neuralop_kit.solvers.status import SolveInfo, Status


def solve_network(network: ConductanceNetwork, rhs: Tensor, *, solver: LinearSolver) -> tuple[Tensor, SolveInfo]:
    """``u`` with ``A u = b``, differentiable in ``b`` and in the conductances, to any order.

    With ``A w = du`` (the same matrix, it is symmetric) the gradients are ``w`` for ``b`` and
    ``-(w_i - w_j)(u_i - u_j)`` for the conductance between nodes i and j. Forward mode is there as well.

    Items whose load is not finite, or whose network the solver is not made for (not finite; for conjugate gradients
    also not positive), are replaced by a harmless problem, flagged ``INVALID_INPUT``, and come back as NaN; their
    neighbours see nothing of it. Gradients of items whose adjoint solve fails are NaN.
    """
    valid = solver.can_solve(network) & rhs.isfinite().flatten(1).all(dim=1)
    conductances = [torch.where(_column(valid, c), c, 1.0) for c in network.conductances]
    load = torch.where(_column(valid, rhs), rhs, 0.0)
    u, status, iterations, residual_norm = _ImplicitSolve.apply(solver, network.spacing, load, *conductances)
    u = torch.where(_column(valid, u), u, torch.nan)
    return u, SolveInfo(
        torch.where(valid, status, int(Status.INVALID_INPUT)),
        torch.where(valid, iterations, 0),
        torch.where(valid, residual_norm, torch.nan),
    )


class _ImplicitSolve(torch.autograd.Function):
    """(solver, spacing, rhs, *conductances) -> u, status, iterations, residual norm."""

    @staticmethod
    def forward(solver: LinearSolver, spacing: Sequence[float], rhs: Tensor, *conductances: Tensor) -> Any:
        """Solve."""
        u, info = solver.solve(ConductanceNetwork(conductances, spacing), rhs)
        return u, info.status, info.iterations, info.residual_norm

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the solution and the matrix."""
        ctx.solver, ctx.spacing, _, *conductances = inputs
        ctx.save_for_backward(output[0], *conductances)
        ctx.save_for_forward(output[0], *conductances)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad_u: Tensor, *_: Any) -> Any:
        """One adjoint solve; itself differentiable, as it goes through the same function."""
        u, *conductances = ctx.saved_tensors
        adjoint = _solve_or_nan(ctx.solver, ctx.spacing, grad_u, conductances)
        network = ConductanceNetwork(conductances, ctx.spacing)
        pairs = zip(network.differences(adjoint), network.differences(u), strict=True)
        return None, None, adjoint, *[-jump_w * jump_u for jump_w, jump_u in pairs]

    @staticmethod
    def vmap(vmap_info: Any, in_dims: Any, solver: LinearSolver, spacing: Sequence[float], *tensors: Tensor) -> Any:
        """A further batch axis joins the batch: all systems are solved at once."""
        extra = vmap_info.batch_size
        joined = [
            (tensor.expand(extra, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
            for tensor, dim in zip(tensors, in_dims[2:], strict=True)
        ]
        outputs = _ImplicitSolve.apply(solver, spacing, *joined)
        return tuple(output.unflatten(0, (extra, -1)) for output in outputs), (0, 0, 0, 0)

    @staticmethod
    def jvp(ctx: Any, _solver: None, _spacing: None, rhs_t: Tensor | None, *conductances_t: Tensor | None) -> Any:
        """``A du = db - dA u``."""
        u, *conductances = ctx.saved_tensors
        network = ConductanceNetwork(conductances, ctx.spacing)
        load = torch.zeros_like(u) if rhs_t is None else rhs_t
        jumps = network.differences(u)
        changes = [
            torch.zeros_like(jump) if c_t is None else -c_t * jump
            for c_t, jump in zip(conductances_t, jumps, strict=True)
        ]
        tangent = _solve_or_nan(ctx.solver, ctx.spacing, load - sum_of_fluxes(changes), conductances)
        return tangent, None, None, None


def _solve_or_nan(solver: LinearSolver, spacing: Sequence[float], rhs: Tensor, conductances: list[Tensor]) -> Tensor:
    """The solution where it converged, NaN elsewhere."""
    u, status, *_ = _ImplicitSolve.apply(solver, spacing, rhs, *conductances)
    return torch.where(_column(status == Status.CONVERGED, u), u, torch.nan)


def _column(mask: Tensor, like: Tensor) -> Tensor:
    """One flag per item, shaped to broadcast against ``like``."""
    return mask.view(-1, *[1] * (like.ndim - 1))
