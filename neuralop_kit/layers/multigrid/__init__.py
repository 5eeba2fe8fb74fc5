"""Multigrid as a layer: cycles, transfers, smoothers, and the operator made of them.

MultigridOperator     the layer
SphericalMultigrid    the same on a sphere, with rings for stencils
ReferenceMultigrid    the layer of the released code, to compare with
WideningMultigrid     the layer of the released code for the Helmholtz equation
ConditionedMultigrid  a cycle for -div(a grad u) whose coefficient is an input: a learned preconditioner
RandomKernels         first stencils: random
EllipticKernels       first stencils: those of a textbook solver for an elliptic equation
Initialization        base of the two
Jacobi                smoother: all points at once
Chebyshev             smoother: all points at once, the best factors for several sweeps
RedBlack              smoother: Gauss-Seidel in two colours
Smoother              base of the three
contraction_factor    spectral radius of the error after one cycle
condition_number      of the preconditioned system
symmetry_defect       how far a layer is from its adjoint
Transfers             full weighting and linear interpolation between neighbouring grids, exact at walls
"""

from neuralop_kit.layers.multigrid.conditioned import ConditionedMultigrid
from neuralop_kit.layers.multigrid.diagnostics import condition_number, contraction_factor, symmetry_defect
from neuralop_kit.layers.multigrid.initialization import EllipticKernels, Initialization, RandomKernels
from neuralop_kit.layers.multigrid.operator import MultigridOperator
from neuralop_kit.layers.multigrid.reference import ReferenceMultigrid
from neuralop_kit.layers.multigrid.smoothers import Chebyshev, Jacobi, RedBlack, Smoother
from neuralop_kit.layers.multigrid.spherical import SphericalMultigrid
from neuralop_kit.layers.multigrid.transfers import Transfers
from neuralop_kit.layers.multigrid.widening_reference import WideningMultigrid

__all__ = [
    "MultigridOperator",
    "SphericalMultigrid",
    "ReferenceMultigrid",
    "WideningMultigrid",
    "ConditionedMultigrid",
    "RandomKernels",
    "EllipticKernels",
    "Initialization",
    "Jacobi",
    "Chebyshev",
    "RedBlack",
    "Smoother",
    "contraction_factor",
    "condition_number",
    "symmetry_defect",
    "Transfers",
]
