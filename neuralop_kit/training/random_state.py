"""Every random stream that training may touch, as tensors and plain numbers."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

RandomSource = torch.Generator | np.random.Generator


def capture(device: torch.device, generators: Sequence[RandomSource] = ()) -> dict[str, Any]:
    """State of torch's, python's and numpy's global streams, and of ``generators``.

    Args:
        device: its stream is included when it is a GPU.
        generators: streams of the user's own, torch or numpy.
    """
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        # As a tensor: the array itself would be refused by a safe load.
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "generators": [_state(source) for source in generators],
    }


def restore(state: dict[str, Any], device: torch.device, generators: Sequence[RandomSource] = ()) -> None:
    """Put every stream where :func:`capture` found it."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    for source, saved in zip(generators, state["generators"], strict=True):
        if isinstance(source, torch.Generator):
            source.set_state(saved)
        else:
            source.bit_generator.state = saved


def _state(source: RandomSource) -> Any:
    if isinstance(source, torch.Generator):
        return source.get_state()
    # Some bit generators keep their words in an array.
    return _plain(source.bit_generator.state)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
