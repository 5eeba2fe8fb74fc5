"""Gradients of a vector, all parameters flattened one after the other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.optim.base import real_view


def real_size(parameter: Tensor) -> int:
    """Number of reals in a parameter."""
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def flat_vjp(rows: Tensor, parameters: Sequence[Tensor], cotangents: Tensor) -> Tensor:
    """``J^T w``, float64, all parameters flattened one after the other."""
    gradients = torch.autograd.grad(rows, parameters, cotangents, retain_graph=True, allow_unused=True)
    found = zip(gradients, parameters, strict=True)
    return torch.cat([real_view(torch.zeros_like(p) if g is None else g).flatten() for g, p in found]).double()


def flat_rows(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], count: int) -> Tensor:
    """Gradients ``(count, *shape)`` as rows ``(count, columns)``; zeros where there is none."""
    rows = []
    for gradient, parameter in zip(gradients, parameters, strict=True):
        if gradient is None:
            gradient = parameter.new_zeros(1, *parameter.shape).expand(count, *parameter.shape)
        rows.append(real_view(gradient).reshape(count, -1))
    return torch.cat(rows, dim=1)
