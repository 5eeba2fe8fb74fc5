"""A problem so small that generating it takes milliseconds, and children that are killed while they do it."""

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.datasets import Parameter, Problem, Samples, generate, plan
from neuralop_kit.solvers import atomic

# Children come from a server that has imported everything once and runs no threads: each costs milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.datasets.tiny", "hypothesis", "neuralop_kit.datasets"])

SAMPLES, RESOLUTION = 13, (5, 7)
DIED = -signal.SIGKILL


class Tiny(Problem):
    """-Lap u = f on a torus, for one random plane wave f: the solution is f / |k|^2. Two targets, u and u_x."""

    name = "tiny"
    equation = "-Lap u = f"
    source = "by hand"
    domain = Domain.periodic((1.0, 2.0))
    input_names = ("force",)
    target_names = ("potential", "slope")
    units = {"force": "1/m2", "potential": "1", "slope": "1/m"}  # noqa: RUF012
    parameters = {"amplitude": Parameter(2.0, "1/m2", "of the force")}  # noqa: RUF012

    def __init__(self, *, delay: float = 0.0, failing: int | None = None, broken: str = "") -> None:
        self.delay = delay
        self.failing = failing
        self.broken = broken
        self.solved = 0

    def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
        time.sleep(self.delay)
        fields = torch.stack([self.wave(generator, shape) for generator in generators])
        converged = torch.ones(len(generators), dtype=torch.bool)
        for k in range(len(generators)):
            if self.solved + k == self.failing:
                if self.broken == "converged":
                    converged[k] = False
                elif self.broken == "exit":
                    os._exit(3)
                else:
                    fields[k, 1, 0, 0] = float(self.broken)
        self.solved += len(generators)
        return Samples(input=fields[:, :1], target=fields[:, 1:], converged=converged)

    def wave(self, generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        k = 2 * torch.pi * torch.randint(1, 3, (2,), generator=generator).double() / torch.tensor(self.domain.lengths)
        phase = 6.0 * torch.rand((), generator=generator, dtype=torch.float64)
        angle = (k[:, None, None] * self.domain.coordinates(shape, dtype=torch.float64)).sum(0) + phase
        squared = k.square().sum()
        return 2.0 * torch.stack([angle.sin(), angle.sin() / squared, k[0] * angle.cos() / squared])


@contextmanager
def plans(batch: int = 2, shard: int = 4) -> Iterator[None]:
    """Several shards and batches, although there are only a few samples."""
    before = plan.MAX_BATCH, plan.MAX_SHARD_SAMPLES
    plan.MAX_BATCH, plan.MAX_SHARD_SAMPLES = batch, shard
    try:
        yield
    finally:
        plan.MAX_BATCH, plan.MAX_SHARD_SAMPLES = before


def make(folder: Path, **changes) -> Path:
    settings = {"samples": SAMPLES, "resolution": RESOLUTION, "seed": 5}
    problem = changes.pop("problem", None) or Tiny()
    with plans():
        return generate(problem, folder, **{**settings, **changes})


def content(folder: Path) -> dict[str, str]:
    """Digest of every file by its path; the lock is no content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run_child(task, *arguments, timeout: float = 60) -> int:
    child = PROCESSES.Process(target=task, args=arguments)
    child.start()
    child.join(timeout)
    if child.exitcode is None:
        child.kill()
        child.join()
        raise AssertionError(f"a child did not end within {timeout} s")
    return child.exitcode


def generate_until(folder: Path, fatal: int, log: Path, problem: Problem | None = None) -> None:
    """Generate, and kill this process when it passes point number ``fatal``; note each sample that is safe."""
    passed = 0
    notes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def observer(point: str) -> None:
        nonlocal passed
        if point == "record written":
            os.write(notes, b".")
        if passed == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    atomic.observer = observer
    make(folder, problem=problem)


def generate_slowly(folder: Path, delay: float) -> None:
    make(folder, problem=Tiny(delay=delay))
