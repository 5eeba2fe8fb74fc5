"""Logarithms of quadrature weights, axis by axis, safe inside compilers."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.layers.constants import constant
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.nodes import PLACEMENTS
from neuralop_kit.solvers.sphere import SphereDomain

_EQUAL = ("left", "cell")


def log_weights(domain: Domain, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """``log(w / largest w)`` of all points, ``(1, *shape)``; ``None`` where all points weigh the same.

    >>> log_weights(Domain.box((1.0,)), (3,), torch.float64, torch.device("cpu")).exp()
    tensor([[0.5000, 1.0000, 0.5000]], dtype=torch.float64)
    """
    total = None
    for index, n in enumerate(shape):
        line = axis_log_weights(domain, index, n, dtype, device)
        if line is not None:
            term = line.view(-1, *[1] * (len(shape) - 1 - index))
            total = term if total is None else total + term
    return None if total is None else total.expand(1, *shape)


def axis_log_weights(
    domain: Domain, index: int, num_points: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """The same along one axis, ``(num_points,)``."""
    if isinstance(domain, SphereDomain):
        return _of_latitudes(domain.grid, num_points, dtype, device) if index == 0 else None
    nodes = domain.axes[index].nodes
    return None if nodes in _EQUAL else _of_nodes(nodes, num_points, dtype, device)


@constant
def _of_nodes(nodes: str, num_points: int) -> NDArray[Any]:
    weights = PLACEMENTS[nodes].weights(1.0, num_points).numpy()
    return np.asarray(np.log(weights / weights.max()))


@constant
def _of_latitudes(grid: str, num_points: int) -> NDArray[Any]:
    weights = Domain.sphere(grid=grid).axis_weights(0, num_points).numpy()
    return np.asarray(np.log(weights / weights.max()))
