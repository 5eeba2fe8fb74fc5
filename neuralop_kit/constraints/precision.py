"""In which precision a constraint is met."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_single_at_least(forward: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a method that meets a constraint: half precision becomes float32, and autocast stays outside.

    A constraint holds as well as its field can say it: in bfloat16 a mean of zero is one of 1e-3. So the layer behind a
    network in half precision, or under autocast, computes *and returns* float32.
    """

    @functools.wraps(forward)
    def precise(*args: Any, **kwargs: Any) -> R:
        args, kwargs = _single(args), _single(kwargs)
        device = next((x.device.type for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), "cpu")
        if not torch.is_autocast_enabled(device):
            return forward(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return forward(*args, **kwargs)

    return precise


def _single(value: Any) -> Any:
    """Tensors in half precision as float32, also inside of sequences and mappings."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, list | tuple):
        return [_single(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _single(item) for key, item in value.items()}
    return value
