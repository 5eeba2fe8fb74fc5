"""Layers whose output obeys physics exactly, solved per subdomain, differentiated by the implicit function theorem.

Each returns ``(value, info)``; the info has a status for every item. Behind a network in half precision or under
autocast they compute, and return, float32: a constraint holds as well as its field can say it.

LeastSquaresConstraint   a differential equation, as well as learned basis functions allow, with conditions as rows
AtStart, AtStop          such conditions: initial and boundary values at the ends of an axis
Equation                 a residual, and what its arguments mean; for names of your own, other derivatives, operators
SpectralDerivative, FiniteDifference    how to differentiate along an axis
Mask, Raise, Damp, Fallback             what becomes of an item whose solve fails
MixtureOfExperts         a constraint solved on every part of the domain, with coefficients of its own
Partition                cuts a domain into boxes, in space and time
RandomAssignment         points thrown to experts at random, the control of a partition
Separate, Overlap, Coupled              what happens where two experts meet
AllPoints, EqualPoints, ProportionalPoints    at which of its points an expert is held to the equation
ExpertChoice             one of several fields on each part: conservation here, an equation there; by rule or learned
ExpertParallel           experts shared out over processes
average_gradients        what they need where there is no DistributedDataParallel
with_next_face           cells shared out over processes, with FluxForm
ConservationConstraint   the integral of every channel
LinearConstraint         any linear functionals: moments, modes
SimplexConstraint        bounds and an integral: positivity and mass
FluxForm                 a time step that moves what is conserved from cell to cell and loses none
QPConstraint             linear equations and inequalities: monotone, convex, bounded slopes
CvxpyConstraint          whatever convex programming can express, through cvxpylayers, and checked
DivergenceFree           the incompressible part of a velocity
BoundaryLifting          values on walls
"""

from neuralop_kit.constraints.choice import ExpertChoice
from neuralop_kit.constraints.collocation import AllPoints, EqualPoints, ProportionalPoints
from neuralop_kit.constraints.conditions import AtStart, AtStop
from neuralop_kit.constraints.conservation import ConservationConstraint
from neuralop_kit.constraints.convex import CvxpyConstraint
from neuralop_kit.constraints.derivatives import FiniteDifference, SpectralDerivative
from neuralop_kit.constraints.divergence import DivergenceFree
from neuralop_kit.constraints.equation import Equation
from neuralop_kit.constraints.expert_parallel import ExpertParallel, average_gradients
from neuralop_kit.constraints.experts import MixtureOfExperts
from neuralop_kit.constraints.flux_form import FluxForm
from neuralop_kit.constraints.interface import Coupled, Overlap, Separate
from neuralop_kit.constraints.least_squares import LeastSquaresConstraint
from neuralop_kit.constraints.lifting import BoundaryLifting
from neuralop_kit.constraints.linear import LinearConstraint
from neuralop_kit.constraints.partition import Partition, RandomAssignment
from neuralop_kit.constraints.policies import Damp, Fallback, Mask, Raise
from neuralop_kit.constraints.quadratic import QPConstraint
from neuralop_kit.constraints.shared_faces import with_next_face
from neuralop_kit.constraints.simplex import SimplexConstraint

__all__ = [
    "LeastSquaresConstraint",
    "AtStart",
    "AtStop",
    "Equation",
    "SpectralDerivative",
    "FiniteDifference",
    "Mask",
    "Raise",
    "Damp",
    "Fallback",
    "MixtureOfExperts",
    "Partition",
    "RandomAssignment",
    "Separate",
    "Overlap",
    "Coupled",
    "AllPoints",
    "EqualPoints",
    "ProportionalPoints",
    "ExpertChoice",
    "ExpertParallel",
    "average_gradients",
    "with_next_face",
    "ConservationConstraint",
    "LinearConstraint",
    "SimplexConstraint",
    "FluxForm",
    "QPConstraint",
    "CvxpyConstraint",
    "DivergenceFree",
    "BoundaryLifting",
]
