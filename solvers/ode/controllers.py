"""Step-size controllers: from error estimates to the factor by which the next step is longer."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.solvers.errors import ArgumentError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class StepController(ABC):
    """Chooses step sizes on the host, where the one number per sample that decides about a step has arrived anyway.

    ``adapts`` says whether steps can be rejected; ``stretch`` how much longer than planned the last step may be, so
    that no tiny one is left, and must not undo what a rejection shortens; ``first_error`` stands for the errors before
    the first step.
    """

    adapts: bool = True
    stretch: float = 1.1
    first_error: float = 1.0

    @abstractmethod
    def factor(self, log_error: Floats, history: tuple[Floats, Floats], accepted: Flags, order: int) -> Floats:
        """Factor for the next step.

        Args:
            log_error: ``log E`` of the trial step, ``(rows,)``; infinite where it was not finite.
            history: the same of the two accepted steps before, the newer one first.
            accepted: where the trial step was taken.
            order: of the method.
        """


@dataclass(frozen=True)
class PIDController(StepController):
    """Proportional, integral and differential feedback from the last three errors.

        h' / h = clip(safety * E_n^(-b1/p) * E_{n-1}^(b2/p) * E_{n-2}^(-b3/p), min_factor, max_factor)     accepted
        h' / h = max(safety * E_n^(-b1/p), min_factor)                                                     rejected

    with ``p`` the order of the method. Smoother than feedback from one error: fewer rejected steps, less sensitive to
    rounding.

    Args:
        exponents: ``(b1, b2, b3)``.
        safety: in (0, 1].
        min_factor, max_factor: bounds, ``min_factor < 1 < max_factor``.
        shrinks_when_accepted: whether an accepted step may be followed by a shorter one.
        first_error: stands for the errors before the first step, and is the smallest error that is remembered.

    Raises:
        ArgumentError: a value is outside its range.

    Source: Hairer and Wanner, vol. II, IV.2; Soederlind (2003), ACM Trans. Math. Softw. 29, for the third term.

    >>> import numpy as np
    >>> log_error = np.zeros(1)
    >>> float(PIDController().factor(log_error, (log_error, log_error), np.array([True]), 5)[0])
    0.9
    """

    exponents: tuple[float, float, float] = (0.7, 0.4, 0.1)
    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 10.0
    shrinks_when_accepted: bool = True
    first_error: float = 1e-4
    stretch: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (0 < self.safety <= 1 and 0 < self.min_factor < 1 < self.max_factor and self.first_error > 0):
            raise ArgumentError(
                "expected 0 < safety <= 1, 0 < min_factor < 1 < max_factor and first_error > 0, "
                f"got {self}; correct them"
            )
        # A rejected last step that is stretched to the end again would be the same step, for ever.
        least = 0.99 / max(self.safety, self.min_factor)
        object.__setattr__(self, "stretch", min(max(least, 1.0), StepController.stretch))

    def factor(self, log_error: Floats, history: tuple[Floats, Floats], accepted: Flags, order: int) -> Floats:
        """See the class."""
        now, before, earlier = (exponent / order for exponent in self.exponents)
        exponent = math.log(self.safety) - now * log_error
        if before or earlier:
            past = before * history[0] - earlier * history[1] if earlier else before * history[0]
            exponent = exponent + past * accepted
        floor = self.min_factor if self.shrinks_when_accepted else np.where(accepted, 1.0, self.min_factor)
        return np.minimum(np.maximum(np.exp(exponent), floor), self.max_factor)


@dataclass(frozen=True)
class PIController(PIDController):
    """Feedback from two errors, the default, with the constants of DOPRI5; SciML's for Tsit5 are (0.7, 0.4, 0.0).

    Args:
        exponents, safety, min_factor, max_factor, shrinks_when_accepted, first_error: see :class:`PIDController`.

    Where errors change slowly it settles at ``E = safety^(p / (b1 - b2))``, here 0.44; SciML's at 0.17, which takes a
    fifth more steps.

    Source: Gustafsson (1991), ACM Trans. Math. Softw. 17; Hairer and Wanner, vol. II, IV.2, for the constants.
    """

    exponents: tuple[float, float, float] = (0.85, 0.2, 0.0)


@dataclass(frozen=True)
class IController(PIDController):
    """The textbook's rule ``h' = 0.9 h E^(-1/p)``; with ``shrinks_when_accepted=False`` exactly torchdiffeq's.

    Args:
        exponents, safety, min_factor, max_factor, shrinks_when_accepted, first_error: see :class:`PIDController`.

    Source: Hairer, Norsett and Wanner, vol. I, II.4.
    """

    exponents: tuple[float, float, float] = (1.0, 0.0, 0.0)


@dataclass(frozen=True)
class FixedStep(StepController):
    """Steps of one length, whatever their error; only the last one is shorter.

    Args:
        step_size: positive.

    Raises:
        ArgumentError: ``step_size`` is not positive.

    >>> import torch
    >>> from neuralop_kit.solvers.ode import odeint
    >>> y0, t = torch.ones(1, 1), torch.tensor([0.0, 1.0])
    >>> odeint(lambda t, y: -y, y0, t, method="rk4", controller=FixedStep(0.125)).stats.num_accepted
    tensor([8])
    """

    step_size: float

    adapts = False
    # As far as rounding goes.
    stretch = 1 + 1e-9

    def __post_init__(self) -> None:
        if not self.step_size > 0:
            raise ArgumentError(f"expected a positive step_size, got {self.step_size}; times may run backward instead")

    def factor(self, log_error: Floats, history: tuple[Floats, Floats], accepted: Flags, order: int) -> Floats:
        """One."""
        return np.ones_like(log_error)
