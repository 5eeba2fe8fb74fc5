"""Optimizers by name, for the command line of the examples; each with a learning rate that is a good start."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from neuralop_kit.layers import SpectralConv
from neuralop_kit.optim import M3, NVRM, SOAP, Lion, Muon


def complex_apart(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups that tell complex weights, real numbers with a trailing axis of 2, from the others."""
    spectral = {id(m.weight) for m in model.modules() if isinstance(m, SpectralConv)}
    groups = [
        {"params": [p for p in model.parameters() if (id(p) in spectral) == is_complex], "complex_weights": is_complex}
        for is_complex in (False, True)
    ]
    return [group for group in groups if group["params"]]


@dataclass(frozen=True)
class Choice:
    """How to make an optimizer from a model and a learning rate, and which rate to take by default."""

    make: Callable[[nn.Module, float], Optimizer]
    learning_rate: float


OPTIMIZERS: dict[str, Choice] = {
    "adamw": Choice(lambda m, lr: torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=1e-4), 2e-3),
    "lion": Choice(lambda m, lr: Lion(m.parameters(), lr=lr, weight_decay=1e-3), 4e-4),
    "muon": Choice(lambda m, lr: Muon(complex_apart(m), lr=lr), 2e-3),
    "soap": Choice(lambda m, lr: SOAP(complex_apart(m), lr=lr), 2e-3),
    "m3": Choice(lambda m, lr: M3(complex_apart(m), lr=lr), 3e-4),
    "nvrm": Choice(lambda m, lr: NVRM(torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=1e-4)), 2e-3),
}
