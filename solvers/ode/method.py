"""What every one-step method is to the loop around it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

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
        stages: tensors ``k_i`` that carry the dense output.
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
        dense: rows of ``y(theta) = y + h sum_d theta^(d+1) sum_i dense_di k_i``, for ``theta`` in [0, 1].
    """

    order: int
    has_companion: bool = True
    evaluations_per_step: int
    stability_size: float
    dense: tuple[tuple[float, ...], ...]

    def __init__(self, *, compile: bool = False) -> None:
        self.compile = compile

    @abstractmethod
    def step(self, field: Field, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Increment:
        """A step from ``t`` to ``t + h``; ``slope`` is ``field(t, y)``, and ``t``, ``h`` broadcast against ``y``."""
