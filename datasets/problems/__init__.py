"""Problems to generate data for: random inputs and a solver for their targets.

PROBLEMS      the registry: name -> problem
Problem       what a problem is; subclass it for your own
Samples       what a problem returns for a batch of seeds
DarcyFlow     permeability to pressure: "darcy", "darcy-rough", "darcy-lognormal"
"""

from neuralop_kit.datasets.problems.base import Problem, ProblemRegistry, Samples
from neuralop_kit.datasets.problems.darcy import DARCY, DARCY_LOGNORMAL, DARCY_ROUGH, DarcyFlow

PROBLEMS = ProblemRegistry()
for _problem in (DARCY, DARCY_ROUGH, DARCY_LOGNORMAL):
    PROBLEMS.register(_problem)

__all__ = ["PROBLEMS", "Problem", "Samples", "DarcyFlow"]
