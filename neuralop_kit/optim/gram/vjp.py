"""Jacobians by backward passes, for any graph."""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.optim.base import real_view
from neuralop_kit.optim.gram.residual import finite_jacobian


def real_size(parameter: Tensor) -> int:
    """Number of reals in a parameter."""
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def flat_vjp(rows: Tensor, parameters: Sequence[Tensor], cotangents: Tensor) -> Tensor:
    """``J^T w``, float64, all parameters flattened one after the other."""
    gradients = torch.autograd.grad(rows, parameters, cotangents, retain_graph=True, allow_unused=True)
    found = zip(gradients, parameters, strict=True)
    return torch.cat([real_view(torch.zeros_like(p) if g is None else g).flatten() for g, p in found]).double()


def dense_jacobian(rows: Tensor, parameters: Sequence[Tensor], *, memory_budget: int) -> Tensor:
    """The Jacobian ``(rows, parameters)`` of a vector with a graph; batches of passes within the budget.

    Raises:
        NonFiniteError: a derivative is not finite.
    """
    num_columns = sum(map(real_size, parameters))
    by_rows = len(rows) <= 2 * num_columns
    # A batched pass also holds activations for each of its members: some tens of numbers per row.
    batch = max(memory_budget // (8 * (num_columns + 64 * len(rows))), 1)
    return finite_jacobian((_by_rows if by_rows else _by_columns)(rows, parameters, batch))


def _by_rows(rows: Tensor, parameters: Sequence[Tensor], batch: int) -> Tensor:
    """One backward pass per row."""
    eye = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    slabs = []
    for unit in eye.split(batch):
        gradients = torch.autograd.grad(
            rows, parameters, unit, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
        slabs.append(flat_rows(gradients, parameters, len(unit)))
    return torch.cat(slabs)


def _by_columns(rows: Tensor, parameters: Sequence[Tensor], batch: int) -> Tensor:
    """One backward pass per parameter, through the backward pass."""
    w = torch.zeros_like(rows, requires_grad=True)
    gradients = torch.autograd.grad(rows, parameters, w, create_graph=True, allow_unused=True)
    flat = flat_rows([None if g is None else g.unsqueeze(0) for g in gradients], parameters, 1)[0]
    eye = torch.eye(len(flat), dtype=flat.dtype, device=flat.device)
    slabs = [
        torch.autograd.grad(flat, w, unit, retain_graph=True, is_grads_batched=True)[0] for unit in eye.split(batch)
    ]
    return torch.cat(slabs).T


def flat_rows(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], count: int) -> Tensor:
    """Gradients ``(count, *shape)`` as rows ``(count, columns)``; zeros where there is none."""
    rows = []
    for gradient, parameter in zip(gradients, parameters, strict=True):
        if gradient is None:
            gradient = parameter.new_zeros(1, *parameter.shape).expand(count, *parameter.shape)
        rows.append(real_view(gradient).reshape(count, -1))
    return torch.cat(rows, dim=1)
