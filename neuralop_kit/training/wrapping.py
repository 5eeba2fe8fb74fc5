"""Looking through what a model may be wrapped in."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from neuralop_kit.solvers.errors import ArgumentError


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``torch.compile`` and DistributedDataParallel."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def place_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the first floating parameter."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    raise ArgumentError(f"expected a model with floating-point parameters, got {type(model).__name__}")
