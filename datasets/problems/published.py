"""Settings of the FNO paper, of APEBench and of torch-harmonics, as trajectories; and some of our own."""

import math
from functools import partial

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.problems.difficulty import Difficulty
from neuralop_kit.datasets.problems.trajectories import Trajectories
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.pde.advection import Advection
from neuralop_kit.solvers.pde.allen_cahn import AllenCahn
from neuralop_kit.solvers.pde.burgers import Burgers
from neuralop_kit.solvers.pde.initial_waves import TruncatedFourier
from neuralop_kit.solvers.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from neuralop_kit.solvers.pde.navier_stokes import NavierStokes2D
from neuralop_kit.solvers.pde.reaction_diffusion import GrayScott
from neuralop_kit.solvers.pde.shallow_water_sphere import (
    EARTH_GRAVITY,
    EARTH_RADIUS,
    MEAN_DEPTH,
    ShallowWaterSphere,
)

APEBENCH = "Koehler et al. (2024), APEBench"
# Its grid, and the numbers of its scenarios, which are stated as difficulties on that grid.
POINTS = 160
ADVECTION_GAMMA, BURGERS_GAMMA, BURGERS_DELTA = 4.0, 1.5, 1.5
BURGERS_DT = BURGERS_DELTA / POINTS
BURGERS_VISCOSITY = BURGERS_GAMMA / (2 * POINTS**2 * BURGERS_DT)


def navier_stokes_fno(viscosity: float, num_frames: int) -> Trajectories:
    """The FNO paper's forced flow, one frame per unit of time."""
    return Trajectories(
        f"navier-stokes-fno-{viscosity:.0e}".replace("e-0", "e-"),
        equation="w_t + u . grad w = viscosity Lap w + f, periodic in (0, 1)^2, f = 0.1 (sin + cos)(2 pi (x + y))",
        source="Li et al. (2021), Fourier neural operator, section 5.3; fourth order in time instead of first. The "
        "published files were made at 256 x 256 and sampled",
        make_stepper=partial(NavierStokes2D.fno, viscosity=viscosity),
        fields={"vorticity": "1"},
        dt=1.0,
        num_frames=num_frames,
        steps_per_point=1.6,
        setting="fno",
        difficulty=Difficulty(dt=1.0, length=1.0, linear={2: viscosity}),
        parameters={"viscosity": Parameter(viscosity, "1", "coefficient of Lap w")},
    )


def _advection(*, dt: float) -> Advection:
    return Advection(Domain.periodic((1.0,)), velocity=(1.0,), dt=dt)


def _burgers(*, dt: float, num_substeps: int) -> Burgers:
    domain = Domain.periodic((1.0,))
    return Burgers(domain, viscosity=BURGERS_VISCOSITY, dt=dt, num_substeps=num_substeps)


def _kuramoto_sivashinsky(*, dt: float, num_substeps: int) -> KuramotoSivashinsky:
    return KuramotoSivashinsky(Domain.periodic((60.0,)), dt=dt, num_substeps=num_substeps)


def _kolmogorov(*, dt: float, num_substeps: int) -> NavierStokes2D:
    return NavierStokes2D.kolmogorov(reynolds=100.0, wavenumber=4, drag=0.1, dt=dt, num_substeps=num_substeps)


def _gray_scott(*, dt: float, num_substeps: int) -> GrayScott:
    return GrayScott(Domain.periodic((1.0, 1.0)), dt=dt, num_substeps=num_substeps)


def _allen_cahn(*, dt: float, num_substeps: int) -> AllenCahn:
    domain = Domain.periodic((2 * math.pi,) * 2)
    return AllenCahn(domain, diffusivity=5e-3, dt=dt, num_substeps=num_substeps)


TRAJECTORIES = (
    *(navier_stokes_fno(viscosity, frames) for viscosity, frames in ((1e-3, 51), (1e-4, 31), (1e-5, 21))),
    Trajectories(
        "advection-apebench",
        equation="u_t + u_x = 0, periodic in (0, 1)",
        source=f"{APEBENCH}: difficulty 4 at {POINTS} points, 51 frames",
        make_stepper=_advection,
        fields={"u": "1"},
        dt=ADVECTION_GAMMA / POINTS,
        num_frames=51,
        substeps=None,
        initial=TruncatedFourier,
        setting="apebench",
        difficulty=Difficulty(dt=ADVECTION_GAMMA / POINTS, length=1.0, linear={1: -1.0}),
    ),
    Trajectories(
        "burgers-apebench",
        equation="u_t + (u^2/2)_x = viscosity u_xx, periodic in (0, 1)",
        source=f"{APEBENCH}: gamma_2 = 1.5, delta_1 = -1.5 at {POINTS} points, 51 frames",
        make_stepper=_burgers,
        fields={"velocity": "1"},
        dt=BURGERS_DT,
        num_frames=51,
        substeps=4,
        steps_per_point=0.025,
        initial=TruncatedFourier,
        setting="apebench",
        difficulty=Difficulty(dt=BURGERS_DT, length=1.0, linear={2: BURGERS_VISCOSITY}, convection=-1.0),
        parameters={"viscosity": Parameter(BURGERS_VISCOSITY, "1", "coefficient of u_xx")},
    ),
    Trajectories(
        "kuramoto-sivashinsky-apebench",
        equation="u_t = -(u_x)^2/2 - u_xx - u_xxxx, periodic in (0, 60)",
        source=f"{APEBENCH}, physical mode: length 60, dt 0.1, 500 frames of warm-up, 51 frames at {POINTS} points",
        make_stepper=_kuramoto_sivashinsky,
        fields={"u": "1"},
        dt=0.1,
        num_frames=51,
        initial=TruncatedFourier,
        warmup=500,
        setting="apebench",
        difficulty=Difficulty(dt=0.1, length=60.0, linear={2: -1.0, 4: -1.0}),
    ),
    Trajectories(
        "kolmogorov-apebench",
        equation="w_t + u . grad w = 0.01 Lap w - 0.1 w - 4 cos(4 y), periodic in (0, 2 pi)^2",
        source=f"{APEBENCH}, physical mode: mode 4, drag, dt 0.1 in 20 steps, 500 frames of warm-up; {POINTS}^2 points",
        make_stepper=_kolmogorov,
        fields={"vorticity": "1"},
        dt=0.1,
        num_frames=51,
        substeps=20,
        initial=TruncatedFourier,
        warmup=500,
        setting="apebench",
        difficulty=Difficulty(dt=0.1, length=2 * math.pi, linear={0: -0.1, 2: 0.01}),
        parameters={"viscosity": Parameter(0.01, "1", "of Lap w"), "drag": Parameter(0.1, "1", "of w")},
    ),
    Trajectories(
        "gray-scott-apebench",
        equation="u_t = 2e-5 Lap u - u v^2 + 0.04 (1 - u), v_t = 1e-5 Lap v + u v^2 - 0.1 v, periodic in (0, 1)^2",
        source=f"{APEBENCH}, physical mode: feed 0.04, kill 0.06, dt 10 in 10 steps; initial patches are our own",
        make_stepper=_gray_scott,
        fields={"substrate": "1", "activator": "1"},
        dt=10.0,
        num_frames=51,
        substeps=10,
        setting="apebench",
        difficulty=Difficulty(dt=10.0, length=1.0, linear={2: 2e-5}),
    ),
    Trajectories(
        "allen-cahn",
        equation="u_t = 0.005 Lap u + u - u^3, periodic in (0, 2 pi)^2",
        source="diffusivity of exponax's example; everything else is our own setting",
        make_stepper=_allen_cahn,
        fields={"u": "1"},
        dt=0.5,
        num_frames=41,
        substeps=10,
        difficulty=Difficulty(dt=0.5, length=2 * math.pi, linear={0: 1.0, 2: 5e-3}),
    ),
    Trajectories(
        "shallow-water-sphere",
        equation="shallow water on the rotating Earth: geopotential, vorticity, divergence",
        source="Bonev et al. (2023), torch-harmonics: one frame per hour, layer of 10 km; ours starts in balance, at "
        "20 m/s",
        make_stepper=ShallowWaterSphere.earth,
        fields={"geopotential": "m2/s2", "vorticity": "1/s", "divergence": "1/s"},
        dt=3600.0,
        num_frames=25,
        substeps=6,
        steps_per_point=6 / 128,
        setting="torch-harmonics",
        # From pole to pole; gravity waves of a layer of 10 km are faster than its winds.
        difficulty=Difficulty(
            dt=3600.0, length=math.pi * EARTH_RADIUS, convection=-1.0, amplitude=(EARTH_GRAVITY * MEAN_DEPTH) ** 0.5
        ),
    ),
)
