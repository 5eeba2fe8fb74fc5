"""What a stochastic method is: one trial step, as a function of pure tensors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor

Coefficient: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Noise(NamedTuple):
    """The path over a step: its increment W and its space-time area H, ``(batch, ...)``, in the dtype of the state."""

    value: Tensor
    area: Tensor


class TrialStep(NamedTuple):
    """What a step proposes.

    Args:
        y: the new state, ``(batch, ...)``.
        error: size of the local error, element by element, not negative; ``None`` where the method has no estimate.
        slopes, points: difference of the drift at two stages at equal times, and of their states; the ratio of their
            norms is the estimate of stiffness. ``None`` where the method has no such stages.
    """

    y: Tensor
    error: Tensor | None = None
    slopes: Tensor | None = None
    points: Tensor | None = None


@dataclass(frozen=True)
class StochasticMethod(ABC):
    """A one-step method for ``dy = f(t, y) dt + g(t, y) dW`` with one motion per element (diagonal noise).

    A leaf states the calculus in which it reads the equation, its orders, what a step costs, and the step.
    """

    calculus: ClassVar[str] = "ito"
    strong_order: ClassVar[float]
    weak_order: ClassVar[float]
    has_error: ClassVar[bool] = False
    num_stages: ClassVar[int] = 1  # evaluations of the drift; those of the diffusion are never more

    @abstractmethod
    def step(self, drift: Coefficient, diffusion: Coefficient, t: Tensor, y: Tensor, h: Tensor, noise: Noise) -> TrialStep:
        """Go from ``y`` at ``t``.

        Args:
            drift, diffusion: ``(t, y) -> (batch, ...)``.
            t: times in the shape that the coefficients take.
            y: states, ``(batch, ...)``.
            h: positive lengths, to be broadcast against ``y``.
            noise: of the path over the step.
        """


def after(t: Tensor, h: Tensor, share: float) -> Tensor:
    """``t + share * h``, in the shape of ``t``."""
    return t + share * h.reshape(t.shape).to(t.dtype)


def weighted(weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """``sum_i w_i x_i`` without the terms of weight zero; at least one must remain."""
    pairs = [(w, x) for w, x in zip(weights, terms, strict=False) if w != 0.0]
    total = pairs[0][0] * pairs[0][1]
    for w, x in pairs[1:]:
        total = torch.add(total, x, alpha=w)
    return total
