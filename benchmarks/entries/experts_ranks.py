"""Experts shared by processes: what a step costs, and that its loss is the same."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from benchmarks import Setting, Study
from benchmarks.entries.experts import experts, space_time
from benchmarks.entry import Row
from neuralop_kit.constraints import ExpertParallel


@dataclass(frozen=True)
class RanksSize:
    """Processes that share four experts."""

    world_sizes: tuple[int, ...] = (1, 2, 4)
    points: int = 48
    times: int = 41
    items: int = 4
    repetitions: int = 5


def timed_rank(rank: int, world_size: int, size: RanksSize, folder: str) -> None:
    """Solve and differentiate a few times in one of the processes; the first leaves times and loss in a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    domain = space_time(1.0)
    t, x = domain.coordinates((size.times, size.points), dtype=torch.float64)
    functions = [torch.exp(-(k % 4 + 1) * x / (0.2 + t)) * torch.cos(k // 4 * torch.pi * x) for k in range(8)]
    basis = torch.stack(functions).expand(size.items, -1, -1, -1).clone().requires_grad_()
    ranks = ExpertParallel(init_device_mesh("cpu", (world_size,)))
    # Far from the inflow these functions are nearly dependent: what rounding does to them must not count here.
    layer = experts("separate", domain, collocation=size.points * size.times, ridge=1e-4, ranks=ranks)
    # Near zero the retardation has a kink, and there are several minima: rounding would choose between them.
    start = torch.linspace(0.1, 0.2, size.items, dtype=torch.float64)
    wall, processor = [], []
    for _ in range(size.repetitions):
        dist.barrier()
        began, busy = time.perf_counter(), time.process_time()
        loss = layer.solve(basis, targets={"initial": start}).residual().square().mean()
        loss.backward()
        wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - busy)
    if rank == 0:
        torch.save((statistics.median(wall), statistics.median(processor), loss.item()), f"{folder}/result")
    dist.barrier()
    dist.destroy_process_group()


def scale(size: RanksSize, setting: Setting) -> Iterator[Row]:
    """One row per number of processes."""
    first: tuple[float, float, float] | None = None
    for world_size in size.world_sizes:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(timed_rank, (world_size, size, folder), nprocs=world_size)
            wall, processor, loss = torch.load(Path(folder) / "result")
        first = first or (wall, processor, loss)
        yield {
            "processes": world_size,
            "ms per step": 1e3 * wall,
            "speed-up": first[0] / wall,
            "CPU ms of the first": 1e3 * processor,
            "relative change of loss": abs(loss / first[2] - 1),
        }


RANKS = Study(
    name="constraints/experts_ranks",
    run=scale,
    columns=("processes", "ms per step", "speed-up", "CPU ms of the first", "relative change of loss"),
    quick=RanksSize(),
    full=RanksSize((1, 2), points=160, times=121, items=16),
    check=lambda rows: [
        f"{row['processes']} processes change the loss by {row['relative change of loss']:.1e}"
        for row in rows
        if row["relative change of loss"] > 1e-12
    ],
    caption=(
        "Four experts, 4 items on 48 x 41 points (full: 16 on 160 x 121), solved and differentiated on several gloo "
        "processes of one thread each. More processes than free cores cannot be faster: compare the processor time of "
        "the first."
    ),
)
