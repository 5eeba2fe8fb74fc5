"""Putting an optimizer's state back exactly as it was."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def load_optimizer_state(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """``optimizer.load_state_dict(saved)``, with every state tensor in the dtype in which it was saved.

    torch casts the state of a floating parameter to that parameter's dtype: a complex spectrum would lose its imaginary
    part, a bf16 momentum would come back as fp32, integer counters as floats.
    """
    # Complex tensors go in as real pairs: torch would warn of what is repaired below.
    optimizer.load_state_dict({**saved, "state": _as_real(saved["state"])})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    for index, parameter in zip(indices, parameters, strict=True):
        if index in saved["state"] and parameter in optimizer.state:
            optimizer.state[parameter] = _as_saved(optimizer.state[parameter], saved["state"][index])


def _as_real(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.view_as_real(value) if value.is_complex() else value
    if isinstance(value, dict):
        return {key: _as_real(item) for key, item in value.items()}
    return type(value)(_as_real(item) for item in value) if isinstance(value, list | tuple) else value


def _as_saved(loaded: Any, saved: Any) -> Any:
    """``loaded``, except that tensors of another dtype than in ``saved`` are taken from there."""
    if isinstance(saved, Tensor) and isinstance(loaded, Tensor):
        return loaded if loaded.dtype == saved.dtype else saved.to(loaded.device, copy=True)
    if isinstance(saved, dict) and isinstance(loaded, dict):
        return {key: _as_saved(value, saved.get(key)) for key, value in loaded.items()}
    if isinstance(saved, list | tuple) and isinstance(loaded, list | tuple) and len(saved) == len(loaded):
        return type(saved)(_as_saved(a, b) for a, b in zip(loaded, saved, strict=True))
    return loaded
