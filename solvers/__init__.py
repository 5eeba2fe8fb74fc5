"""Numerics without learned parameters: domains, random fields, reference solvers.

Domain                 where a function lives: extents, boundaries, node placement, quadrature
Axis                   one axis of a box: interval, boundary, nodes
SphereDomain           the surface of a sphere; made by ``Domain.sphere()``
GaussianRandomField    random functions with a Matern-type covariance, the same at any resolution
conjugate_gradients    symmetric positive definite systems, a batch at once, any preconditioner
flexible_gmres         any invertible systems, with a preconditioner that may change at every step
levenberg_marquardt    nonlinear least squares, a batch at once, differentiable
solve_qp               convex quadratic programs, a batch at once, differentiable
odeint                 initial value problems, a batch at once, with differentiable error and stiffness estimates
sdeint                 the same for stochastic equations, on reproducible Brownian paths
"""

from neuralop_kit.solvers.conjugate_gradients import conjugate_gradients
from neuralop_kit.solvers.domain import Axis, Domain
from neuralop_kit.solvers.flexible_gmres import flexible_gmres
from neuralop_kit.solvers.ode import odeint
from neuralop_kit.solvers.optimization import levenberg_marquardt, solve_qp
from neuralop_kit.solvers.random_fields import GaussianRandomField
from neuralop_kit.solvers.sde import sdeint
from neuralop_kit.solvers.sphere import SphereDomain

__all__ = [
    "Axis",
    "Domain",
    "SphereDomain",
    "GaussianRandomField",
    "conjugate_gradients",
    "flexible_gmres",
    "levenberg_marquardt",
    "solve_qp",
    "odeint",
    "sdeint",
]
