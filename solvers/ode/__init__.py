"""Ordinary differential equations: adaptive Runge-Kutta and stiff integrators, with differentiable statistics.

odeint           solve a batch of initial value problems
Solution         the trajectory, and how it was found
Statistics       what it cost: counts and status per sample, error and stiffness estimates per step
odeint_event     solve until a condition changes its sign, with the gradient of that time
EventSolution    when and where that was
Tsit5            order 5, the default
Dopri5           order 5, the classical pair
Bosh3            order 3, for loose tolerances
Dopri8           order 8, for tight tolerances
Heun             order 2
RK4              order 4, fixed steps
Euler            order 1, fixed steps
Rosenbrock23     stiff problems, order 2
Rodas5P          stiff problems, order 5
KenCarp4         stiff problems, order 4, by Newton's method; for inexact Jacobians
AutoSwitch       explicit where that is enough, stiff where it is not
DenseLU          linear systems of stiff methods, by factorization
Krylov           the same without a matrix, by GMRES
PIController     step sizes from the last two errors, the default
IController      step sizes from the last error
PIDController    step sizes from the last three errors
FixedStep        steps of one length
PerSample        every sample has its own step size, the default
Joint            one step size for the batch
Direct           gradients by backpropagation through the steps, the default
Replay           the same gradients from the accepted states alone, for long solves; with a stride checkpointed
Interpolating    gradients by the adjoint equation, for comparison
Backsolve        the same without keeping the trajectory; unsafe where backward is unstable

``neuralop_kit.solvers.ode.compat`` has torchdiffeq's signatures, for code that was written for it.
"""

from neuralop_kit.solvers.ode.adjoint import Direct
from neuralop_kit.solvers.ode.auto_switch import AutoSwitch
from neuralop_kit.solvers.ode.continuous import Backsolve, Interpolating
from neuralop_kit.solvers.ode.control import Joint, PerSample
from neuralop_kit.solvers.ode.controllers import FixedStep, IController, PIController, PIDController
from neuralop_kit.solvers.ode.esdirk import KenCarp4
from neuralop_kit.solvers.ode.event import EventSolution, odeint_event
from neuralop_kit.solvers.ode.explicit import RK4, Bosh3, Dopri5, Dopri8, Euler, Heun, Tsit5
from neuralop_kit.solvers.ode.linear import DenseLU, Krylov
from neuralop_kit.solvers.ode.replay import Replay
from neuralop_kit.solvers.ode.rosenbrock import Rodas5P, Rosenbrock23
from neuralop_kit.solvers.ode.solution import Solution, Statistics
from neuralop_kit.solvers.ode.solve import odeint

__all__ = [
    "odeint",
    "Solution",
    "Statistics",
    "odeint_event",
    "EventSolution",
    "Tsit5",
    "Dopri5",
    "Bosh3",
    "Dopri8",
    "Heun",
    "RK4",
    "Euler",
    "Rosenbrock23",
    "Rodas5P",
    "KenCarp4",
    "AutoSwitch",
    "DenseLU",
    "Krylov",
    "PIController",
    "IController",
    "PIDController",
    "FixedStep",
    "PerSample",
    "Joint",
    "Direct",
    "Replay",
    "Interpolating",
    "Backsolve",
]
