"""PDEBench's problems with its numbers: what differs is said in each ``source``."""

import math
from functools import partial

import torch

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.problems.difficulty import Difficulty
from neuralop_kit.datasets.problems.trajectories import Trajectories
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.pde.advection import Advection
from neuralop_kit.solvers.pde.burgers import Burgers
from neuralop_kit.solvers.pde.compressible import CompressibleNavierStokes
from neuralop_kit.solvers.pde.diffusion_sorption import DiffusionSorption
from neuralop_kit.solvers.pde.fisher import Fisher
from neuralop_kit.solvers.pde.incompressible import IncompressibleFlow
from neuralop_kit.solvers.pde.initial_waves import DocumentedWaves
from neuralop_kit.solvers.pde.reaction_diffusion import ReactionDiffusion
from neuralop_kit.solvers.pde.shallow_water import RadialDamBreak
from neuralop_kit.solvers.pde.shock_burgers import ShockBurgers
from neuralop_kit.solvers.pde.sorption import FreundlichSorption

PAPER = "Takamoto et al. (2022), PDEBench"
WAVES = "; initial states as the paper describes them (the files have other ones, see PublishedWaves)"
UNIT_CIRCLE = Domain.periodic((1.0,), nodes="cell")

BETAS = (0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 4.0, 7.0)
NUS = (0.001, 0.002, 0.004, 0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 1.0, 2.0, 4.0)
# Below this a shock is thinner than the 1024 cells of the files.
THINNEST_RESOLVED = 0.01
GAMMA = 5 / 3
SORBED = FreundlichSorption().retardation(torch.ones(())).item()
DIFFUSIVITIES, RATES = (0.5, 1.0, 2.0, 5.0), (1.0, 2.0, 5.0, 10.0)


def advection(beta: float) -> Trajectories:
    """Transport at speed ``beta``, exactly."""
    return Trajectories(
        f"advection-pdebench-{beta:g}",
        equation="u_t + beta u_x = 0, periodic in (0, 1)",
        source=f"{PAPER}, eq. 5; shifted exactly instead of by finite volumes{WAVES}",
        make_stepper=partial(_advection, beta),
        fields={"u": "1"},
        dt=0.01,
        num_frames=201,
        substeps=None,
        initial=DocumentedWaves,
        setting="pdebench",
        difficulty=Difficulty(dt=0.01, length=1.0, linear={1: -beta}, amplitude=2.0),
        parameters={"beta": Parameter(beta, "1", "speed")},
    )


def burgers(nu: float) -> Trajectories:
    """Viscosity ``nu / pi``: spectral where shocks are resolved, finite volumes where they are not."""
    resolved = nu >= THINNEST_RESOLVED
    return Trajectories(
        f"burgers-pdebench-{nu:g}",
        equation="u_t + (u^2/2)_x = viscosity u_xx, periodic in (0, 1)",
        source=f"{PAPER}, eq. 8, where the viscosity is Nu/pi; "
        f"{'spectral instead of finite volumes' if resolved else 'finite volumes'}{WAVES}",
        make_stepper=partial(Burgers.pdebench if resolved else ShockBurgers.pdebench, nu=nu),
        fields={"velocity": "1"},
        dt=0.01,
        num_frames=201,
        substeps=4 if resolved else None,
        steps_per_point=0.04,
        initial=DocumentedWaves,
        setting="pdebench",
        difficulty=Difficulty(dt=0.01, length=1.0, linear={2: nu / math.pi}, convection=-1.0, amplitude=2.0),
        parameters={
            "Nu": Parameter(nu, "1", "PDEBench's name of pi times the viscosity"),
            "viscosity": Parameter(nu / math.pi, "1", "coefficient of u_xx"),
        },
    )


def reaction_diffusion(diffusivity: float, rate: float) -> Trajectories:
    """Fisher's equation."""
    return Trajectories(
        f"reaction-diffusion-pdebench-{diffusivity:g}-{rate:g}",
        equation="u_t = nu u_xx + rho u (1 - u), periodic in (0, 1)",
        source=f"{PAPER}, eq. 7; fourth order instead of splitting; initial states smooth between 0 and 1, our own",
        make_stepper=partial(Fisher.pdebench, diffusivity=diffusivity, rate=rate),
        fields={"u": "1"},
        dt=0.01,
        num_frames=101,
        substeps=4,
        setting="pdebench",
        difficulty=Difficulty(dt=0.01, length=1.0, linear={0: rate, 2: diffusivity}),
        parameters={
            "nu": Parameter(diffusivity, "1", "diffusivity"),
            "rho": Parameter(rate, "1", "rate of growth"),
        },
    )


def compressible(num_dims: int, viscosity: float, mach: float) -> Trajectories:
    """Viscous compressible flow; a viscosity of 1e-8 is none."""
    suffix = f"1d-{viscosity:g}" if num_dims == 1 else f"{num_dims}d-{mach:g}-{viscosity:g}"
    velocities = {f"velocity_{axis}": "1" for axis in "xyz"[:num_dims]}
    dt, length = (0.01, 2.0) if num_dims == 1 else (0.05, 1.0)
    return Trajectories(
        f"compressible-pdebench-{suffix}".replace("e-0", "e-"),
        equation="compressible Navier-Stokes, gamma 5/3, shear and bulk viscosity equal, periodic",
        source=f"{PAPER}, eq. 9; random states of our own, log-normal around density and pressure one",
        make_stepper=partial(_compressible, num_dims, viscosity, mach),
        fields={"density": "1", **velocities, "pressure": "1"},
        dt=dt,
        num_frames=101 if num_dims == 1 else 21,
        substeps=None,
        setting="pdebench",
        # Compression diffuses with 4/3 eta + zeta; the amplitude is that of the fastest sound, c + |v|.
        difficulty=Difficulty(
            dt=dt, length=length, linear={2: 7 / 3 * viscosity}, convection=-1.0, amplitude=(1 + mach) * GAMMA**0.5
        ),
        parameters={
            "viscosity": Parameter(viscosity, "1", "shear and bulk"),
            "mach": Parameter(mach, "1", "root mean square of each velocity over the speed of sound"),
        },
    )


def _advection(beta: float, *, dt: float) -> Advection:
    return Advection(UNIT_CIRCLE, velocity=(beta,), dt=dt)


def _compressible(num_dims: int, viscosity: float, mach: float, *, dt: float) -> CompressibleNavierStokes:
    gas = CompressibleNavierStokes.pdebench(num_dims=num_dims, viscosity=viscosity, mach=mach)
    return CompressibleNavierStokes(
        gas.domain, dt=dt, shear_viscosity=viscosity, bulk_viscosity=viscosity, gamma=gas.gamma, mach=mach
    )


DIFFUSION_SORPTION = Trajectories(
    "diffusion-sorption-pdebench",
    equation="R(c) c_t = D c_xx in (0, 1), c = 1 at x = 0, c + D c_x = 0 at x = 1; Freundlich isotherm",
    source=f"{PAPER}, section on diffusion-sorption: constants, ghost cells and constant initial states; implicit, "
    "error 1e-6 instead of 1e-3. One number per sample: easy to learn",
    make_stepper=DiffusionSorption.pdebench,
    fields={"concentration": "1"},
    dt=5.0,
    num_frames=101,
    substeps=10,
    setting="pdebench",
    # Sorption slows diffusion down by the factor R, which is smallest where the concentration is largest, at the inlet.
    difficulty=Difficulty(dt=5.0, length=1.0, linear={2: 5e-4 / SORBED}),
    parameters={"diffusivity": Parameter(5e-4, "1", "D")},
)
DIFFUSION_REACTION = Trajectories(
    "diffusion-reaction-pdebench",
    equation="u_t = Du Lap u + u - u^3 - k - v, v_t = Dv Lap v + u - v in (-1, 1)^2, no flux through walls",
    source=f"{PAPER}, section on diffusion-reaction; smooth initial states instead of white noise per cell, which is "
    "another function on every grid",
    make_stepper=ReactionDiffusion.pdebench,
    fields={"activator": "1", "inhibitor": "1"},
    dt=0.05,
    num_frames=101,
    substeps=4,
    setting="pdebench",
    difficulty=Difficulty(dt=0.05, length=2.0, linear={0: 1.0, 2: 1e-3}),
    parameters={"k": Parameter(5e-3, "1", "threshold")},
)
SHALLOW_WATER = Trajectories(
    "shallow-water-pdebench",
    equation="h_t + div(h v) = 0, (h v)_t + div(h v v) + grad(h^2/2) = 0 in (-2.5, 2.5)^2, open boundaries",
    source=f"{PAPER}, section on shallow water: radial dam break; HLL instead of Roe fluxes; velocities are stored too",
    make_stepper=RadialDamBreak,
    fields={"height": "1", "velocity_x": "1", "velocity_y": "1"},
    dt=0.01,
    num_frames=101,
    substeps=None,
    setting="pdebench",
    # Waves on the deeper side move at sqrt(2).
    difficulty=Difficulty(dt=0.01, length=5.0, convection=-1.0, amplitude=2**0.5),
)
INCOMPRESSIBLE = Trajectories(
    "incompressible-pdebench",
    equation="v_t + v . grad v = -grad p + 0.01 Lap v + s f, div v = 0, s_t + div(s v) = 0 in (0, 1)^2, v = 0 on walls",
    source=f"{PAPER}, inhomogeneous incompressible flow. Its files have 512^2 cells, a thousand frames and a box in "
    "cells, so that scales are our own, a tenth of its frames; velocities stay on the right and upper faces of each "
    "cell, free of divergence, instead of being resampled; the force is stored with every frame",
    make_stepper=IncompressibleFlow.pdebench,
    fields={"velocity_x": "1", "velocity_y": "1", "particles": "1", "force_x": "1", "force_y": "1"},
    dt=0.05,
    num_frames=101,
    substeps=None,
    setting="pdebench",
    difficulty=Difficulty(dt=0.05, length=1.0, linear={2: 0.01}, convection=-1.0, amplitude=0.5),
    parameters={"viscosity": Parameter(0.01, "1", "coefficient of Lap v")},
)
PDEBENCH = (
    *map(advection, BETAS),
    *map(burgers, NUS),
    *(reaction_diffusion(diffusivity, rate) for diffusivity in DIFFUSIVITIES for rate in RATES),
    DIFFUSION_SORPTION,
    DIFFUSION_REACTION,
    SHALLOW_WATER,
    INCOMPRESSIBLE,
    *(compressible(1, viscosity, 0.3) for viscosity in (1e-8, 0.01, 0.1)),
    *(compressible(2, viscosity, mach) for mach in (0.1, 1.0) for viscosity in (1e-8, 0.01, 0.1)),
    compressible(3, 1e-8, 1.0),
)
