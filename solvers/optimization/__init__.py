"""Batched least squares, quadratic programs and projections, with a status for every item.

project_onto_equalities   nearest solution of a few linear equations
project_onto_budget       nearest point between two bounds with a given weighted sum
project_onto_simplex      nearest nonnegative point with a given sum
"""

from neuralop_kit.solvers.optimization.projections_budget import project_onto_budget, project_onto_simplex
from neuralop_kit.solvers.optimization.projections_linear import project_onto_equalities

__all__ = ["project_onto_equalities", "project_onto_budget", "project_onto_simplex"]
