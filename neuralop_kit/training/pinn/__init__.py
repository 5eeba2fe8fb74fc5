"""Physics-informed networks: problems with known solutions, and a loop that trains them by any optimizer.

Poisson2D, Poisson5D      -Laplace u = f on unit cubes
Heat1D                    a mode that decays
Burgers1D                 a wave that becomes a shock; cole_hopf is its solution
PointProblem              a new problem says its points, its residuals and its solution
derivatives               of a network at its points, by backward passes
fit                       training for a given time; Course is what became of it
take_step                 one step of any optimizer, from residuals
"""

from neuralop_kit.training.pinn.burgers import Burgers1D, cole_hopf
from neuralop_kit.training.pinn.fit import Course, fit, take_step
from neuralop_kit.training.pinn.heat import Heat1D
from neuralop_kit.training.pinn.poisson import Poisson2D, Poisson5D
from neuralop_kit.training.pinn.problem import PointProblem, derivatives

__all__ = [
    "Poisson2D",
    "Poisson5D",
    "Heat1D",
    "Burgers1D",
    "cole_hopf",
    "PointProblem",
    "derivatives",
    "fit",
    "Course",
    "take_step",
]
