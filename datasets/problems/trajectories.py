"""Trajectories: a random initial state and what becomes of it, frame by frame."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.problems.base import Problem, Samples
from neuralop_kit.datasets.problems.difficulty import Difficulty
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.pde.initial_waves import InitialWaves
from neuralop_kit.solvers.pde.stepper import TimeStepper


class Trajectories(Problem):
    """States at equal distances in time, float64 while they are computed.

    Args:
        name: in the registry.
        equation: in plain symbols.
        source: whose settings these are, and what differs from theirs.
        make_stepper: called with ``dt=`` and, unless ``substeps`` is None, ``num_substeps=``; a function with a name,
            or a ``functools.partial`` of one, because processes that generate in parallel are sent the problem.
        fields: name and unit of each channel.
        dt: time between frames.
        num_frames: the initial state included.
        substeps: at least so many steps between frames; None for a solver that chooses its own.
        steps_per_point: steps between frames per point of the longest axis, if that is more.
        initial: distribution of the initial states, by the domain; by default the stepper's own.
        warmup: frames that are thrown away before the first one.
        setting: ``"fno"``, ``"pdebench"``, ``"apebench"``, ``"torch-harmonics"``, or empty for our own.
        difficulty: APEBench's, where it is defined.
        parameters: numbers of the equation.

    >>> from neuralop_kit.datasets import PROBLEMS
    >>> samples = PROBLEMS["burgers-apebench"].sample([torch.Generator().manual_seed(0)], (40,))
    >>> samples.target.shape, samples.converged.item()
    (torch.Size([1, 1, 51, 40]), True)
    """

    input_names = ()

    def __init__(
        self,
        name: str,
        *,
        equation: str,
        source: str,
        make_stepper: Callable[..., TimeStepper],
        fields: Mapping[str, str],
        dt: float,
        num_frames: int,
        substeps: int | None = 1,
        steps_per_point: float = 0.0,
        initial: Callable[[Domain], InitialWaves] | None = None,
        warmup: int = 0,
        setting: str = "",
        difficulty: Difficulty | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> None:
        self.name, self.equation, self.source, self.setting = name, equation, source, setting
        self.make_stepper = make_stepper
        self.substeps, self.steps_per_point, self.warmup = substeps, steps_per_point, warmup
        self.initial = initial
        self.dt = dt
        self.times = tuple(round(k * dt, 12) for k in range(num_frames))
        self.domain = self.stepper(1).domain
        self.target_names, self.units = tuple(fields), dict(fields)
        self.parameters = {"dt": Parameter(dt, "1", "time between frames"), **(parameters or {})}
        self._difficulty = difficulty

    def stepper(self, num_points: int) -> TimeStepper:
        """The solver, with steps short enough for so many points along the longest axis."""
        if self.substeps is None:
            return self.make_stepper(dt=self.dt)
        count = max(self.substeps, math.ceil(self.steps_per_point * num_points))
        return self.make_stepper(dt=self.dt, num_substeps=count)

    def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
        """Draw initial states and follow them; a trajectory that blew up counts as not converged."""
        stepper, count = self.stepper(max(shape)), len(generators)
        draw = stepper.initial_condition if self.initial is None else self.initial(self.domain).sample
        u = draw(count, shape, generator=generators, dtype=torch.float64)
        if self.warmup:
            u = stepper.rollout(u, self.warmup, save_every=self.warmup)[:, -1]
        target = stepper.rollout(u, len(self.times) - 1).transpose(1, 2)
        return Samples(input=None, target=target, converged=target.flatten(1).isfinite().all(dim=1))

    def difficulty(self, shape: Sequence[int]) -> dict[str, float]:
        """APEBench's numbers; empty where they are not defined."""
        return {} if self._difficulty is None else self._difficulty.at(shape)
