"""From one number per step to one number per solve: how a regularizer adds up what the solver measured."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Aggregate: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def mean_of_steps(x: Tensor, h: Tensor, accepted: Tensor) -> Tensor:
    """``mean_j x_j h_j`` over the accepted steps: what the code of Pal et al. (2021) computes.

    Args:
        x, h, accepted: estimate, step size and whether the step was taken, ``(num_rows, rows)``; ``x`` is zero where it
            was not.

    Returns:
        One number per row, ``(rows,)``; the same for the functions below.

    >>> x, taken = torch.tensor([[1.0], [3.0]]), torch.tensor([[True], [True]])
    >>> mean_of_steps(x, torch.tensor([[0.5], [0.5]]), taken)
    tensor([1.])
    """
    return (x * h).sum(dim=0) / accepted.sum(dim=0).clamp_min(1)


def sum_of_steps(x: Tensor, h: Tensor, accepted: Tensor) -> Tensor:
    """``sum_j x_j h_j``, about the integral of ``x``: what the text of Pal et al. (2021) says."""
    return (x * h).sum(dim=0)


def sum_of_squares(x: Tensor, h: Tensor, accepted: Tensor) -> Tensor:
    """``sum_j x_j^2``: the squared variant in Pal et al. (2021), good with a constant weight."""
    return x.square().sum(dim=0)


def mean_of_squares(x: Tensor, h: Tensor, accepted: Tensor) -> Tensor:
    """``mean_j x_j^2`` over the accepted steps."""
    return x.square().sum(dim=0) / accepted.sum(dim=0).clamp_min(1)


def largest(x: Tensor, h: Tensor, accepted: Tensor) -> Tensor:
    """``max_j x_j``: what the code of Pal et al. (2021) does with stiffness."""
    # A row of zeros stands for a solve without steps.
    return torch.cat([torch.zeros_like(x[:1]), x]).amax(dim=0) if len(x) else x.sum(dim=0)
