"""Stochastic differential equations: integrators and the Brownian motion under them.

sdeint                solve an equation with one motion per element, adaptive or fixed steps
SOSRI                 strong order 3/2, adaptive: the default
SOSRI2                the same, with all stages inside the step and an estimate of stiffness
EulerMaruyama         strong order 1/2, fixed steps
Milstein              strong order 1, fixed steps
HeunStratonovich      strong order 1, fixed steps, in the sense of Stratonovich
StochasticMethod      base of all methods
BrownianTree          Brownian paths as a function of time: any query, always the same path, nothing stored
BrownianPoint         the path at a time: W and its integral
BrownianIncrement     the path over a step: W and its space-time area H
BrownianPath          what ``sdeint`` needs of a path
"""

from neuralop_kit.solvers.sde.brownian import BrownianIncrement, BrownianPath, BrownianPoint, BrownianTree
from neuralop_kit.solvers.sde.classical import EulerMaruyama, HeunStratonovich, Milstein
from neuralop_kit.solvers.sde.integrate import sdeint
from neuralop_kit.solvers.sde.method import StochasticMethod
from neuralop_kit.solvers.sde.rossler import SOSRI, SOSRI2

__all__ = [
    "sdeint", "SOSRI", "SOSRI2", "EulerMaruyama", "Milstein", "HeunStratonovich", "StochasticMethod",
    "BrownianTree", "BrownianPoint", "BrownianIncrement", "BrownianPath",
]  # fmt: skip
