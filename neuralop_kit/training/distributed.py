"""The little that training needs to know about other processes; everything here is a no-op when there is only one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def process_group(*, timeout_seconds: float = 600.0) -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started; yields the device of this one.

    NCCL where there are GPUs, gloo elsewhere. Without ``torchrun`` it joins nothing, so that one script serves both.

    Args:
        timeout_seconds: a process whose partner has died raises after at most this long.

    >>> with process_group() as device:
    ...     model = torch.nn.Linear(2, 2).to(device)
    """
    on_gpu = torch.cuda.is_available()
    if "RANK" not in os.environ:
        yield torch.device("cuda" if on_gpu else "cpu")
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(seconds=timeout_seconds))
    try:
        yield device
        dist.barrier()
    finally:
        dist.destroy_process_group()


def is_distributed() -> bool:
    """Whether this process has joined others."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Number of this process; rank 0 is the only one that writes."""
    return dist.get_rank() if is_distributed() else 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum of a small tensor over all processes, the same bits on each of them."""
    if is_distributed():
        values = values.clone()
        dist.all_reduce(values)
    return values


def sum_numbers(values: Sequence[float], device: torch.device) -> list[float]:
    """Sums of numbers over all processes, in float64; ``device`` is where the backend works."""
    if not is_distributed():
        return list(values)
    return sum_over_ranks(torch.tensor(values, dtype=torch.float64, device=device)).tolist()


def min_number(value: float, device: torch.device) -> float:
    """Smallest of a number over all processes."""
    if not is_distributed():
        return value
    smallest = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
    return float(smallest)


def gather(value: Any) -> list[Any]:
    """``value`` of every process, in order of rank, on every process."""
    gathered: list[Any] = [None] * world_size()
    if is_distributed():
        dist.all_gather_object(gathered, value)
        return gathered
    return [value]


def share_buffers(model: nn.Module) -> None:
    """Give every process the buffers of rank 0, as DDP does before each training pass and nobody else before others."""
    if is_distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def barrier() -> None:
    """Wait for all processes."""
    if is_distributed():
        dist.barrier()
