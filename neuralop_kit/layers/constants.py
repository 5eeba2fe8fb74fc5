"""Constants that depend on sizes alone: made once, in float64, and safe inside compilers and tracers."""

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_NUM_KEPT = 128


def constant(rule: Callable[..., NDArray[Any]]) -> Callable[..., Tensor]:
    """Decorator: a function of sizes that returns an array returns a tensor instead, with two more arguments.

        matrix(*sizes, dtype, device)

    Sizes are numbers, tuples of them, or frozen dataclasses.

    The last 128 arrays are kept, for each rule, outside of every module: copying, saving and moving modules does not
    see them. Under ``torch.compile`` and ``torch.export`` the tensor becomes part of the graph, so the sizes must be
    known then: pass lengths through ``operator.index`` first. The tensor is shared: do not write into it.

    >>> ramp = constant(lambda num_points: np.arange(num_points) / num_points)
    >>> ramp(4, torch.float32, torch.device("cpu"))
    tensor([0.0000, 0.2500, 0.5000, 0.7500])
    """

    @lru_cache(maxsize=_NUM_KEPT)
    def array(sizes: tuple[Hashable, ...], dtype: torch.dtype) -> NDArray[Any]:
        # numpy knows no fake tensors, no inference mode and no tracing: what is kept is always the real thing.
        return np.ascontiguousarray(rule(*sizes), dtype=str(dtype).removeprefix("torch."))

    @lru_cache(maxsize=_NUM_KEPT)
    def on_device(sizes: tuple[Hashable, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        with torch.inference_mode(False):
            return torch.from_numpy(array(sizes, dtype)).to(device)

    def tensor(*arguments: Any) -> Tensor:
        *sizes, dtype, device = arguments
        if dtype == torch.bfloat16:
            # numpy does not know it.
            return tensor(*sizes, torch.float32, device).to(dtype)
        if device.type != "cpu":
            return on_device(tuple(sizes), dtype, device)
        # A new tensor on the same memory costs nothing, and belongs to whichever mode or tracer asks for it.
        return torch.from_numpy(array(tuple(sizes), dtype))

    in_graph: Callable[..., Tensor] = torch.compiler.allow_in_graph(tensor)
    return in_graph
