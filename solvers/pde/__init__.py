"""Reference solvers: one short file per equation.

Darcy                      -div(a grad u) = f: steady flow in a porous medium; finite volumes, multigrid
TwoPhase, LogNormal        random permeabilities; ``TwoPhase.fno(domain)`` is the FNO paper's
RandomCheckerboard         tiles of two materials, at high contrast
MultiscaleTrigonometric    oscillations on six scales at once
GaussianBumps              two materials again, as in PDEBench
CoefficientDistribution    base class of these five, for one of your own
FiniteVolumes              the discretization behind Darcy; its face mean is harmonic_mean or arithmetic_mean
SplineNodal                the discretization with which the FNO paper's data were made
MultigridCG                the linear solver, for a whole batch on any device
SparseDirect               scipy's factorization, item by item: the oracle; both are a LinearSolver

Helmholtz                  -Lap u - (omega/c)^2 u = f: waves of one frequency; bilinear elements, direct
Reflecting, Impedance, AbsorbingLayer   what waves meet at the walls
HuangSpeed, top_source     the random medium and the source of MgNO's problem
BlockFactors, SparseFactors   dense block elimination for a batch on any device; scipy's LU, the oracle

Problems in time; ``.step(u)``, ``.rollout(u, num_steps)``, ``.initial_condition(...)``:
DiffusionSorption          a contaminant seeps into soil; stiff, implicit
FreundlichSorption         what the soil holds; the ends are WallValues, or GhostValues as in PDEBench
TimeStepper                base class of all problems in time
ShallowWaterSphere         vorticity, divergence and geopotential on a rotating sphere; needs torch-harmonics
steady_zonal_flow, unstable_jet   its test cases of Williamson and of Galewsky
SphereGrid                 spherical harmonics for spectral solvers

IncompressibleFlow         in a closed box with no-slip walls, smoke and a force; staggered, projected

Conservation laws, with shocks; finite volumes:
CompressibleEuler          ideal gas; CompressibleNavierStokes, with viscosity
ShallowWater               a layer of water; RadialDamBreak is PDEBench's
ShockBurgers               Burgers' equation where shocks are thinner than cells
FiniteVolumeStepper        the engine of these: a new law says its fluxes and speeds, as a ConservationLaw
Minmod, VanLeer, MonotonizedCentral, Central   limiters of slopes
Rusanov, HLL, HLLC         fluxes between two states
Outflow, SlipWalls         what lies behind the ends of a box

Initial states that are sums of waves; DocumentedWaves and PublishedWaves are PDEBench's, TruncatedFourier is APEBench's

Periodic problems in time, spectral in space:
Advection                  transport, exactly
Burgers                    shocks and diffusion
KuramotoSivashinsky        chaos in one dimension
AllenCahn                  two phases that separate
ReactionDiffusion          FitzHugh-Nagumo; GrayScott likewise
Fisher                     fronts of growth; PDEBench's 1-D reaction-diffusion
Wave                       sound and vibration, exactly
NavierStokes2D             incompressible flow by its vorticity: forced, decaying, Kolmogorov
SpectralStepper            the engine of them all: a new equation is its symbol and its nonlinear term
ETDRK2, ETDRK4             its time steps
"""

from neuralop_kit.solvers.pde.absorbing import AbsorbingLayer, Impedance, Reflecting
from neuralop_kit.solvers.pde.advection import Advection
from neuralop_kit.solvers.pde.allen_cahn import AllenCahn
from neuralop_kit.solvers.pde.burgers import Burgers
from neuralop_kit.solvers.pde.coefficients import CoefficientDistribution, LogNormal, TwoPhase
from neuralop_kit.solvers.pde.compressible import CompressibleEuler, CompressibleNavierStokes
from neuralop_kit.solvers.pde.conservation_law import ConservationLaw
from neuralop_kit.solvers.pde.darcy import Darcy
from neuralop_kit.solvers.pde.diffusion_sorption import DiffusionSorption
from neuralop_kit.solvers.pde.elliptic import FiniteVolumes, arithmetic_mean, harmonic_mean
from neuralop_kit.solvers.pde.exponential import ETDRK2, ETDRK4
from neuralop_kit.solvers.pde.finite_volume import FiniteVolumeStepper, Outflow, SlipWalls
from neuralop_kit.solvers.pde.fisher import Fisher
from neuralop_kit.solvers.pde.helmholtz import Helmholtz
from neuralop_kit.solvers.pde.incompressible import IncompressibleFlow
from neuralop_kit.solvers.pde.initial_waves import DocumentedWaves, PublishedWaves, TruncatedFourier
from neuralop_kit.solvers.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from neuralop_kit.solvers.pde.limiters import Central, Minmod, MonotonizedCentral, VanLeer
from neuralop_kit.solvers.pde.linear_solvers import LinearSolver, MultigridCG, SparseDirect
from neuralop_kit.solvers.pde.navier_stokes import NavierStokes2D
from neuralop_kit.solvers.pde.nine_point import BlockFactors, SparseFactors
from neuralop_kit.solvers.pde.reaction_diffusion import GrayScott, ReactionDiffusion
from neuralop_kit.solvers.pde.riemann import HLL, HLLC, Rusanov
from neuralop_kit.solvers.pde.shallow_water import RadialDamBreak, ShallowWater
from neuralop_kit.solvers.pde.shallow_water_sphere import ShallowWaterSphere
from neuralop_kit.solvers.pde.shock_burgers import ShockBurgers
from neuralop_kit.solvers.pde.sorption import FreundlichSorption, GhostValues, WallValues
from neuralop_kit.solvers.pde.spectral import SpectralStepper
from neuralop_kit.solvers.pde.sphere_grid import SphereGrid
from neuralop_kit.solvers.pde.sphere_states import steady_zonal_flow, unstable_jet
from neuralop_kit.solvers.pde.spline_nodal import SplineNodal
from neuralop_kit.solvers.pde.stepper import TimeStepper
from neuralop_kit.solvers.pde.synthetic_coefficients import (
    GaussianBumps,
    MultiscaleTrigonometric,
    RandomCheckerboard,
)
from neuralop_kit.solvers.pde.wave import Wave
from neuralop_kit.solvers.pde.wave_media import HuangSpeed, top_source

__all__ = [
    "Darcy",
    "CoefficientDistribution",
    "TwoPhase",
    "LogNormal",
    "RandomCheckerboard",
    "MultiscaleTrigonometric",
    "GaussianBumps",
    "FiniteVolumes",
    "harmonic_mean",
    "arithmetic_mean",
    "SplineNodal",
    "LinearSolver",
    "MultigridCG",
    "SparseDirect",
    "Helmholtz",
    "Reflecting",
    "Impedance",
    "AbsorbingLayer",
    "HuangSpeed",
    "top_source",
    "BlockFactors",
    "SparseFactors",
    "DiffusionSorption",
    "FreundlichSorption",
    "WallValues",
    "GhostValues",
    "TimeStepper",
    "ShallowWaterSphere",
    "steady_zonal_flow",
    "unstable_jet",
    "SphereGrid",
    "CompressibleEuler",
    "CompressibleNavierStokes",
    "ShallowWater",
    "RadialDamBreak",
    "ShockBurgers",
    "FiniteVolumeStepper",
    "ConservationLaw",
    "Minmod",
    "VanLeer",
    "MonotonizedCentral",
    "Central",
    "Rusanov",
    "HLL",
    "HLLC",
    "Outflow",
    "SlipWalls",
    "DocumentedWaves",
    "PublishedWaves",
    "TruncatedFourier",
    "Advection",
    "Burgers",
    "KuramotoSivashinsky",
    "AllenCahn",
    "ReactionDiffusion",
    "GrayScott",
    "Fisher",
    "Wave",
    "NavierStokes2D",
    "IncompressibleFlow",
    "SpectralStepper",
    "ETDRK2",
    "ETDRK4",
]
