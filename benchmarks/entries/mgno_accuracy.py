"""MgNO and FNO side by side on Darcy flow: equal data, epochs and recipe, fewer parameters for MgNO."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks import Setting, Study
from benchmarks.entry import Row
from neuralop_kit.datasets import PROBLEMS
from neuralop_kit.models import FNO, MgNO
from neuralop_kit.training import ChannelStatistics, Normalized, PerStep, RelativeL2, Trainer, relative_l2

DISTRIBUTIONS = {"FNO's": "darcy", "rough": "darcy-rough"}
PROMISED = 0.6


@dataclass(frozen=True)
class AccuracySize:
    """How much data, how long, how large."""

    resolution: int
    num_train: int
    num_test: int
    num_epochs: int
    width_of_fno: int
    width_of_mgno: int
    levels: int
    num_seeds: int = 1
    batch_size: int = 10
    learning_rate: float = 2e-3


def sample(name: str, count: int, resolution: int, *, seed: int, device: torch.device) -> TensorDataset:
    """Coefficients and pressures; one seed, the same functions at every resolution."""
    # One generator per sample: how many numbers a sample takes depends on the grid.
    generators = [torch.Generator().manual_seed(seed * 1_000_000 + i) for i in range(count)]
    parts = [
        PROBLEMS[name].sample(generators[start : start + 32], (resolution, resolution)) for start in range(0, count, 32)
    ]
    fields = (torch.cat([part.input for part in parts]), torch.cat([part.target for part in parts]))
    return TensorDataset(*(field.float().to(device) for field in fields))


def train(network: nn.Module, data: TensorDataset, name: str, size: AccuracySize, *, seed: int) -> nn.Module:
    """Adam, one cycle, relative L2: the same for both."""
    inputs, targets = data.tensors
    model = Normalized(
        network, input_statistics=ChannelStatistics.of(inputs), target_statistics=ChannelStatistics.of(targets)
    ).to(inputs.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=size.learning_rate)
    num_steps = size.num_epochs * -(-len(data) // size.batch_size)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=size.learning_rate, total_steps=num_steps)
    loss = RelativeL2(PROBLEMS[name].domain)
    trainer = Trainer(model, optimizer, loss=loss, scheduler=PerStep(cycle), progress=False)
    trainer.fit(data, epochs=size.num_epochs, batch_size=size.batch_size, seed=seed)
    return model


@torch.no_grad()
def error(model: Callable[[Tensor], Tensor], data: TensorDataset, name: str) -> float:
    """Mean relative L2 error."""
    pairs = zip(*(tensor.split(20) for tensor in data.tensors), strict=True)
    domain = PROBLEMS[name].domain
    return sum(relative_l2(model(u), v, domain=domain, reduction="sum").item() for u, v in pairs) / len(data)


def compare(size: AccuracySize, setting: Setting) -> Iterator[Row]:
    """Rows: one per distribution, seed and model."""
    n = size.resolution
    for label, name in DISTRIBUTIONS.items():
        domain = PROBLEMS[name].domain
        tests = [
            sample(name, size.num_test, resolution, seed=10_000 + setting.seed, device=setting.device)
            for resolution in (n, 2 * n)
        ]
        for seed in range(setting.seed, setting.seed + size.num_seeds):
            data = sample(name, size.num_train, n, seed=seed, device=setting.device)
            for kind in ("FNO", "MgNO"):
                torch.manual_seed(seed)
                network: nn.Module = (
                    FNO(1, 1, domain=domain, width=size.width_of_fno, num_layers=4, modes=16)
                    if kind == "FNO"
                    else MgNO(1, 1, domain=domain, width=size.width_of_mgno, num_layers=4, levels=size.levels)
                )
                began = time.perf_counter()
                model = train(network, data, name, size, seed=seed)
                seconds = time.perf_counter() - began
                yield {
                    "distribution": label,
                    "seed": seed,
                    "model": kind,
                    "parameters": sum(p.numel() for p in model.parameters()),
                    "epochs": size.num_epochs,
                    "training seconds": seconds,
                    "error where trained": error(model, tests[0], name),
                    "error at twice that": error(model, tests[1], name),
                }


def broken_promises(rows: Sequence[Row]) -> list[str]:
    """MgNO has at most 0.6 of FNO's error where both were trained, with at most as many parameters."""
    problems = []
    runs = {(row["distribution"], row["seed"], row["model"]): row for row in rows}
    for (label, seed, kind), ours in runs.items():
        if kind != "MgNO":
            continue
        peer = runs[label, seed, "FNO"]
        ratio = float(ours["error where trained"] or 0) / float(peer["error where trained"] or 1)
        if ratio > PROMISED:
            problems.append(f"{label} distribution, seed {seed}: {ratio:.2f} of FNO's error, promised {PROMISED}")
        if int(ours["parameters"] or 0) > int(peer["parameters"] or 0):
            problems.append(f"{label} distribution: MgNO has more parameters than FNO")
    return problems


ACCURACY = Study(
    name="models/mgno_accuracy",
    run=compare,
    columns=(
        "distribution",
        "seed",
        "model",
        "parameters",
        "epochs",
        "training seconds",
        "error where trained",
        "error at twice that",
    ),
    full=AccuracySize(
        resolution=64, num_train=800, num_test=200, num_epochs=30, width_of_fno=32, width_of_mgno=16, levels=5
    ),
    check=broken_promises,
    caption=(
        "Darcy flow through two materials, 800 samples at 64 x 64 cells, the same epochs and recipe for both; mean "
        "relative L2 error on 200 unseen functions at the training resolution and, unseen, at 128 x 128."
    ),
)
