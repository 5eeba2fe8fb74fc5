"""Reference solvers: one short file per equation.

Darcy                      -div(a grad u) = f: steady flow in a porous medium; finite volumes, multigrid
TwoPhase, LogNormal        random permeabilities; ``TwoPhase.fno(domain)`` is the FNO paper's
RandomCheckerboard         tiles of two materials, at high contrast
MultiscaleTrigonometric    oscillations on six scales at once
FiniteVolumes              the discretization behind Darcy, with a choice of face mean
SplineNodal                the discretization with which the FNO paper's data were made
MultigridCG                the linear solver, for a whole batch on any device
SparseDirect               scipy's factorization, item by item: the oracle
"""

from neuralop_kit.solvers.pde.coefficients import CoefficientDistribution, LogNormal, TwoPhase
from neuralop_kit.solvers.pde.darcy import Darcy
from neuralop_kit.solvers.pde.elliptic import FiniteVolumes, arithmetic_mean, harmonic_mean
from neuralop_kit.solvers.pde.linear_solvers import LinearSolver, MultigridCG, SparseDirect
from neuralop_kit.solvers.pde.spline_nodal import SplineNodal
from neuralop_kit.solvers.pde.synthetic_coefficients import MultiscaleTrigonometric, RandomCheckerboard

__all__ = [
    "Darcy",
    "CoefficientDistribution",
    "TwoPhase",
    "LogNormal",
    "RandomCheckerboard",
    "MultiscaleTrigonometric",
    "FiniteVolumes",
    "harmonic_mean",
    "arithmetic_mean",
    "SplineNodal",
    "LinearSolver",
    "MultigridCG",
    "SparseDirect",
]
