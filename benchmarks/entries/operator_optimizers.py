"""Optimizers on operators: equal gradients, and equal time; as many learning rates for each, all losers shown."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import Setting, Study
from benchmarks.entry import Row
from neuralop_kit.datasets import PROBLEMS
from neuralop_kit.layers import SpectralConv
from neuralop_kit.models import FNO
from neuralop_kit.optim import M3, NVRM, SOAP, Lion, Muon, Sven
from neuralop_kit.optim.gram.control import FixedStep
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.pde import Burgers
from neuralop_kit.training import relative_l2

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """An operator to learn: how to draw pairs, and how to make the network."""

    name: str
    domain: Domain
    shape: tuple[int, ...]
    sample: Callable[[int, tuple[int, ...], int], Data]
    make: Callable[[Domain], nn.Module]


def burgers(count: int, shape: tuple[int, ...], seed: int) -> Data:
    """Initial velocity to velocity at t = 1, viscosity 0.02: steeper than the FNO paper's."""
    stepper = Burgers.fno(viscosity=0.02, dt=1.0, num_substeps=4 * shape[0])
    start = stepper.initial_condition(count, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return start.float(), stepper.step(start).float()


def darcy(count: int, shape: tuple[int, ...], seed: int) -> Data:
    """Permeability to pressure, each scaled to order 1."""
    pairs = PROBLEMS["darcy"].sample([torch.Generator().manual_seed(seed * 100_000 + i) for i in range(count)], shape)
    return (pairs.input.float() - 7.5) / 4.5, pairs.target.float() * 100


BURGERS = Task(
    "Burgers 1-D", Domain.periodic((1.0,)), (128,), burgers,
    lambda domain: FNO(1, 1, domain=domain, width=24, num_layers=3, modes=16),
)  # fmt: skip
DARCY = Task(
    "Darcy 2-D", PROBLEMS["darcy"].domain, (32, 32), darcy,
    lambda domain: FNO(1, 1, domain=domain, width=16, num_layers=3, modes=12),
)  # fmt: skip


def complex_apart(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups that tell complex weights from the others."""
    spectral = {id(m.weight) for m in model.modules() if isinstance(m, SpectralConv)}
    return [
        {"params": [p for p in model.parameters() if (id(p) in spectral) == kind], "complex_weights": kind}
        for kind in (False, True)
    ]


# How to make it, and the largest of its learning rates; the others are powers of 3 smaller.
OPTIMIZERS: dict[str, tuple[Callable[[nn.Module, float], torch.optim.Optimizer], float]] = {
    "AdamW": (lambda m, lr: torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=1e-4), 1e-1),
    "Lion": (lambda m, lr: Lion(m.parameters(), lr=lr, weight_decay=1e-3), 1e-2),
    "SOAP": (lambda m, lr: SOAP(complex_apart(m), lr=lr), 1e-1),
    "Muon": (lambda m, lr: Muon(complex_apart(m), lr=lr), 1e-1),
    "M3": (lambda m, lr: M3(complex_apart(m), lr=lr), 1e-4),
    "M3 without V": (lambda m, lr: M3(complex_apart(m), lr=lr, second_moment=False), 1e-1),
    "NVRM(AdamW)": (lambda m, lr: NVRM(torch.optim.AdamW(m.parameters(), lr=lr, weight_decay=1e-4), b=1e-3), 1e-1),
    "Sven": (lambda m, lr: Sven(m.parameters(), lr=lr, rtol=1e-3, control=FixedStep()), 3.0),
}


@dataclass(frozen=True)
class OptimizerSize:
    """How much data, how long, how many learning rates and seeds."""

    num_train: int = 256
    num_valid: int = 64
    num_test: int = 64
    batch_size: int = 32
    steps: int = 300
    num_rates: int = 6
    num_seeds: int = 3
    tasks: tuple[Task, ...] = (BURGERS, DARCY)


@torch.no_grad()
def error(model: nn.Module, data: Data, domain: Domain) -> float:
    """Mean relative L2; infinite where training has diverged."""
    value = relative_l2(model(data[0]), data[1], domain=domain).item()
    return value if value < math.inf else math.inf


def train(
    task: Task, name: str, lr: float, data: Data, *, steps: int, batch_size: int, seed: int
) -> tuple[nn.Module, float]:
    """A model after ``steps`` steps with a cosine schedule, and the CPU seconds of the steps alone."""
    torch.manual_seed(seed)
    model = task.make(task.domain)
    optimizer = OPTIMIZERS[name][0](model, lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: (1 + math.cos(math.pi * i / steps)) / 2)
    generator = torch.Generator().manual_seed(seed)
    began = time.process_time()
    for _ in range(steps):
        chosen = torch.randint(len(data[0]), (batch_size,), generator=generator)
        u, v = data[0][chosen], data[1][chosen]

        def rows(u: Tensor = u, v: Tensor = v) -> Tensor:
            return relative_l2(model(u), v, domain=task.domain, reduction="none").flatten()

        if getattr(optimizer, "step_kind", "gradient") == "residual":
            optimizer.step(rows)
        else:
            optimizer.zero_grad()
            rows().mean().backward()
            optimizer.step()
        schedule.step()
    seconds = time.process_time() - began
    getattr(optimizer, "eval", lambda: None)()  # NVRM: clean weights
    return model, seconds


def compare(size: OptimizerSize, setting: Setting) -> Iterator[Row]:
    """Rows: one per task, protocol and optimizer; the learning rate is chosen on validation data and another seed."""
    for task in size.tasks:
        data, valid, test = (
            task.sample(count, task.shape, setting.seed + i)
            for i, count in enumerate((size.num_train, size.num_valid, size.num_test), start=1)
        )
        options = {"batch_size": size.batch_size}
        # Seconds per step: the best of three rounds, whatever else the machine does.
        pace = dict.fromkeys(OPTIMIZERS, math.inf)
        for _ in range(3):
            for name, (_, largest) in OPTIMIZERS.items():
                _, seconds = train(task, name, largest / 9, data, steps=40, seed=1000, **options)
                pace[name] = min(pace[name], seconds / 40)
        for protocol in ("equal gradients", "equal time"):
            for name, (_, largest) in OPTIMIZERS.items():
                steps = (
                    size.steps
                    if protocol == "equal gradients"
                    else max(int(size.steps * pace["AdamW"] / pace[name]), 1)
                )
                rates = [largest / 3**i for i in range(size.num_rates)]
                scores = [
                    error(train(task, name, lr, data, steps=steps, seed=1000, **options)[0], valid, task.domain)
                    for lr in rates
                ]
                best = min(range(len(rates)), key=lambda i: scores[i])
                errors, times = [], []
                for seed in range(setting.seed, setting.seed + size.num_seeds):
                    model, seconds = train(task, name, rates[best], data, steps=steps, seed=seed, **options)
                    errors.append(error(model, test, task.domain))
                    times.append(seconds)
                yield {
                    "task": task.name,
                    "protocol": protocol,
                    "optimizer": name,
                    "learning rate": rates[best],
                    "at the edge": "yes" if best in (0, len(rates) - 1) else "no",
                    "steps": steps,
                    "CPU seconds": min(times),
                    "error": statistics.mean(errors),
                    "half width 95 %": _half_width(errors),
                }


def _half_width(values: list[float]) -> float:
    """Of Student's interval for the mean."""
    from scipy.stats import t

    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.inf
    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def study(name: str, task: Task) -> Study:
    """One operator: a study of its own, so that a run that is cut off has not lost the other."""
    return Study(
        name=f"optim/operators/{name}",
        run=compare,
        columns=(
            "task",
            "protocol",
            "optimizer",
            "learning rate",
            "at the edge",
            "steps",
            "CPU seconds",
            "error",
            "half width 95 %",
        ),
        full=OptimizerSize(tasks=(task,)),
        caption=(
            "FNO, 256 training samples, batches of 32, cosine schedule. Six learning rates a factor of 3 apart for "
            "every optimizer, chosen on validation data with a seed of its own; test error (relative L2) over three "
            "other seeds. Equal gradients: 300 steps for all. Equal time: as many steps as fit into the CPU time of "
            "300 of AdamW."
        ),
    )


# A quarter of an hour and half an hour on one core.
OPERATOR_OPTIMIZERS = [study("burgers", BURGERS), study("darcy", DARCY)]
