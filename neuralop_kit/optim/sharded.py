"""Parameters that are spread over processes (FSDP2, tensor parallelism): what both kinds of optimizers do with them.

Rules that take each weight by itself, or rows of weights, work on the parts that a process has; those that need a
weight, or all weights, as a whole say so when they are made.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError

ELEMENTWISE = (
    "Lion, PowerPropSGD, DeltaMomentum, DeltaGD, SPSA, or NVRM, MultiFrequency and PowerProp around torch's AdamW"
)


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, of which this process has a part."""
    return hasattr(tensor, "to_local")


def refuse_sharded(parameters: Iterable[Tensor], optimizer: str, reason: str, instead: str) -> None:
    """Raise an :class:`ArgumentError` if a parameter is a DTensor."""
    for parameter in parameters:
        if is_sharded(parameter):
            placements: Any = parameter.placements  # type: ignore[attr-defined]
            raise ArgumentError(
                f"expected plain tensors as parameters of {optimizer}, which {reason}, got a DTensor with placements "
                f"{placements}; {instead}"
            )


def shard_like(full: Tensor, parameter: Tensor) -> Tensor:
    """A tensor that every process has, spread as ``parameter`` is; nothing is sent."""
    if not is_sharded(parameter):
        return full
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return distribute_tensor(full, mesh, placements, src_data_rank=None)


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A result of products of DTensors, spread as ``other`` is."""
    if not is_sharded(tensor):
        return tensor
    mesh, placements = other.device_mesh, other.placements  # type: ignore[attr-defined]
    moved: Tensor = tensor.redistribute(mesh, placements)  # type: ignore[attr-defined]
    return moved


def summed_over_processes(tensor: Tensor) -> Tensor:
    """The sum over all processes; the tensor itself where there is one."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
