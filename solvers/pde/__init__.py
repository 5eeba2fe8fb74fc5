"""Reference solvers: one short file per equation.

Darcy                  -div(a grad u) = f: steady flow in a porous medium; finite volumes, multigrid
TwoPhase, LogNormal    random permeabilities; ``TwoPhase.fno(domain)`` is the FNO paper's
FiniteVolumes          the discretization behind Darcy, with a choice of face mean
MultigridCG            its linear solver, for a whole batch on any device
SparseDirect           scipy's factorization, item by item: the oracle
"""

from neuralop_kit.solvers.pde.coefficients import LogNormal, TwoPhase
from neuralop_kit.solvers.pde.darcy import Darcy
from neuralop_kit.solvers.pde.elliptic import FiniteVolumes, arithmetic_mean, harmonic_mean
from neuralop_kit.solvers.pde.linear_solvers import MultigridCG, SparseDirect

__all__ = [
    "Darcy",
    "TwoPhase",
    "LogNormal",
    "FiniteVolumes",
    "harmonic_mean",
    "arithmetic_mean",
    "MultigridCG",
    "SparseDirect",
]
