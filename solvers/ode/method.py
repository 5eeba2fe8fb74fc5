"""What every one-step method is to the loop around it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from neuralop_kit.solvers.ode.controllers import Floats

Field = Callable[[Tensor, Tensor], Tensor]


class Increment(NamedTuple):
    """One step of a method, before anybody has judged it.

    Args:
        y: the state at the end of the step.
        slope: the field there, with which the next step begins.
        defect: the companion's ``y`` minus ``y``; ``None`` for a method without a companion.
        slope_change, state_change: the quotient of their norms is about the largest |eigenvalue| of the Jacobian.
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
        compile: run trial steps through ``torch.compile``; the field must then compile as one graph. The first solve
            takes half a minute or more, reuse the same field. Where nobody looks at single steps (no dense output, no
            event, no replay) acceptance and step sizes are part of the graph, and small states take 4 steps
            per call.

    Attributes:
        order: of the solution it returns.
        control_order: the power of ``h`` with which its error estimate falls.
        has_companion: whether it estimates its error.
        evaluations_per_step: evaluations of the field that a trial step costs, its last one at the end of the step.
        stability_size: the largest ``h L`` for which ``y' = -L y`` decays; infinite for stiff methods.
        dense: rows of ``y(theta) = y + h sum_d theta^(d+1) sum_i dense_di k_i``, for ``theta`` in [0, 1].
    """

    order: int
    control_order: int
    has_companion: bool = True
    evaluations_per_step: int
    stability_size: float
    dense: tuple[tuple[float, ...], ...]

    def __init__(self, *, compile: bool = False) -> None:
        self.compile = compile

    @abstractmethod
    def step(self, field: Field, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Increment:
        """A step from ``t`` to ``t + h``; ``slope`` is ``field(t, y)``, and ``t``, ``h`` broadcast against ``y``."""

    def selector(self) -> "Selector":
        """Says which method takes the next step: this one."""
        return Selector(self)


class Selector:
    """The method of a solve, step by step; this one never changes.

    Args:
        method: takes the next step.
    """

    def __init__(self, method: Method) -> None:
        self.method = method

    def observe(self, stiffness: Tensor, h: Floats) -> None:
        """Hear of a row of accepted steps: estimates ``S``, and lengths, which are 0 where no step was taken."""
