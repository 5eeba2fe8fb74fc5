"""Step controls: how far to go along a direction, or how much to damp it, judged by the residual afterwards."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

from neuralop_kit.optim.gram.filters import Damp, Filter
from neuralop_kit.optim.gram.path import Path
from neuralop_kit.solvers.errors import ArgumentError

# Dampings relative to the largest eigenvalue are rounding below this.
_LEAST = 1e-18
# Why a step stayed.
_ROUNDING = "the linear model promises less than the rounding of the loss; it has converged, as far as digits go"
_NO_SIZE = "no step that was tried lowers the loss"


class Linearized(Protocol):
    """What a control sees of the problem: losses are 0.5 |r|^2, infinite where the residual is not finite."""

    loss: float
    filter: Filter

    def path(self, filter_: Filter) -> Path:
        """A line along the step of the filter, learning rates included."""

    def bent(self, path: Path, filter_: Filter) -> Path:
        """The same line as a parabola that follows the residual's second derivative; two calls of the residual."""

    def trial(self, path: Path, size: float) -> float:
        """The loss on the path."""

    def predicted(self, path: Path, size: float) -> float:
        """What the linear model says of :meth:`trial`."""

    def slope(self, path: Path) -> float:
        """The derivative of the loss at the beginning of the path; negative downhill."""

    def promises_nothing(self, path: Path) -> bool:
        """Whether the linear model promises less, at the best size up to one, than the rounding of the loss."""


@dataclass(frozen=True)
class Choice:
    """A step of ``size`` on a path, after which the loss is ``loss``; None means to stay, for a reason."""

    path: Path | None
    size: float
    loss: float
    reason: str = ""


class StepControl(ABC):
    """Chooses a step. What it must remember between steps is in a dict of numbers that is saved with the state.

    Those that ask the loss do not try a direction that promises nothing: it could only follow rounding.
    """

    @abstractmethod
    def choose(self, problem: Linearized, memory: dict[str, Any]) -> Choice:
        """The step to take."""


@dataclass(frozen=True)
class FixedStep(StepControl):
    """Always the whole direction, whatever becomes of the loss; one call of the residual per step."""

    def choose(self, problem: Linearized, memory: dict[str, Any]) -> Choice:
        """All of it."""
        return Choice(problem.path(problem.filter), 1.0, float("nan"))


@dataclass(frozen=True)
class Halving(StepControl):
    """Sizes 1, 1/2, 1/4, ...: goes on while the loss improves and takes the best; stays if nothing improves.

    Args:
        max_halvings: 30 reach 1e-9.
        geodesic_acceleration: along a parabola; see :class:`AdaptiveHalving`.
    """

    max_halvings: int = 30
    geodesic_acceleration: bool = False

    def choose(self, problem: Linearized, memory: dict[str, Any]) -> Choice:
        """The first local minimum of the grid that is better than staying."""
        return _halve(problem, problem.filter, self.max_halvings, accelerated=self.geodesic_acceleration)


@dataclass(frozen=True)
class AdaptiveHalving(StepControl):
    """Halving, with a filter that gets softer after short steps and harder after long ones: safe far away, Newton near.

        size < short    softness <- softness * factor          softness: the damping, or the square of the cut
        size >= long    softness <- softness / factor          not below the square of the filter's ``rtol``

    If no size improves, a filter softer by ``factor`` is tried in the same step; a harder one, if the linear model
    promises nothing. Whether a step was good is asked of its size, not of the decrease of the loss: a damping that is
    chosen for the largest decrease follows every valley floor.

    Args:
        factor: above 1.
        short, long: sizes, ``short <= long``.
        max_tries: filters per step.
        max_halvings: of the last of them; the earlier ones are given up once a step is far too short.
        geodesic_acceleration: whether sizes are tried along a parabola that follows the curvature of the residual,
            instead of along a line; see :class:`~neuralop_kit.optim.gram.path.Path`. It takes two calls of the residual
            per filter, and where residuals are curved, as those of networks are, it allows far longer steps.

    Good values: the defaults, found on regression with MLPs and on Poisson, heat and Burgers PINNs. A larger ``short``
    keeps filters soft, and steps on valley floors: with 1/16 errors on Poisson's equation were 30 times larger. The
    rule is ours.
    """

    factor: float = 1e4
    short: float = 2.0**-6
    long: float = 0.25
    max_tries: int = 3
    max_halvings: int = 30
    geodesic_acceleration: bool = True

    def __post_init__(self) -> None:
        if not (self.factor > 1.0 and 0.0 < self.short <= self.long <= 1.0):
            raise ArgumentError(
                f"expected factor > 1 and 0 < short <= long <= 1, got {self.factor}, {self.short}, {self.long}; "
                "the defaults are a good start"
            )

    def choose(self, problem: Linearized, memory: dict[str, Any]) -> Choice:
        """The first local minimum over sizes, for the first filter that has one."""
        hardest = max(problem.filter.rtol**2, _LEAST)
        softness = memory.get("softness", problem.filter.softness)
        # Some halvings beyond `short` tell that the filter is too hard.
        enough, last = min(4 - round(math.log2(self.short)), self.max_halvings), self.max_tries - 1
        choice = _stay(problem, _NO_SIZE)
        for i in range(self.max_tries):
            filter_, halvings = problem.filter.softened(softness), self.max_halvings if i == last else enough
            choice = _halve(problem, filter_, halvings, accelerated=self.geodesic_acceleration)
            if choice.path is not None or (choice.reason == _ROUNDING and softness <= hardest):
                break
            # Of a filter that is too soft no more than of one that has converged is to be expected.
            is_soft = choice.reason == _ROUNDING
            softness = max(softness / self.factor, hardest) if is_soft else max(softness, hardest) * self.factor
        if choice.size >= self.long and softness > hardest:
            softness = max(softness / self.factor, hardest)
        elif choice.path is not None and choice.size < self.short:
            softness = max(softness, hardest) * self.factor
        memory["softness"] = min(softness, 1.0)
        return choice


@dataclass(frozen=True)
class GridSearch(StepControl):
    """All sizes 1, 1/2, ..., 2^-30 are tried and the best is taken: the line search of the natural gradient papers.

    Args:
        max_halvings: 30, as in Mueller and Zeinhofer (2023).
    """

    max_halvings: int = 30

    def choose(self, problem: Linearized, memory: dict[str, Any]) -> Choice:
        """The minimum of the grid."""
        path = problem.path(problem.filter)
        if problem.promises_nothing(path):
            return _stay(problem, _ROUNDING)
        sizes = [0.5**i for i in range(self.max_halvings + 1)]
        trials = [Choice(path, size, problem.trial(path, size)) for size in sizes]
        return min([_stay(problem, _NO_SIZE), *trials], key=lambda choice: choice.loss)


@dataclass(frozen=True)
class Armijo(StepControl):
    """The first of the sizes 1, 1/2, ... with ``loss(size) <= loss + c * size * slope``; stays if there is none.

    Args:
        c: share of the linear decrease that is asked for, in (0, 1).
        max_halvings: 30 reach 1e-9.
    """

    c: float = 1e-4
    max_halvings: int = 30

    def __post_init__(self) -> None:
        if not 0.0 < self.c < 1.0:
            raise ArgumentError(f"expected c in (0, 1), got {self.c}; 1e-4 is usual")

    def choose(self, problem: Linearized, memory: dict[str, Any]) -> Choice:
        """The first size that decreases enough."""
        path = problem.path(problem.filter)
        if problem.promises_nothing(path):
            return _stay(problem, _ROUNDING)
        slope = problem.slope(path)
        for size in [0.5**i for i in range(self.max_halvings + 1)]:
            loss = problem.trial(path, size)
            if slope < 0 and loss <= problem.loss + self.c * size * slope:
                return Choice(path, size, loss)
        return _stay(problem, _NO_SIZE)


@dataclass(frozen=True)
class LevenbergMarquardt(StepControl):
    """Whole steps, with a damping that follows the ratio of actual to predicted decrease.

        ratio > 0: accept,  damping <- damping * max(1/3, 1 - (2 ratio - 1)^3),  growth <- 2
        else:      damping <- damping * growth,  growth <- 2 growth,  and try again

    Args:
        max_tries: dampings per step; the last one is remembered if none is accepted.
        geodesic_acceleration: to the end of a parabola; see :class:`AdaptiveHalving`.

    Good values: ``geodesic_acceleration=True`` for residuals without noise; with it errors of PINNs on Poisson, heat
    and Burgers were 9 to 60 times smaller after equal times. On mini-batches with noise it made no difference.
    Source: Nielsen (1999), "Damping parameter in Marquardt's method"; the acceleration Transtrum and Sethna (2012).
    """

    max_tries: int = 12
    geodesic_acceleration: bool = False

    def choose(self, problem: Linearized, memory: dict[str, Any]) -> Choice:
        """The first step that lowers the loss."""
        if not isinstance(problem.filter, Damp):
            raise ArgumentError(f"expected a damped filter, got {problem.filter}; use AdaptiveHalving, or GaussNewton")
        damping, growth = memory.get("damping", problem.filter.damping), memory.get("growth", 2.0)
        choice = _stay(problem, _NO_SIZE)
        for _ in range(self.max_tries):
            filter_ = problem.filter.softened(damping)
            path = problem.path(filter_)
            if problem.promises_nothing(path):
                damping, growth, choice = damping / 3, 2.0, _stay(problem, _ROUNDING)
                break
            if self.geodesic_acceleration:
                path = problem.bent(path, filter_)
            loss = problem.trial(path, 1.0)
            predicted = problem.loss - problem.predicted(path, 1.0)
            ratio = (problem.loss - loss) / predicted if predicted > 0 else 0.0
            if loss < problem.loss and ratio > 0:
                damping, growth = damping * max(1 / 3, 1 - (2 * ratio - 1) ** 3), 2.0
                choice = Choice(path, 1.0, loss)
                break
            damping, growth = damping * growth, 2 * growth
        memory["damping"], memory["growth"] = min(max(damping, _LEAST), 1.0), min(growth, 1e6)
        return choice


def _halve(problem: Linearized, filter_: Filter, max_halvings: int, *, accelerated: bool) -> Choice:
    """The first local minimum over the sizes 1, 1/2, ...; staying, if none is better or nothing is promised."""
    path = problem.path(filter_)
    if problem.promises_nothing(path):
        return _stay(problem, _ROUNDING)
    if accelerated:
        path = problem.bent(path, filter_)
    best = _stay(problem, _NO_SIZE)
    for i in range(max_halvings + 1):
        loss = problem.trial(path, 0.5**i)
        if loss < best.loss:
            best = Choice(path, 0.5**i, loss)
        elif best.path is not None:
            break
    return best


def _stay(problem: Linearized, reason: str) -> Choice:
    """No step."""
    return Choice(None, 0.0, problem.loss, reason)
