"""Neural differential equations that learn to be cheap to solve.

NeuralODE             solve an ordinary equation with a learned right-hand side
NeuralSDE             solve a stochastic equation with learned coefficients
Autonomous            a network of the state alone as a right-hand side, such as an FNO
end_points            the times 0 and 1, for layers of which only the end counts
ErrorRegularizer      ERNODE: small local errors, few steps
StiffnessRegularizer  SRNODE: no fast components
ExponentialDecay      a weight that changes while training goes on
mean_of_steps         how a regularizer adds up steps: mean of x h
sum_of_steps          sum of x h
sum_of_squares        sum of x^2
mean_of_squares       mean of x^2
largest               largest x
LocalRegularizer      the error of one more step at a random time
TayNODE               a comparison: small derivatives of high order
RNODE                 a comparison: straight paths
Steer                 a comparison: random end times
LatentODE             irregular time series by a neural ODE in a latent space
RecurrentEncoder      from a series to the law of its initial latent state
LatentPath            what a latent ODE says about a series
masked_mean_square    error where something was observed
negative_evidence     loss of a latent ODE
"""

from neuralop_kit.neural_ode.aggregates import largest, mean_of_squares, mean_of_steps, sum_of_squares, sum_of_steps
from neuralop_kit.neural_ode.integrals import RNODE, Steer, TayNODE
from neuralop_kit.neural_ode.latent import (
    LatentODE,
    LatentPath,
    RecurrentEncoder,
    masked_mean_square,
    negative_evidence,
)
from neuralop_kit.neural_ode.local import LocalRegularizer
from neuralop_kit.neural_ode.node import Autonomous, NeuralODE, end_points
from neuralop_kit.neural_ode.nsde import NeuralSDE
from neuralop_kit.neural_ode.regularizers import ErrorRegularizer, ExponentialDecay, StiffnessRegularizer

__all__ = [
    "NeuralODE", "NeuralSDE", "Autonomous", "end_points", "ErrorRegularizer", "StiffnessRegularizer",
    "ExponentialDecay", "mean_of_steps", "sum_of_steps", "sum_of_squares", "mean_of_squares", "largest",
    "LocalRegularizer", "TayNODE", "RNODE", "Steer", "LatentODE", "RecurrentEncoder", "LatentPath",
    "masked_mean_square", "negative_evidence",
]  # fmt: skip
