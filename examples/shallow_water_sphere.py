"""Learn the weather of a planet with one layer of fluid: an operator on the sphere, applied hour after hour.

    python examples/shallow_water_sphere.py
    python examples/shallow_water_sphere.py --num-latitudes 64 --samples 200 --epochs 20

States are geopotential, vorticity and divergence of a shallow layer on the rotating Earth, in near balance at 20 m/s.
An SFNO learns the map from one state to that some hours later and is then fed its own output for a day. Leaves a table
and a picture in ``results/shallow_water_sphere``: maps of the vorticity, and the error over time beside that of
predicting no change. Needs ``pip install neuralop-kit[sphere]``.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from _command_line import run_example, shorter
from _figures import ERROR, save
from _optimizers import OptimizerName, make_optimizer
from _tables import markdown, save_table
from torch import Tensor, nn

from neuralop_kit import Domain
from neuralop_kit.datasets import Steps, TaskDataset, generate, open_dataset
from neuralop_kit.models import SFNO
from neuralop_kit.training import Normalized, PerStep, Trainer, relative_l2, rollout, rollout_errors


@dataclass(frozen=True)
class Settings:
    """What to learn, and how.

    Args:
        num_latitudes: of the grid, which has twice as many longitudes.
        samples: days to learn from; 10 more are for testing.
        hours: that one step of the operator takes, a divisor of 24.
        width: of the SFNO; it sees a third of the degrees that latitudes can carry.
        epochs: passes through the training data.
        batch_size: samples per step.
        optimizer: its name.
        learning_rate: at the beginning; it falls to zero along a cosine. By default the optimizer's own.
        seed: of data, weights and order.
        data: folder of the data, which are made there if they are missing.
        out: folder of the results.
        quick: a few minutes on two cores.
    """

    num_latitudes: int = 32
    samples: int = 100
    hours: int = 3
    width: int = 32
    epochs: int = 10
    batch_size: int = 8
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = None
    seed: int = 0
    data: Path = Path("data/shallow_water_sphere")
    out: Path = Path("results/shallow_water_sphere")
    quick: bool = False


def load_data(settings: Settings) -> tuple[TaskDataset, TaskDataset]:
    """Training and test days, cut into pairs of states some hours apart."""
    n, sizes = settings.num_latitudes, {"train": settings.samples, "test": 10}
    folder = generate(
        "shallow-water-sphere", settings.data / f"seed{settings.seed}" / f"{n}-{settings.samples}",
        samples=sum(sizes.values()), resolution=(n, 2 * n), splits=sizes, seed=settings.seed, workers=2, progress=True,
    )  # fmt: skip
    task = Steps(stride=settings.hours)
    train, test = (open_dataset(folder, split, task=task) for split in ("train", "test"))
    return train, test


class ScaledError:
    """Relative L2 error with each channel measured in its own spread: a geopotential is 10^10 times a vorticity.

    Args:
        data: gives mean and spread of the channels.
    """

    def __init__(self, data: TaskDataset) -> None:
        statistics = data.statistics.target
        self.mean, self.std = (torch.tensor(part).view(-1, 1, 1) for part in (statistics.mean, statistics.std))
        self.domain = data.domain

    def __call__(
        self, prediction: Tensor, target: Tensor, *, domain: Domain | None = None, reduction: str = "mean"
    ) -> Tensor:
        """As :func:`relative_l2`."""
        scaled = [(u - self.mean) / self.std for u in (prediction, target)]
        return relative_l2(*scaled, domain=domain or self.domain, reduction=reduction)


def train_step(data: TaskDataset, error: Callable[..., Tensor], settings: Settings) -> nn.Module:
    """An operator from one state to the next."""
    torch.manual_seed(settings.seed)
    degrees = settings.num_latitudes // 3
    network = SFNO(3, 3, domain=data.domain, width=settings.width, num_layers=4, num_degrees=degrees)
    statistics = data.statistics
    model = Normalized(network, input_statistics=statistics.input, target_statistics=statistics.target)
    optimizer = make_optimizer(settings.optimizer, model, settings.learning_rate, pace=1.5)
    num_steps = settings.epochs * -(-len(data) // settings.batch_size)
    schedule = PerStep(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps))
    trainer = Trainer(model, optimizer, loss=error, scheduler=schedule)
    trainer.fit(data, epochs=settings.epochs, batch_size=settings.batch_size, seed=settings.seed)
    return model.eval()


def draw(path: Path, maps: dict[str, Tensor], errors: dict[str, Tensor], *, domain: Domain, hours: int) -> None:
    """Vorticities on the globe, and errors over time."""
    figure = plt.figure(figsize=(19, 3.6), layout="constrained")
    colatitude, longitude = domain.coordinates(next(iter(maps.values())).shape)
    limit = maps["truth"].abs().max().item()
    for k, (title, field) in enumerate(maps.items()):
        axis = figure.add_subplot(1, len(maps) + 1, k + 1, projection="mollweide")
        place = ((longitude - math.pi).numpy(), (math.pi / 2 - colatitude).numpy())
        shown = axis.pcolormesh(*place, field.numpy(), cmap=ERROR, vmin=-limit, vmax=limit, shading="nearest")
        axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(shown, ax=axis, shrink=0.7, label="vorticity [1/s]")
    axis = figure.add_subplot(1, len(maps) + 1, len(maps) + 1)
    for name, values in errors.items():
        axis.semilogy([hours * (k + 1) for k in range(len(values))], values, marker=".", label=name)
    axis.set(title="error of the rollout", xlabel="hours", ylabel="relative L2, channels scaled")
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def main(settings: Settings) -> None:
    """Generate, train, roll out, draw."""
    if settings.quick:
        settings = shorter(settings, num_latitudes=24, samples=24, width=20, epochs=6)
    data, test = load_data(settings)
    error = ScaledError(data)
    model = train_step(data, error, settings)
    frames = torch.stack([test.trajectories[k][:: settings.hours] for k in range(len(test.trajectories))])
    start, truth = frames[:, 0], frames[:, 1:]
    errors = {
        "SFNO": rollout_errors(model, start, truth, domain=data.domain, metric=error),
        "no change": rollout_errors(nn.Identity(), start, truth, domain=data.domain, metric=error),
    }
    with torch.no_grad():
        last = rollout(model, start, truth.shape[1])[0, -1, 1]
    rows = [
        {"hours": settings.hours * (k + 1), **{name: values[k].item() for name, values in errors.items()}}
        for k in range(truth.shape[1])
    ]
    save_table(settings.out, rows, settings=asdict(settings))
    maps = {"start": start[0, 1], "truth": truth[0, -1, 1], "prediction": last, "error": last - truth[0, -1, 1]}
    draw(settings.out / "rollout.png", maps, errors, domain=data.domain, hours=settings.hours)
    print(f"\nrelative L2 error, channels scaled\n\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
