"""Classify with a neural ODE that learns to be cheap: circles around a disc, and handwritten digits.

    python examples/neural_ode_classification.py
    python examples/neural_ode_classification.py --data digits --steps 800 --tolerance 1e-7

A point flows along a learned field from t = 0 to 1 and is classified by where it ends. The same network is trained
without and with each regularizer, from the same weights on the same batches; the table shows how many evaluations of
the field a solve takes afterwards. Leaves table and picture in ``results/neural_ode_classification``.
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from _command_line import run_example, shorter
from _figures import save
from _tables import markdown, save_table
from matplotlib import pyplot as plt
from torch import Tensor, nn
from tqdm import trange

from neuralop_kit.neural_ode import (
    ErrorRegularizer,
    ExponentialDecay,
    LocalRegularizer,
    NeuralODE,
    StiffnessRegularizer,
    end_points,
)


@dataclass(frozen=True)
class Settings:
    """What to classify, for how long.

    Args:
        data: circles around a disc, scikit-learn's digits, or both in turn.
        steps: of the optimizer.
        batch_size: samples per step.
        learning_rate: of Adam.
        tolerance: of the solver, relative and absolute.
        error_weight: of the error regularizer at the beginning; a tenth at the end. It goes with the tolerance.
        local_weight: the same for the local regularizer.
        stiffness_weight: of the stiffness regularizer.
        seed: of weights and batches.
        out: where results go.
        quick: half a minute on one core.
    """

    data: Literal["circles", "digits", "both"] = "both"
    steps: int = 400
    batch_size: int = 128
    learning_rate: float = 5e-3
    tolerance: float = 1e-6
    error_weight: float = 10.0
    local_weight: float = 5.0
    stiffness_weight: float = 0.1
    seed: int = 0
    out: Path = Path("results/neural_ode_classification")
    quick: bool = False


class Field(nn.Module):
    """Two layers that see the time."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(channels + 1, width), nn.Linear(width + 1, channels)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        """du/dt."""
        clock = t.expand(len(u), 1)
        hidden = torch.tanh(self.first(torch.cat([u, clock], dim=1)))
        return self.second(torch.cat([hidden, clock], dim=1))


def circles(seed: int) -> tuple[Tensor, Tensor]:
    """Points in a disc of radius 1 and in a ring from 1.5 to 2.5, with a third, empty component as room to move."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(1400) % 2
    radius = 1.5 * labels + torch.rand(1400, generator=generator)
    angle = 2 * math.pi * torch.rand(1400, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin(), 0 * angle], dim=1), labels


def digits(seed: int) -> tuple[Tensor, Tensor]:
    """1797 images of 8 x 8 points from 0 to 1."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(data.data).float()[order] / 16, torch.from_numpy(data.target)[order]


DATA = {"circles": circles, "digits": digits}


def train(name: str, kind: str, settings: Settings) -> dict[str, Any]:
    """One run: its row of the table, and its field."""
    inputs, labels = DATA[name](settings.seed)
    num_train = len(inputs) - 300
    torch.manual_seed(settings.seed)
    field, head = Field(inputs.shape[1], 32), nn.Linear(inputs.shape[1], int(labels.max()) + 1)
    tolerance = {"rtol": settings.tolerance, "atol": settings.tolerance}
    node = NeuralODE(field, **tolerance, control="joint", raise_on_failure=True)
    optimizer = torch.optim.Adam([*field.parameters(), *head.parameters()], lr=settings.learning_rate)
    local = LocalRegularizer(ExponentialDecay(settings.local_weight, settings.local_weight / 10))
    penalties = {
        "error": ErrorRegularizer(ExponentialDecay(settings.error_weight, settings.error_weight / 10)),
        "stiffness": StiffnessRegularizer(settings.stiffness_weight),
    }
    generator, t = torch.Generator().manual_seed(settings.seed), end_points(like=inputs)
    began = time.perf_counter()
    for step in trange(settings.steps, desc=f"{name}, {kind}", leave=False):
        batch = torch.randint(num_train, (settings.batch_size,), generator=generator)
        progress = step / settings.steps
        if kind == "local":
            solution, penalty = local.solve(node, inputs[batch], t, progress=progress)
        else:
            solution = node(inputs[batch], t)
            penalty = penalties[kind](solution.stats, progress=progress) if kind in penalties else 0.0
        loss = nn.functional.cross_entropy(head(solution.ys[-1]), labels[batch]) + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - began
    with torch.no_grad():
        solution = node(inputs[num_train:], t)
        accuracy = (head(solution.ys[-1]).argmax(dim=1) == labels[num_train:]).double().mean().item()
    row = {
        "data": name, "regularizer": kind, "test accuracy in %": 100 * accuracy,
        "evaluations": int(solution.stats.num_evaluations[0]), "training seconds": seconds,
    }  # fmt: skip
    return {"row": row, "node": node, "inputs": inputs[num_train:], "labels": labels[num_train:]}


@torch.no_grad()
def draw(path: Path, runs: list[dict[str, Any]]) -> None:
    """The two first components of 60 test points on their way."""
    figure, axes = plt.subplots(1, len(runs), figsize=(3.6 * len(runs), 3.6), squeeze=False, layout="constrained")
    for axis, run in zip(axes[0], runs, strict=True):
        paths = run["node"](run["inputs"][:60], torch.linspace(0, 1, 60)).ys
        for k, label in enumerate(run["labels"][:60].tolist()):
            axis.plot(paths[:, k, 0], paths[:, k, 1], lw=0.8, color=f"C{label}")
            axis.plot(*paths[-1, k, :2], ".", color=f"C{label}")
        row = run["row"]
        axis.set(title=f"{row['regularizer']}: {row['evaluations']} evaluations", xticks=[], yticks=[])
    save(figure, path)


def main(settings: Settings) -> None:
    """Train, print, save, draw."""
    torch.set_num_threads(1)
    if settings.quick:
        settings = shorter(settings, steps=120)
    runs = []
    for name in DATA if settings.data == "both" else [settings.data]:
        for kind in ("none", "error", "local", "stiffness"):
            runs.append(train(name, kind, settings))
            print(*(f"{key} {value}" for key, value in runs[-1]["row"].items()), sep=", ")
    rows = [run["row"] for run in runs]
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "paths.png", [run for run in runs if run["row"]["data"] == rows[0]["data"]])
    print(f"\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
