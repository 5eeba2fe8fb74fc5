"""Train a network of coordinates for a given time, with any optimizer."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.training.pinn.problem import PointProblem

Residuals = Callable[[], dict[str, Tensor]]


@dataclass
class Course:
    """What became of a training.

    Attributes:
        network: as it is at the end.
        error: its relative L2 error.
        num_steps: steps taken.
        seconds: what they took; measuring errors is not counted.
        errors: pairs of seconds and relative L2 error, at times that grow by a fifth.
    """

    network: nn.Module
    error: float
    num_steps: int = 0
    seconds: float = 0.0
    errors: list[tuple[float, float]] = field(default_factory=list)


def fit(
    problem: PointProblem,
    make: Callable[[Any], torch.optim.Optimizer],
    *,
    seconds: float,
    seed: int = 0,
    decay: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Course:
    """Draw points, make a network, train it until the time is up.

    Args:
        problem: what to solve.
        make: an optimizer from parameters; :func:`take_step` gives it what it wants.
        seconds: > 0; the step that is under way then is finished.
        seed: of points and weights; torch's global random state stays as it is.
        decay: whether learning rates fall to zero along half a cosine over the time.
        clock: what seconds are; ``time.process_time`` is fairer on a busy machine.

    >>> from neuralop_kit.optim import GaussNewton
    >>> from neuralop_kit.training.pinn import Poisson2D
    >>> fit(Poisson2D(), GaussNewton, seconds=0.01).num_steps >= 1
    True
    """
    if not seconds > 0:
        raise ArgumentError(f"expected seconds > 0, got {seconds}; ten suffice for the problems here")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = problem.network()
        points = problem.draw(torch.Generator().manual_seed(seed))
        optimizer = make(network.parameters())
        rates = [group["lr"] for group in optimizer.param_groups]
        course, next_look = Course(network, problem.relative_error(network)), 0.05
        while course.seconds < seconds:
            if decay:
                share = (1 + math.cos(math.pi * course.seconds / seconds)) / 2
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * share
            began = clock()
            take_step(optimizer, lambda: problem.residuals(network, points))
            course.seconds += clock() - began
            course.num_steps += 1
            if course.seconds >= next_look:
                course.errors.append((course.seconds, problem.relative_error(network)))
                next_look = 1.2 * course.seconds
    course.error = problem.relative_error(network)
    course.errors.append((course.seconds, course.error))
    return course


def take_step(optimizer: torch.optim.Optimizer, residuals: Residuals) -> None:
    """A step from the residuals where the optimizer takes them, else from the gradient of their mean squares.

    Optimizers that evaluate the loss themselves get a function that computes it.
    """
    kind = getattr(optimizer, "step_kind", "gradient")
    if kind == "residual":
        optimizer.step(residuals)  # type: ignore[arg-type]
        return

    # Also where an optimizer asks without gradients: residuals hold derivatives with respect to points.
    @torch.enable_grad()
    def loss() -> Tensor:
        return torch.stack([block.square().mean() for block in residuals().values()]).sum()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    if kind == "gradient":
        closure()
        optimizer.step()
    else:
        optimizer.step(closure if kind == "closure" else loss)  # type: ignore[arg-type]
