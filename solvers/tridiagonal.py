"""Tridiagonal systems, many at once, on any device."""

import torch
from torch import Tensor


def solve_tridiagonal(lower: Tensor, diagonal: Tensor, upper: Tensor, rhs: Tensor) -> Tensor:
    """Solve ``lower_i x_(i-1) + diagonal_i x_i + upper_i x_(i+1) = rhs_i`` along the last axis.

    Parallel cyclic reduction: each round eliminates the neighbours of every row and doubles the distance to the next
    ones, ``log2(n)`` rounds of elementwise work without a loop over rows. No pivoting: for matrices that are
    diagonally dominant, as those of diffusion are. Differentiable in all arguments; batches broadcast.

    Args:
        lower, diagonal, upper: ``(..., n)``; ``lower[..., 0]`` and ``upper[..., -1]`` are not used.
        rhs: ``(..., n)``.

    Source: Hockney and Jesshope (1981), Parallel Computers, section 5.4.

    >>> one = torch.ones(4, dtype=torch.float64)
    >>> x = solve_tridiagonal(-one, 2 * one, -one, torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64))
    >>> torch.allclose(x, one)
    True
    """
    n = rhs.shape[-1]
    inside = torch.ones(n, dtype=rhs.dtype, device=rhs.device)
    # Every row is divided by its diagonal, which then stays 1.
    left, right, value = lower / diagonal, upper / diagonal, rhs / diagonal
    left, right = left * _shifted(inside, 1), right * _shifted(inside, -1)
    distance = 1
    while distance < n:
        scale = 1 / (1 - left * _shifted(right, distance) - right * _shifted(left, -distance))
        value = scale * (value - left * _shifted(value, distance) - right * _shifted(value, -distance))
        left, right = -scale * left * _shifted(left, distance), -scale * right * _shifted(right, -distance)
        distance *= 2
    return value


def _shifted(x: Tensor, distance: int) -> Tensor:
    """``x`` moved along its last axis, zeros moving in."""
    n = x.shape[-1]
    zeros = torch.zeros_like(x[..., : abs(distance)])
    if distance > 0:
        return torch.cat([zeros, x[..., : n - distance]], dim=-1)
    return torch.cat([x[..., -distance:], zeros], dim=-1)
