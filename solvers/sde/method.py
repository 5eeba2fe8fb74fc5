"""What a stochastic method is: one trial step, as a function of pure tensors."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeAlias

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

    Args:
        compile: run trial steps through ``torch.compile``; both coefficients must then compile as one graph. The first
            solve takes many seconds, reuse the same coefficients: training with thousands of solves gains.
    """

    calculus: ClassVar[str] = "ito"
    strong_order: ClassVar[float]
    weak_order: ClassVar[float]
    has_error: ClassVar[bool] = False
    num_stages: ClassVar[int] = 1  # evaluations of the drift; those of the diffusion are never more

    compile: bool = field(default=False, kw_only=True)

    @abstractmethod
    def step(
        self, drift: Coefficient, diffusion: Coefficient, t: Tensor, y: Tensor, h: Tensor, noise: Noise
    ) -> TrialStep:
        """Go from ``y`` at ``t``.

        Args:
            drift, diffusion: ``(t, y) -> (batch, ...)``.
            t, h: times, and positive lengths; they broadcast against ``y``.
            y: states, ``(batch, ...)``.
            noise: of the path over the step.
        """
