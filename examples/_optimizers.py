"""Optimizers by name, for the command line of the examples; each with a learning rate that is a good start."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from neuralop_kit.optim import M3, NVRM, SOAP, Lion, Muon


@dataclass(frozen=True)
class Choice:
    """How to make an optimizer from parameters and a learning rate, and which rate to take by default."""

    make: Callable[[Iterable[Parameter], float], Optimizer]
    learning_rate: float


OPTIMIZERS: dict[str, Choice] = {
    "adamw": Choice(lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=1e-4), 2e-3),
    "lion": Choice(lambda p, lr: Lion(p, lr=lr, weight_decay=1e-3), 4e-4),
    "muon": Choice(lambda p, lr: Muon(p, lr=lr), 5e-3),
    "soap": Choice(lambda p, lr: SOAP(p, lr=lr), 2e-3),
    "m3": Choice(lambda p, lr: M3(p, lr=lr), 5e-3),
    "nvrm": Choice(lambda p, lr: NVRM(torch.optim.AdamW(p, lr=lr, weight_decay=1e-4)), 2e-3),
}
