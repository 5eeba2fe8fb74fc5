"""Regularizers on what the solver measured anyway: its local error, and the stiffness of the field."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuralop_kit.neural_ode.aggregates import Aggregate, largest, mean_of_steps
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.solution import Statistics

Weight = float | Callable[[float], float]

# Size of the real stability interval of Tsit5, which normalises stiffness as in the published experiments.
TSIT5_STABILITY = 3.5068


@dataclass(frozen=True)
class ExponentialDecay:
    """A weight that falls, or grows, exponentially: ``first (last / first)^progress``.

    Args:
        first, last: at the beginning and at the end of training, positive.

    Raises:
        ArgumentError: a weight is not positive.

    Good values: 100 to 10 for classification, 1000 to 100 for time series, at tolerances about 1e-8.
    Source: Pal et al. (2021), section 4.

    >>> ExponentialDecay(100.0, 1.0)(0.5)
    10.0
    """

    first: float
    last: float

    def __post_init__(self) -> None:
        if not (self.first > 0 and self.last > 0):
            raise ArgumentError(f"expected positive weights, got {self.first} and {self.last}; a constant is a number")

    def __call__(self, progress: float) -> float:
        """The weight when this share of training, 0 to 1, is done."""
        return self.first * (self.last / self.first) ** progress


class StatisticsRegularizer(ABC):
    """``weight * mean over rows of aggregate(estimates, step sizes)``, a number to be added to the loss.

    A row is a sample in per-sample control and the batch in joint control. Only accepted steps count; step sizes are
    constants, so that the gradient is that of the estimates through the stages of the solver.

    Args:
        weight: a number >= 0, or a schedule such as :class:`ExponentialDecay`.
        over: how steps are added up.

    Raises:
        ArgumentError: the weight is negative.
    """

    def __init__(self, weight: Weight, *, over: Aggregate) -> None:
        check_weight(weight)
        self.weight, self.over = weight, over

    @abstractmethod
    def estimates(self, stats: Statistics) -> Tensor:
        """One number per step, ``(num_rows, rows)``."""

    def __call__(self, stats: Statistics, *, progress: float = 0.0) -> Tensor:
        """The penalty.

        Args:
            stats: of a solution, ``solution.stats``.
            progress: share of training that is done, 0 to 1; only schedules look at it.
        """
        values = self.over(self.estimates(stats), stats.step_size, stats.accepted)
        return mean_of_rows(values) * weight_at(self.weight, progress)


class ErrorRegularizer(StatisticsRegularizer):
    """ERNODE: dynamics of small local error, which an adaptive solver crosses in few steps.

        R = weight * mean_j E_j h_j          by default; in the paper's text  weight * sum_j E_j h_j

    ``E_j <= 1`` is the local error in units of the tolerance. One weight therefore belongs to one tolerance; for
    another one it must be found anew.

    Args:
        weight: a number, or a schedule.
        over: :func:`mean_of_steps`, the form of the published code, whose weights are below; :func:`sum_of_steps`, the
            form of the text, larger by the number of steps; or :func:`sum_of_squares`.

    Good values: ``ExponentialDecay(100, 10)`` for classification and ``ExponentialDecay(1000, 100)`` for a latent ODE,
    with Tsit5 at 1.4e-8. Published: MNIST 253 to 177 evaluations at 97.9 to 97.3 % accuracy; PhysioNet 733 to 287.
    It damps fast components: fine for layers, of which only the end counts, wrong where a real system is to be found.
    Source: Pal et al. (2021), arXiv 2105.03918, eq. 9, and its code.

    >>> import torch
    >>> from neuralop_kit.neural_ode import Autonomous, NeuralODE
    >>> solution = NeuralODE(Autonomous(torch.nn.Linear(2, 2)))(torch.ones(3, 2), torch.tensor([0.0, 1.0]))
    >>> penalty = ErrorRegularizer(100.0)(solution.stats)
    >>> penalty.ndim, bool(penalty > 0), penalty.requires_grad
    (0, True, True)
    """

    def __init__(self, weight: Weight = 100.0, *, over: Aggregate = mean_of_steps) -> None:
        super().__init__(weight, over=over)

    def estimates(self, stats: Statistics) -> Tensor:
        """E."""
        return stats.error


class StiffnessRegularizer(StatisticsRegularizer):
    """SRNODE: dynamics without fast components.

        R = weight * max_j S_j / 3.5068          by default; in the paper's text  weight * sum_j S_j h_j

    Args:
        weight: a number, or a schedule.
        over: :func:`largest`, the form of the published code; or :func:`sum_of_steps`, the form of the text.

    Good values: 0.1 for classification, 0.3 to 3 for a latent ODE. Published: no gain on MNIST (253 to 259
    evaluations), on PhysioNet as good as the error (733 to 273). A field that has no stiffness to lose gains nothing.
    Source: Pal et al. (2021), arXiv 2105.03918, eq. 10, and its code; the size of the stability interval is Tsit5's.

    >>> import torch
    >>> from neuralop_kit.neural_ode import NeuralODE
    >>> solution = NeuralODE(lambda t, u: -20 * u)(torch.ones(3, 2), torch.tensor([0.0, 1.0]))
    >>> round(StiffnessRegularizer(1.0)(solution.stats).item() * 3.5068)
    20
    """

    scale: ClassVar[float] = 1 / TSIT5_STABILITY

    def __init__(self, weight: Weight = 0.1, *, over: Aggregate = largest) -> None:
        super().__init__(weight, over=over)

    def estimates(self, stats: Statistics) -> Tensor:
        """S in units of the stability interval."""
        return stats.stiffness * self.scale


def check_weight(weight: Weight) -> None:
    """A number >= 0, or a schedule."""
    if not callable(weight) and not weight >= 0:
        raise ArgumentError(f"expected a weight >= 0, got {weight}; correct it")


def mean_of_rows(values: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean of one number per row, or of those rows that count; zero where there is none."""
    if counts is None:
        return values.sum() / max(len(values), 1)
    return torch.where(counts, values, 0.0).sum() / counts.sum().clamp_min(1)


def weight_at(weight: Weight, progress: float) -> float:
    """A number, whether it is one or a schedule."""
    return weight(progress) if callable(weight) else weight
