"""Optimizers that reach the same loss do not find the same solution: what kind does each one find?

    python examples/optimizer_character.py
    python examples/optimizer_character.py --optimizers adam lion gauss_newton --steps 2000

A network 1-64-64-1 learns three tones at once, and each optimizer stops at the same mean squared error. There the
solutions are compared: curvature, rank, sparsity, error by frequency, samples that pull apart. Then all learn a
second task, the same tones shifted, up to the same error again, and show what they forget of the first. Learning
rates are the best of those tried, the same number for every optimizer. Leaves a table and a picture.

The questions are those of Pascanu et al. (2025), "Optimizers qualitatively alter solutions". One seed tells little;
give several.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _command_line import run_example, shorter
from _figures import save
from _tables import markdown, save_table
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator
from torch import Tensor, nn
from tqdm import tqdm

from neuralop_kit.optim import M3, NVRM, SOAP, DeltaMomentum, GaussNewton, Lion, Muon, PowerPropSGD, Sven
from neuralop_kit.optim.diagnostics import (
    effective_rank,
    forgetting,
    frequency_errors,
    opposing_signals,
    sharpness,
    sparsity,
)  # fmt: skip

Make = Callable[[Any, float], torch.optim.Optimizer]
# How to make it, and the largest of its learning rates; the others are 3, 9 and 27 times smaller.
OPTIMIZERS: dict[str, tuple[Make, float]] = {
    "sgd": (lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9), 0.3),
    "delta_momentum": (lambda p, lr: DeltaMomentum(p, lr=lr), 0.3),
    "power_prop": (lambda p, lr: PowerPropSGD(p, lr=lr, alpha=1.5), 1.0),
    "adam": (lambda p, lr: torch.optim.Adam(p, lr=lr), 3e-2),
    "nvrm_adam": (lambda p, lr: NVRM(torch.optim.Adam(p, lr=lr), b=0.003), 3e-2),
    "lion": (lambda p, lr: Lion(p, lr=lr), 1e-2),
    "muon": (lambda p, lr: Muon(p, lr=lr), 1e-1),
    "m3": (lambda p, lr: M3(p, lr=lr), 1e-2),
    "soap": (lambda p, lr: SOAP(p, lr=lr), 3e-2),
    "sven": (lambda p, lr: Sven(p, lr=lr, rtol=1e-3), 1.0),
    "gauss_newton": (lambda p, lr: GaussNewton(p, lr=lr), 1.0),
}
TONES, NUM_POINTS, NUM_RATES = (1, 4, 8), 128, 4


@dataclass(frozen=True)
class Settings:
    """What to compare, and for how long.

    Args:
        optimizers: names, or all.
        error: mean squared error at which everybody stops, on either task.
        steps: at most so many per task; who does not arrive is marked.
        seeds: of the weights.
        out: where the results go.
        quick: three optimizers, one seed.
    """

    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    error: float = 1e-2
    steps: int = 3000
    seeds: tuple[int, ...] = (0,)
    out: Path = Path("results/optimizer_character")
    quick: bool = False


def task(shift: float) -> tuple[Tensor, Tensor]:
    """Points and values ``(num_points, 1)`` of ``1/3 sum_k sin(2 pi k x + shift k)``."""
    x = torch.arange(NUM_POINTS, dtype=torch.float64)[:, None] / NUM_POINTS
    return x, sum((torch.sin(2 * math.pi * k * x + shift * k) for k in TONES), torch.zeros_like(x)) / 3


def network(seed: int) -> nn.Module:
    """Layers wide enough to learn both tasks; the first one is scaled so that it can reach the highest tone."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)).double()
    with torch.no_grad():
        model[0].weight.mul_(20)
        model[0].bias.copy_(-model[0].weight[:, 0] * torch.rand(64, dtype=torch.float64))
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: tuple[Tensor, Tensor], settings: Settings) -> int:
    """Steps until the error is reached; ``settings.steps`` if it is not."""
    x, y = data
    switch(optimizer, "train")
    steps = 0
    while steps < settings.steps:
        loss = (model(x) - y).square().mean()
        if not settings.error < loss.item() < math.inf:
            break
        if getattr(optimizer, "step_kind", "gradient") == "residual":
            optimizer.step(lambda: {"data": (model(x) - y).squeeze(1)})  # type: ignore[arg-type]
        else:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        steps += 1
    switch(optimizer, "eval")
    return steps


def switch(optimizer: torch.optim.Optimizer, mode: str) -> None:
    """Noisy weights for training, clean ones for measuring, where an optimizer tells them apart."""
    getattr(optimizer, mode, lambda: None)()


def mean_squared_error(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Infinite where training has diverged."""
    with torch.no_grad():
        return mean_square(model(data[0]) - data[1])


def best_rate(name: str, settings: Settings) -> float:
    """The learning rate with which task A is learned in the fewest steps, or else best; of as many as everybody has."""
    make, largest = OPTIMIZERS[name]
    results: list[tuple[int, float, float]] = []
    for lr in (largest / 3**i for i in range(NUM_RATES)):
        model = network(seed=1000)
        steps = train(model, make(model.parameters(), lr), task(0.0), settings)
        error = mean_squared_error(model, task(0.0))
        results.append((steps if error <= settings.error else settings.steps, error, lr))
    return min(results)[-1]


def character(name: str, lr: float, seed: int, settings: Settings) -> tuple[dict[str, Any], Tensor]:
    """One row of the table, and the solution of task A."""
    model, (x, y), (_, other) = network(seed), task(0.0), task(1.3)
    weights = list(model.parameters())
    optimizer = OPTIMIZERS[name][0](model.parameters(), lr)
    began = time.perf_counter()
    steps = train(model, optimizer, (x, y), settings)
    seconds = time.perf_counter() - began

    def losses() -> Tensor:
        return (model(x) - y).square().squeeze(1)

    reached = mean_squared_error(model, (x, y))
    largest, _ = sharpness(lambda: losses().mean(), weights)
    with torch.no_grad():
        prediction, hidden = model(x), model[:4](x)
        by_tone = frequency_errors(prediction.T[:, None], y.T[:, None])
        before = losses()
    rank = effective_rank(hidden - hidden.mean(dim=0))
    sparse = sparsity([w for w in weights if w.ndim == 2])
    # One more step, to see who gains and who loses.
    train(model, optimizer, (x, y), replace(settings, steps=1, error=0.0))
    signals = opposing_signals(losses, weights, before, fraction=0.1)
    again = train(model, optimizer, (x, other), settings)
    row = {
        "optimizer": name, "learning rate": lr, "seed": seed, "steps": steps,
        "ms per step": 1000 * seconds / max(steps, 1),
        "error": reached, "sharpness": largest, "rank of features": rank, "small weights": sparse,
        **{f"error of tone {k}": by_tone[k].item() for k in TONES},
        "opposing cosine": signals.cosine, "steps for B": again,
        "forgetting of A": forgetting(reached, mean_squared_error(model, (x, y))),
    }  # fmt: skip
    return row, prediction.squeeze(1)


def draw(path: Path, rows: list[dict[str, Any]], solutions: dict[str, Tensor], *, error: float) -> None:
    """The solutions' errors in space, and the columns as points; hollow ones did not reach the common error."""
    names = [name for name, solution in solutions.items() if mean_square(solution) < math.inf]
    figure, axes = plt.subplots(1, 5, figsize=(18, 0.3 * len(names) + 2.2), layout="constrained")
    x, y = task(0.0)
    for index, name in enumerate(names):
        axes[0].plot(x.squeeze(1), (solutions[name] - y.squeeze(1)) * 2 - index, linewidth=1)
    axes[0].set(title="2 x error of the solution", yticks=[-i for i in range(len(names))], yticklabels=names)
    axes[0].set(ylim=(-len(names) + 0.3, 0.7), xlabel="x")
    columns = ("sharpness", "rank of features", f"error of tone {TONES[-1]}", "forgetting of A")
    for axis, column in zip(axes[1:], columns, strict=True):
        for row in rows:
            if row["optimizer"] in names and row["error"] < math.inf:
                place = names.index(row["optimizer"])
                fill = "none" if row["error"] > error else f"C{place % 10}"
                axis.plot(row[column], -place, "o", color=f"C{place % 10}", markerfacecolor=fill)
        axis.set(title=column, yticks=[-i for i in range(len(names))], yticklabels=[], xscale="log")
        axis.set(ylim=axes[0].get_ylim())
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.grid(alpha=0.3)
    save(figure, path)


def mean_square(solution: Tensor) -> float:
    """Infinite for what training has blown up."""
    value = float(solution.square().mean())
    return value if value < math.inf else math.inf


def main(settings: Settings) -> None:
    """Find rates, train, compare, draw."""
    unknown = set(settings.optimizers) - set(OPTIMIZERS)
    if unknown:
        raise SystemExit(f"expected optimizers among {', '.join(OPTIMIZERS)}, got {', '.join(sorted(unknown))}")
    if settings.quick:
        settings = shorter(settings, optimizers=("adam", "muon", "gauss_newton"), seeds=(0,), steps=600)
    rows: list[dict[str, Any]] = []
    solutions: dict[str, Tensor] = {}
    for name in tqdm(settings.optimizers, leave=False):
        lr = best_rate(name, settings)
        for seed in settings.seeds:
            row, solution = character(name, lr, seed, settings)
            rows.append(row)
            solutions.setdefault(name, solution)
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "character.png", rows, solutions, error=settings.error)
    print(f"\n{markdown(rows)}\n")
    late = sorted({row["optimizer"] for row in rows if row["error"] > settings.error})
    if late:
        print(f"Not at the common error after {settings.steps:,} steps, so not comparable: {', '.join(late)}")
    print(f"Table and picture are in {settings.out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
