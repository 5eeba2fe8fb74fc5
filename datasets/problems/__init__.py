"""Problems to generate data for: random inputs and a solver for their targets.

PROBLEMS        the registry: name -> problem
Problem         what a problem is; subclass it for your own
Samples         what a problem returns for a batch of seeds
DarcyFlow       permeability to pressure: "darcy" (FNO), "darcy-rough", "darcy-multiscale" (MgNO), ...
Evolution       initial state to a later state: "burgers", "navier-stokes" (FNO)
HelmholtzWaves  speed of sound to field: "helmholtz-mgno"
Trajectories    frame by frame: "...-fno-...", "...-pdebench-...", "...-apebench", "shallow-water-sphere", ...
Difficulty      APEBench's numbers, which say how hard a problem in time is

``python -m neuralop_kit.datasets list`` prints them all.
"""

from neuralop_kit.datasets.problems.base import Problem, ProblemRegistry, Samples
from neuralop_kit.datasets.problems.darcy import (
    DARCY,
    DARCY_LOGNORMAL,
    DARCY_MULTISCALE,
    DARCY_PDEBENCH,
    DARCY_ROUGH,
    DarcyFlow,
)
from neuralop_kit.datasets.problems.difficulty import Difficulty
from neuralop_kit.datasets.problems.evolution import BURGERS, NAVIER_STOKES, Evolution
from neuralop_kit.datasets.problems.helmholtz import HelmholtzWaves
from neuralop_kit.datasets.problems.pdebench import PDEBENCH
from neuralop_kit.datasets.problems.published import TRAJECTORIES
from neuralop_kit.datasets.problems.trajectories import Trajectories

PROBLEMS = ProblemRegistry()
_STEADY = (DARCY, DARCY_ROUGH, DARCY_LOGNORMAL, DARCY_MULTISCALE, HelmholtzWaves(), *DARCY_PDEBENCH)
for _problem in (*_STEADY, BURGERS, NAVIER_STOKES, *TRAJECTORIES, *PDEBENCH):
    PROBLEMS.register(_problem)

__all__ = [
    "PROBLEMS",
    "Problem",
    "Samples",
    "DarcyFlow",
    "Evolution",
    "HelmholtzWaves",
    "Trajectories",
    "Difficulty",
]
