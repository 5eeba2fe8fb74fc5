"""Adam's direction, for the vectors beside the matrices, and in the rotated coordinates of SOAP."""

import torch
from torch import Tensor

from neuralop_kit.optim.base import State, real_view


def squared_modulus(tensor: Tensor) -> Tensor:
    """``|z|^2``, real."""
    return real_view(tensor).square().sum(dim=-1) if tensor.is_complex() else tensor.square()


def adam_state(tensor: Tensor) -> State:
    """No steps, a first moment like ``tensor`` and a real second moment."""
    return {"step": 0, "moment": torch.zeros_like(tensor), "square": torch.zeros_like(squared_modulus(tensor))}


def adam_direction(state: State, gradient: Tensor, betas: tuple[float, float], eps: float) -> Tensor:
    """Advance the moments by one gradient and return ``m_hat / (sqrt(v_hat) + eps)``.

        m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) |g|^2,    m_hat = m / (1 - b1^t),    v_hat = v / (1 - b2^t)

    A complex number has one second moment, so the direction turns with the phase of the gradient.
    """
    b1, b2 = betas
    state["step"] += 1
    state["moment"].lerp_(gradient, 1 - b1)
    state["square"].lerp_(squared_modulus(gradient), 1 - b2)
    scale = (state["square"] / (1 - b2 ** state["step"])).sqrt_().add_(eps)
    # A complex moment over a number that changes would be compiled anew every step; the scale is real.
    return state["moment"] / scale.mul_(1 - b1 ** state["step"])
