"""Problems to generate data for: random inputs and a solver for their targets.

PROBLEMS      the registry: name -> problem
Problem       what a problem is; subclass it for your own
Samples       what a problem returns for a batch of seeds
DarcyFlow     permeability to pressure: "darcy", "darcy-rough", "darcy-lognormal"
Evolution     initial state to state: "burgers", "navier-stokes"
"""

from neuralop_kit.datasets.problems.base import Problem, ProblemRegistry, Samples
from neuralop_kit.datasets.problems.darcy import DARCY, DARCY_LOGNORMAL, DARCY_ROUGH, DarcyFlow
from neuralop_kit.datasets.problems.evolution import BURGERS, NAVIER_STOKES, Evolution

PROBLEMS = ProblemRegistry()
for _problem in (DARCY, DARCY_ROUGH, DARCY_LOGNORMAL, BURGERS, NAVIER_STOKES):
    PROBLEMS.register(_problem)

__all__ = ["PROBLEMS", "Problem", "Samples", "DarcyFlow", "Evolution"]
