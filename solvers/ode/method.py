"""What every one-step method is to the loop around it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Field = Callable[[Tensor, Tensor], Tensor]


class Increment(NamedTuple):
    """One step of a method, before anybody has judged it.

    Args:
        y: the state at the end of the step.
        slope: the field there, with which the next step begins.
        defect: the companion's ``y`` minus ``y``; ``None`` for a method without a companion.
        slope_change, state_change: two evaluations near the end of the step, subtracted: their quotient is about the
            largest eigenvalue of the Jacobian in modulus.
        stages: tensors ``k_i`` that carry the dense output, ``y(theta) = y + h sum_i w_i(theta) k_i``.
    """

    y: Tensor
    slope: Tensor
    defect: Tensor | None
    slope_change: Tensor
    state_change: Tensor
    stages: tuple[Tensor, ...]


class Method(ABC):
    """A one-step method: pure tensor functions and a few numbers; it keeps nothing between steps.

    Args:
        compile: run trial steps through ``torch.compile``; the field must then compile as one graph. The first call
            takes seconds; reuse the same field.

    Attributes:
        order: of the solution it returns.
        has_companion: whether it estimates its error.
        evaluations_per_step: evaluations of the field that a trial step costs, its last one at the end of the step.
        stability_size: the largest ``h L`` for which ``y' = -L y`` decays; infinite for stiff methods.
    """

    order: int
    has_companion: bool = True
    evaluations_per_step: int
    stability_size: float

    def __init__(self, *, compile: bool = False) -> None:
        self.compile = compile

    @abstractmethod
    def step(self, field: Field, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Increment:
        """A step from ``t`` to ``t + h``; ``slope`` is ``field(t, y)``, and ``t``, ``h`` broadcast against ``y``."""

    @abstractmethod
    def dense_weights(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """``w_i(theta)``, shape ``(num_stages, *theta.shape)``, for ``theta`` in [0, 1]."""
