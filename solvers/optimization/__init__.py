"""Batched least squares, quadratic programs and projections, with a status for every item.

levenberg_marquardt       nonlinear least squares, all items at once, differentiable
LevenbergMarquardt        the same as an object, without derivatives
PointwiseProblem          least squares whose residual acts point by point on a few linear terms; with LinearRows
DenseProblem              least squares with any residual function
LeastSquaresProblem       base class of both, for a structure of your own
Reattachment              exact derivatives of a minimiser, to any order, by ordinary operations
ClosedFormAdjoint         the same in reverse mode, with less memory
GaussNewtonReattachment   inexact ones, to compare with
NormalEquations, ExactHessian, OrthogonalFactors   how a step is computed
solve_qp                  convex quadratic programs, all items at once, differentiable; reports a QPInfo
project_onto_equalities   nearest solution of a few linear equations
project_onto_budget       nearest point between two bounds with a given weighted sum
project_onto_simplex      nearest nonnegative point with a given sum
"""

from neuralop_kit.solvers.optimization.adjoint import ClosedFormAdjoint
from neuralop_kit.solvers.optimization.implicit import GaussNewtonReattachment, Reattachment
from neuralop_kit.solvers.optimization.levenberg_marquardt import LevenbergMarquardt, levenberg_marquardt
from neuralop_kit.solvers.optimization.pointwise import LinearRows, PointwiseProblem
from neuralop_kit.solvers.optimization.problem import DenseProblem, LeastSquaresProblem
from neuralop_kit.solvers.optimization.projections_budget import project_onto_budget, project_onto_simplex
from neuralop_kit.solvers.optimization.projections_linear import project_onto_equalities
from neuralop_kit.solvers.optimization.quadratic_program import QPInfo, solve_qp
from neuralop_kit.solvers.optimization.steps import ExactHessian, NormalEquations, OrthogonalFactors

__all__ = [
    "levenberg_marquardt",
    "LevenbergMarquardt",
    "PointwiseProblem",
    "LinearRows",
    "DenseProblem",
    "LeastSquaresProblem",
    "Reattachment",
    "ClosedFormAdjoint",
    "GaussNewtonReattachment",
    "NormalEquations",
    "ExactHessian",
    "OrthogonalFactors",
    "solve_qp",
    "QPInfo",
    "project_onto_equalities",
    "project_onto_budget",
    "project_onto_simplex",
]
