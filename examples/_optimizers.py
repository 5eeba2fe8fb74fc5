"""Optimizers by name, for the command line of the examples; each with a learning rate that is a good start."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuralop_kit.layers import SpectralConv
from neuralop_kit.optim import M3, NVRM, SOAP, FixedStep, GaussNewton, LevenbergMarquardt, Lion, Muon, Sven
from neuralop_kit.training import RelativeL2

OptimizerName = Literal["adamw", "adam", "lion", "muon", "soap", "m3", "nvrm", "sven", "gauss_newton"]


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
    """How to make an optimizer from a model and a learning rate, which rate to take for FNO, what a step is given."""

    make: Callable[[nn.Module, float], Optimizer]
    learning_rate: float
    takes_residuals: bool = False


OPTIMIZERS: dict[OptimizerName, Choice] = {
    "adamw": Choice(lambda m, lr: torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=1e-4), 2e-3),
    "adam": Choice(lambda m, lr: torch.optim.Adam(m.parameters(), lr=lr), 2e-3),
    "lion": Choice(lambda m, lr: Lion(m.parameters(), lr=lr, weight_decay=1e-3), 4e-4),
    "muon": Choice(lambda m, lr: Muon(complex_apart(m), lr=lr), 2e-3),
    "soap": Choice(lambda m, lr: SOAP(complex_apart(m), lr=lr), 2e-3),
    "m3": Choice(lambda m, lr: M3(complex_apart(m), lr=lr, second_moment=False), 1e-2),
    "nvrm": Choice(lambda m, lr: NVRM(torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=1e-4), b=1e-3), 2e-3),
    "sven": Choice(
        lambda m, lr: Sven(m.parameters(), lr=lr, rtol=1e-3, control=FixedStep()), 0.3, takes_residuals=True
    ),
    "gauss_newton": Choice(
        lambda m, lr: GaussNewton(m.parameters(), lr=lr, rtol=0.0, control=LevenbergMarquardt()), 1.0,
        takes_residuals=True,
    ),
}  # fmt: skip


class SampleErrors(RelativeL2):
    """Relative L2 error; optimizers that take residuals get one row per sample, not one per point of every field."""

    def residual(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``(batch,)``; its squared norm is the mean of the squared errors."""
        return self.per_sample(prediction, target) / len(target) ** 0.5


def make_optimizer(
    name: OptimizerName,
    model: nn.Module,
    learning_rate: float | None = None,
    *,
    pace: float = 1.0,
    gives_residuals: bool = False,
) -> Optimizer:
    """The optimizer with this name for all parameters of a model.

    Args:
        name: one of :data:`OPTIMIZERS`.
        model: whose parameters.
        learning_rate: by default the optimizer's own times ``pace``.
        pace: how much faster the model of an example can learn than FNO on Darcy flow, by steps from gradients.
        gives_residuals: the example has a residual for each sample; else optimizers that need them are refused.
    """
    choice = OPTIMIZERS[name]
    if choice.takes_residuals and not gives_residuals:
        others = ", ".join(other for other, kind in OPTIMIZERS.items() if not kind.takes_residuals)
        raise SystemExit(
            f"expected an optimizer that steps from gradients, as this example has no vector of residuals, got {name}, "
            f"which needs one; choose among {others}"
        )
    own = choice.learning_rate * (1.0 if choice.takes_residuals else pace)
    return choice.make(model, own if learning_rate is None else learning_rate)


def finish(optimizer: Optimizer) -> None:
    """After the last step of a loop by hand: weights without noise, where training put some in."""
    if isinstance(optimizer, NVRM):
        optimizer.eval()
