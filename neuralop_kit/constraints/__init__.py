"""Layers whose output obeys physics exactly, solved per subdomain, differentiated by the implicit function theorem.

Each returns ``(value, info)``; the info has a status for every item.

ConservationConstraint   the integral of every channel
LinearConstraint         any linear functionals: moments, modes
SimplexConstraint        bounds and an integral: positivity and mass
FluxForm                 a time step that moves what is conserved from cell to cell and loses none
DivergenceFree           the incompressible part of a velocity
BoundaryLifting          values on walls
"""

from neuralop_kit.constraints.conservation import ConservationConstraint
from neuralop_kit.constraints.divergence import DivergenceFree
from neuralop_kit.constraints.flux_form import FluxForm
from neuralop_kit.constraints.lifting import BoundaryLifting
from neuralop_kit.constraints.linear import LinearConstraint
from neuralop_kit.constraints.simplex import SimplexConstraint

__all__ = [
    "ConservationConstraint",
    "LinearConstraint",
    "SimplexConstraint",
    "FluxForm",
    "DivergenceFree",
    "BoundaryLifting",
]
