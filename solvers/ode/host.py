"""Small arrays on their way between the host, where step sizes are chosen, and the device of the state."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def read(x: Tensor) -> NDArray[np.float64]:
    """Values of a small tensor in float64; waits for the device."""
    x = x.detach()
    try:
        # There is no bfloat16 in numpy, and no float64 on some devices.
        return x.cpu().double().numpy().copy()
    except RuntimeError:
        # Under a transform of torch.func a tensor has no storage of its own, yet its values can be listed.
        return np.asarray(x.tolist(), dtype=np.float64)


def send(values: NDArray[Any], like: Tensor) -> Tensor:
    """Numbers in the dtype and on the device of a state."""
    return torch.from_numpy(values).to(device=like.device, dtype=like.dtype, copy=True)


def send_flags(values: NDArray[np.bool_], like: Tensor) -> Tensor:
    """Flags on the device of a state."""
    return torch.from_numpy(values).to(like.device)


def send_indices(values: NDArray[np.int64], like: Tensor) -> Tensor:
    """Indices on the device of a state."""
    return torch.from_numpy(values).to(like.device)
