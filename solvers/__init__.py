"""Numerics without learned parameters: domains, random fields, reference solvers.

Domain                 where a function lives: extents, boundaries, node placement, quadrature
Axis                   one axis of a box: interval, boundary, nodes
SphereDomain           the surface of a sphere; made by ``Domain.sphere()``
GaussianRandomField    random functions with a Matern-type covariance, the same at any resolution
"""

from neuralop_kit.solvers.domain import Axis, Domain
from neuralop_kit.solvers.random_fields import GaussianRandomField
from neuralop_kit.solvers.sphere import SphereDomain

__all__ = ["Axis", "Domain", "SphereDomain", "GaussianRandomField"]
