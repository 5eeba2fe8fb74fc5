"""Evolution over a fixed time: an initial state to the state that it has become."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.problems.base import Problem, Samples
from neuralop_kit.datasets.problems.difficulty import Difficulty
from neuralop_kit.solvers.pde import Burgers, NavierStokes2D, SpectralStepper

# Time between two states and number of substeps to a stepper.
MakeStepper = Callable[[float, int], SpectralStepper]


class Evolution(Problem):
    """The state of a periodic problem after a fixed time, as a function of its initial state.

    The time steps shrink with the grid, ``time / (steps_per_point * points of the longest axis)``, so that the
    stability limit of transport is kept at every resolution. Spectral in space, fourth order in time, float64.

    Args:
        name: in the registry.
        equation: in plain symbols.
        source: whose settings these are.
        make_stepper: ``(dt, num_substeps) -> stepper``.
        field: what the state is, for example ``"velocity"``; its initial value is called ``initial_<field>``.
        time: from the initial state to the target, in the unit of the equation.
        steps_per_point: time steps per point of the longest axis.
        parameters: numbers of the equation.
        setting: who published them.
        difficulty: APEBench's, where it is defined.

    >>> from neuralop_kit.datasets import PROBLEMS
    >>> samples = PROBLEMS["burgers"].sample([torch.Generator().manual_seed(0)], (64,))
    >>> samples.input.shape, samples.converged.item()
    (torch.Size([1, 1, 64]), True)
    """

    def __init__(
        self,
        name: str,
        *,
        equation: str,
        source: str,
        make_stepper: MakeStepper,
        field: str,
        time: float,
        steps_per_point: float,
        parameters: Mapping[str, Parameter],
        setting: str = "",
        difficulty: Difficulty | None = None,
    ) -> None:
        self.setting = setting
        self._difficulty = difficulty
        self.name, self.equation, self.source = name, equation, source
        self.time, self.steps_per_point = time, steps_per_point
        self.make_stepper = make_stepper
        self.domain = make_stepper(time, 1).domain
        self.input_names, self.target_names = (f"initial_{field}",), (field,)
        self.units = {f"initial_{field}": "1", field: "1"}
        self.parameters = {"time": Parameter(time, "1", "time from input to target"), **parameters}

    def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
        """Draw initial states and advance them; a state that blew up counts as not converged."""
        stepper = self.make_stepper(self.time, math.ceil(self.steps_per_point * max(shape)))
        start = stepper.initial_condition(len(generators), shape, generator=generators, dtype=torch.float64)
        end = stepper.step(start)
        return Samples(input=start, target=end, converged=end.flatten(1).isfinite().all(dim=1))

    def difficulty(self, shape: Sequence[int]) -> dict[str, float]:
        """APEBench's numbers."""
        return {} if self._difficulty is None else self._difficulty.at(shape)


# Functions with a name, because processes that generate in parallel are sent the problem.
def _burgers(dt: float, num_substeps: int) -> Burgers:
    return Burgers.fno(viscosity=0.1, dt=dt, num_substeps=num_substeps)


def _navier_stokes(dt: float, num_substeps: int) -> NavierStokes2D:
    return NavierStokes2D.fno(viscosity=1e-3, dt=dt, num_substeps=num_substeps)


BURGERS = Evolution(
    "burgers",
    equation="u_t + (u^2/2)_x = viscosity u_xx, periodic in (0, 1); input u at t = 0, target u at t = 1",
    source="Li et al. (2021), Fourier neural operator, section 5.1: viscosity 0.1, "
    "initial states N(0, 625 (-Lap + 25)^-2)",
    make_stepper=_burgers,
    field="velocity",
    time=1.0,
    steps_per_point=2.0,
    parameters={"viscosity": Parameter(0.1, "1", "coefficient of u_xx")},
    setting="fno",
    difficulty=Difficulty(dt=1.0, length=1.0, linear={2: 0.1}, convection=-1.0),
)
NAVIER_STOKES = Evolution(
    "navier-stokes",
    equation="w_t + u . grad w = viscosity Lap w + f, periodic in (0, 1)^2; input w at t = 0, target w at t = 5",
    source="Li et al. (2021), Fourier neural operator, section 5.3: forcing, viscosity 1e-3, "
    "initial states N(0, 7^3 (-Lap + 49)^-2.5); the paper maps ten frames to the following ones instead",
    make_stepper=_navier_stokes,
    field="vorticity",
    time=5.0,
    steps_per_point=4.0,
    parameters={"viscosity": Parameter(1e-3, "1", "coefficient of Lap w")},
    setting="fno",
    difficulty=Difficulty(dt=5.0, length=1.0, linear={2: 1e-3}),
)
