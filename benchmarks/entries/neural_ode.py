"""Neural ODEs with and without regularizers: evaluations per solve, quality, and time of training."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import Setting, Study
from benchmarks.entry import Row
from neuralop_kit.neural_ode import (
    RNODE,
    Autonomous,
    ErrorRegularizer,
    ExponentialDecay,
    LatentODE,
    LocalRegularizer,
    NeuralODE,
    RecurrentEncoder,
    Steer,
    StiffnessRegularizer,
    TayNODE,
    end_points,
    masked_mean_square,
    negative_evidence,
)
from neuralop_kit.neural_ode.regularizers import StatisticsRegularizer
from neuralop_kit.solvers.ode import Solution

# What a training step asks of a node: the solution from a state at times, and the penalty beside the loss.
Way = Callable[[NeuralODE, Tensor, Tensor, float, torch.Generator], tuple[Solution, Tensor | float]]


def vanilla(node: NeuralODE, u0: Tensor, t: Tensor, *others: Any) -> tuple[Solution, float]:
    """No penalty."""
    return node(u0, t), 0.0


def measured(regularizer: StatisticsRegularizer) -> Way:
    """A penalty on what the solver measured."""

    def way(node: NeuralODE, u0: Tensor, t: Tensor, progress: float, generator: torch.Generator) -> Any:
        solution = node(u0, t)
        return solution, regularizer(solution.stats, progress=progress)

    return way


def solved(regularizer: LocalRegularizer | TayNODE | RNODE) -> Way:
    """A penalty that needs a solve of its own kind."""

    return lambda node, u0, t, progress, generator: regularizer.solve(
        node, u0, t, progress=progress, generator=generator
    )


def steered(steer: Steer) -> Way:
    """Random end times."""
    return lambda node, u0, t, progress, generator: (node(u0, steer(t, generator=generator)), 0.0)


def decay(weight: float) -> ExponentialDecay:
    """From a weight to a tenth of it."""
    return ExponentialDecay(weight, weight / 10)


def solver_heuristics(*, error: float, local: float, stiffness: float) -> dict[str, Way]:
    """Ours, beside a node without any; weights at the beginning."""
    return {
        "vanilla": vanilla,
        "error": measured(ErrorRegularizer(decay(error))),
        "local": solved(LocalRegularizer(decay(local))),
        "stiffness": measured(StiffnessRegularizer(stiffness)),
    }


@dataclass(frozen=True)
class StudySize:
    """How much data, how long, and which ways to train."""

    num_train: int
    num_test: int
    num_steps: int
    batch_size: int
    tolerance: float
    learning_rate: float
    ways: Mapping[str, Way]
    num_seeds: int = 3


class Regularized(nn.Module):
    """A neural ODE that in training leaves its penalty in ``penalty``, and always what it cost in ``evaluations``."""

    def __init__(self, field: nn.Module, way: Way, size: StudySize, *, seed: int) -> None:
        super().__init__()
        self.node = NeuralODE(field, rtol=size.tolerance, atol=size.tolerance, control="joint", raise_on_failure=True)
        self.way, self.progress = way, 0.0
        self.generator = torch.Generator().manual_seed(seed)
        self.penalty: Tensor | float = 0.0
        self.evaluations = 0

    def forward(self, u0: Tensor, t: Tensor) -> Solution:
        """The solution; in training the penalty besides."""
        way = self.way if self.training else vanilla
        solution, self.penalty = way(self.node, u0, t, self.progress, self.generator)
        self.evaluations = int(solution.stats.num_evaluations[0])
        return solution


class Task(NamedTuple):
    """A model, its loss on the samples with given indices, and its quality on the test set."""

    model: nn.Module
    node: Regularized
    loss: Callable[[Tensor, float], Tensor]
    quality: Callable[[], float]


def train(task: Task, size: StudySize, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> float:
    """Seconds of processor time, all threads together."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.num_steps)
    began = time.process_time()
    for step in range(size.num_steps):
        task.node.progress = step / size.num_steps
        batch = torch.randint(size.num_train, (size.batch_size,), generator=generator)
        loss = task.loss(batch, task.node.progress)
        optimizer.zero_grad()
        (loss + task.node.penalty).backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - began


class TimedField(nn.Module):
    """Two layers that see the time, in the proportions of the published MNIST field."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(channels + 1, width), nn.Linear(width + 1, channels)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        """du/dt."""
        time = t.expand(len(u), 1)
        hidden = torch.tanh(self.first(torch.cat([u, time], dim=1)))
        return torch.tanh(self.second(torch.cat([hidden, time], dim=1)))


def classification(way: Way, size: StudySize, seed: int) -> Task:
    """Handwritten digits of 8 x 8 points, 1797 of them, from scikit-learn."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(data.data)[order] / 16
    labels = torch.from_numpy(data.target)[order]
    test = slice(size.num_train, size.num_train + size.num_test)
    node, head = Regularized(TimedField(64, 32).double(), way, size, seed=seed), nn.Linear(64, 10).double()
    t = end_points(like=images)

    def loss(batch: Tensor, progress: float) -> Tensor:
        return nn.functional.cross_entropy(head(node(images[batch], t).ys[-1]), labels[batch])

    def quality() -> float:
        found = head(node(images[test], t).ys[-1]).argmax(dim=1)
        return 100 * (found == labels[test]).double().mean().item()

    return Task(nn.ModuleList([node, head]), node, loss, quality)


def sinusoids(count: int, generator: torch.Generator, *, num_times: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Series of two channels with random amplitude, frequency and phase, seen at random times with noise.

    Returns:
        Values ``(count, num_times, 2)``, the mask of what is observed, half of it, and the times.
    """
    t = torch.linspace(0, 1, num_times)
    amplitude, frequency, phase = torch.rand(3, count, 1, generator=generator)
    angle = 2 * math.pi * ((0.1 + 0.2 * frequency) * t + phase)
    values = torch.stack([angle.sin(), angle.cos()], dim=2) * (0.5 + amplitude)[..., None]
    values = values + 0.02 * torch.randn(values.shape, generator=generator)
    mask = (torch.rand(count, num_times, 1, generator=generator) < 0.5).expand_as(values)
    return values, mask, t


def latent(way: Way, size: StudySize, seed: int) -> Task:
    """Irregular series; quality is the share of the variance that is explained at the times not shown, in percent."""
    values, mask, t = sinusoids(size.num_train + size.num_test, torch.Generator().manual_seed(0))
    values, t = values.double(), t.double()
    channels, width = 8, 32
    field = Autonomous(
        nn.Sequential(
            nn.Linear(channels, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, channels)
        )
    )
    node = Regularized(field, way, size, seed=seed)
    model = LatentODE(RecurrentEncoder(2, channels, hidden_channels=32), node, nn.Linear(channels, 2)).double()
    noise = torch.Generator().manual_seed(seed)

    def loss(batch: Tensor, progress: float) -> Tensor:
        path = model(values[batch], mask[batch], t, generator=noise)
        return negative_evidence(path, values[batch], mask[batch], sigma=0.1, kl_weight=0.1 * progress) / 100

    def quality() -> float:
        seen, shown = values[size.num_train :], mask[size.num_train :]
        path = model(seen, shown, t)
        return 100 * (1 - masked_mean_square(path.prediction, seen, ~shown) / seen.var()).item()

    return Task(model, node, loss, quality)


def study(make: Callable[[Way, StudySize, int], Task]) -> Callable[[StudySize, Setting], Iterator[Row]]:
    """Rows: one per seed and regularizer."""

    def run(size: StudySize, setting: Setting) -> Iterator[Row]:
        for seed in range(setting.seed, setting.seed + size.num_seeds):
            cost, seconds = 1, 1.0
            for kind, way in size.ways.items():
                torch.manual_seed(seed)
                task = make(way, size, seed)
                optimizer = torch.optim.Adam(task.model.parameters(), lr=size.learning_rate)
                spent = train(task, size, optimizer, torch.Generator().manual_seed(seed))
                task.model.eval()
                with torch.no_grad():
                    quality = task.quality()
                if kind == "vanilla":
                    cost, seconds = task.node.evaluations, spent
                yield {
                    "seed": seed,
                    "regularizer": kind,
                    "quality": quality,
                    "evaluations": task.node.evaluations,
                    "ratio": task.node.evaluations / cost,
                    "training seconds": spent,
                    "training ratio": spent / seconds,
                }

    return run


def promises(limits: Mapping[str, float]) -> Callable[[Sequence[Row]], list[str]]:
    """Each seed: evaluations within the limit, quality within a point; and no more time than vanilla on average."""

    def check(rows: Sequence[Row]) -> list[str]:
        problems = []
        vanilla = {row["seed"]: float(row["quality"]) for row in rows if row["regularizer"] == "vanilla"}
        for kind, limit in limits.items():
            own = [row for row in rows if row["regularizer"] == kind]
            for row in own:
                if float(row["ratio"]) > limit:
                    problems.append(f"{kind}, seed {row['seed']}: {row['ratio']:.2f} of the evaluations, not {limit}")
                if float(row["quality"]) < vanilla[row["seed"]] - 1:
                    problems.append(f"{kind}, seed {row['seed']}: more than a point worse than vanilla")
            if (slower := statistics.mean(float(row["training ratio"]) for row in own)) > 1:
                problems.append(f"{kind}: {slower:.2f} times the training time of vanilla")
        return problems

    return check


COLUMNS = ("seed", "regularizer", "quality", "evaluations", "ratio", "training seconds", "training ratio")
CLASSIFICATION = Study(
    name="neural_ode/classification",
    run=study(classification),
    columns=COLUMNS,
    full=StudySize(
        num_train=1497, num_test=300, num_steps=300, batch_size=128, tolerance=1e-6, learning_rate=5e-3,
        ways=solver_heuristics(error=10.0, local=5.0, stiffness=0.1)
        | {
            "STEER": steered(Steer(0.5)),
            "TayNODE, K = 2": solved(TayNODE(decay(10.0), order=2)),
            "RNODE": solved(RNODE(decay(300.0))),
        },
    ),
    check=promises({"error": 0.75, "local": 0.9}),
    caption=(
        "Digits of 8 x 8 points, Tsit5; quality is test accuracy in percent, evaluations are those of one solve for "
        "the test set. Published, MNIST: error 253 to 177 (0.70), stiffness 253 to 259 (1.02), local 304 to 188 "
        "(0.62), STEER 253 to 265 (1.05), TayNODE 253 to 80 (0.32, another integrator). Weights at the beginning: "
        "error 10, local 5, stiffness 0.1, STEER +-0.5, TayNODE 10 on means over components, RNODE 3 on both terms."
    ),
)  # fmt: skip
LATENT = Study(
    name="neural_ode/latent",
    run=study(latent),
    columns=COLUMNS,
    full=StudySize(
        num_train=256, num_test=128, num_steps=300, batch_size=64, tolerance=1e-6, learning_rate=1e-2,
        ways=solver_heuristics(error=10.0, local=5.0, stiffness=0.01),
    ),
    check=promises({"error": 0.5}),
    caption=(
        "Series seen at half of 20 times, Tsit5; quality is the explained share of the variance in the gaps in "
        "percent. Published, PhysioNet: error 733 to 287 (0.39), stiffness 733 to 273 (0.37), local 758 to 422 (0.56). "
        "Weights at the beginning: error 10, local 5, stiffness 0.01."
    ),
)  # fmt: skip
