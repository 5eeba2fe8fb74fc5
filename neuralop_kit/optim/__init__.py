"""Optimizers for operators and for residuals of differential equations; each a ``torch.optim.Optimizer``.

From gradients:
Lion              sign of the momentum, one buffer
Muon              orthogonalised momentum; complex weights mode by mode
SOAP              Adam in the eigenbasis of Shampoo; complex weights mode by mode
M3                orthogonalised momentum at two time scales
DeltaGD           gradient descent that forgets along the inputs of linear layers
NVRM              neural variability on top of any optimizer
"""

from neuralop_kit.optim.base import KitOptimizer
from neuralop_kit.optim.delta_gd import DeltaGD
from neuralop_kit.optim.lion import Lion
from neuralop_kit.optim.m3 import M3
from neuralop_kit.optim.muon import Muon
from neuralop_kit.optim.noise import Gaussian, Laplace, Noise, Rademacher, Uniform
from neuralop_kit.optim.nvrm import NVRM
from neuralop_kit.optim.soap import SOAP

__all__ = [
    "Lion",
    "Muon",
    "SOAP",
    "M3",
    "DeltaGD",
    "NVRM",
    "Noise",
    "Gaussian",
    "Laplace",
    "Uniform",
    "Rademacher",
    "KitOptimizer",
]
