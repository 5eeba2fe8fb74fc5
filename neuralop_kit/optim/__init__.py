"""Optimizers for operators and for residuals of differential equations; each a ``torch.optim.Optimizer``.

From gradients:
Lion              sign of the momentum, one buffer
Muon              orthogonalised momentum; complex weights mode by mode
SOAP              Adam in the eigenbasis of Shampoo; complex weights mode by mode
M3                orthogonalised momentum at two time scales
DeltaGD           gradient descent that forgets along the inputs of linear layers
DeltaMomentum     momentum that forgets along the gradient it has just seen
DeepMomentum      momentum as a small network trained while it is used
PowerPropSGD      gradient descent on the roots of the weights
PowerProp         the same for the steps of any optimizer
NVRM              neural variability on top of any optimizer
MultiFrequency    groups that move at frequencies of their own, on top of any optimizer
Noise             its distribution: Gaussian, Laplace, Uniform, Rademacher

From the vector of all residuals, ``step(residual_fn)``:
Sven              truncated pseudo-inverse of the Jacobian
GaussNewton       damped least squares
SPRING            the same with momentum on the increment
HIG               half-inverse gradients
StepControl       how far they go: AdaptiveHalving, Halving, GridSearch, Armijo, LevenbergMarquardt, FixedStep
Engine            how they get the Jacobian: Automatic, Ghost, BatchedVJP, or its leading part, Randomized;
                  over several processes DataParallel, Sharded
StepInfo          what became of a step

From loss and gradient at several points, ``step(closure)``:
SSBroyden         dense quasi-Newton with self-scaling; also SSBFGS and plain BFGS

From values of the loss, ``step(loss_fn)``:
SPSA              differences along random directions; MeZO; its other name is WeightPerturbation
NodePerturbation  differences for noise on the outputs of layers
EvolutionStrategy antithetic, by rank
ForwardGradient   exact derivatives along random directions, in forward mode

Parameters that FSDP2 has sharded are taken by Lion, PowerPropSGD, DeltaMomentum, DeltaGD, SPSA, EvolutionStrategy, and
by NVRM, MultiFrequency and PowerProp around such; the others need them whole and say so when they are made.
What kind of solution was found: :mod:`neuralop_kit.optim.diagnostics`.
To build on: KitOptimizer, GramOptimizer, QuasiNewton, ZerothOrder.
"""

from neuralop_kit.optim.base import KitOptimizer
from neuralop_kit.optim.deep_momentum import DeepMomentum, DeltaMomentum
from neuralop_kit.optim.delta_gd import DeltaGD
from neuralop_kit.optim.forward_gradient import ForwardGradient
from neuralop_kit.optim.gauss_newton import HIG, SPRING, GaussNewton
from neuralop_kit.optim.gram.control import (
    AdaptiveHalving,
    Armijo,
    FixedStep,
    GridSearch,
    Halving,
    LevenbergMarquardt,
    StepControl,
)
from neuralop_kit.optim.gram.engines import Automatic, BatchedVJP, Engine, Ghost
from neuralop_kit.optim.gram.optimizer import GramOptimizer, StepInfo
from neuralop_kit.optim.gram.parallel import DataParallel, Sharded
from neuralop_kit.optim.gram.randomized import Randomized
from neuralop_kit.optim.lion import Lion
from neuralop_kit.optim.m3 import M3
from neuralop_kit.optim.multi_frequency import MultiFrequency
from neuralop_kit.optim.muon import Muon
from neuralop_kit.optim.node_perturbation import NodePerturbation
from neuralop_kit.optim.noise import Gaussian, Laplace, Noise, Rademacher, Uniform
from neuralop_kit.optim.nvrm import NVRM
from neuralop_kit.optim.power_prop import PowerProp, PowerPropSGD
from neuralop_kit.optim.quasi_newton import BFGS, SSBFGS, QuasiNewton, SSBroyden
from neuralop_kit.optim.soap import SOAP
from neuralop_kit.optim.spsa import SPSA, EvolutionStrategy, WeightPerturbation
from neuralop_kit.optim.sven import Sven
from neuralop_kit.optim.zeroth_order import ZerothOrder

__all__ = [
    "Lion",
    "Muon",
    "SOAP",
    "M3",
    "DeltaGD",
    "DeltaMomentum",
    "DeepMomentum",
    "PowerPropSGD",
    "PowerProp",
    "NVRM",
    "MultiFrequency",
    "Noise",
    "Gaussian",
    "Laplace",
    "Uniform",
    "Rademacher",
    "Sven",
    "GaussNewton",
    "SPRING",
    "HIG",
    "StepControl",
    "AdaptiveHalving",
    "Halving",
    "GridSearch",
    "Armijo",
    "LevenbergMarquardt",
    "FixedStep",
    "Engine",
    "Automatic",
    "Ghost",
    "BatchedVJP",
    "Randomized",
    "DataParallel",
    "Sharded",
    "StepInfo",
    "SSBroyden",
    "SSBFGS",
    "BFGS",
    "SPSA",
    "WeightPerturbation",
    "NodePerturbation",
    "EvolutionStrategy",
    "ForwardGradient",
    "KitOptimizer",
    "GramOptimizer",
    "QuasiNewton",
    "ZerothOrder",
]
