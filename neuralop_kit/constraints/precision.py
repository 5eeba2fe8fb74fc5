"""In which precision a constraint is met."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

P = ParamSpec("P")
R = TypeVar("R")


def in_single_at_least(forward: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a method that meets a constraint: half precision becomes float32, and autocast stays outside.

    A constraint holds as well as its field can say it: in bfloat16 a mean of zero is one of 1e-3. So the layer behind a
    network in half precision, or under autocast, computes *and returns* float32.
    """

    @functools.wraps(forward)
    def precise(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next((leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)), "cpu")
        args, kwargs = tree_map(_single, (args, kwargs))
        with torch.autocast(device, enabled=False):
            return forward(*args, **kwargs)

    return precise


def _single(leaf: Any) -> Any:
    is_half = isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16)
    return leaf.float() if is_half else leaf
