"""Learn Burgers' equation on one grid and use it on others: the first experiment of the FNO paper.

    python examples/burgers.py
    python examples/burgers.py --resolution 512 --samples 2000 --epochs 60

Maps a random velocity at t = 0 to that at t = 1, viscosity 0.1, on a circle. The operator is trained at one resolution
and tested, with the same functions, at half, twice and four times that. Leaves a table and a picture in
``results/burgers``: predictions, and how their error is spread over wavenumbers.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from _command_line import run_example, shorter
from _figures import save
from _optimizers import OptimizerName, SampleErrors, make_optimizer
from _tables import markdown, save_table
from torch import Tensor, nn

from neuralop_kit.datasets import FieldDataset, generate, open_dataset
from neuralop_kit.models import FNO
from neuralop_kit.training import Normalized, PerStep, Trainer

START, END, PREDICTED = "darkgrey", "tab:blue", "tab:orange"
SHRINKING = 50


@dataclass(frozen=True)
class Settings:
    """What to learn, and how.

    Args:
        resolution: points of the training grid.
        samples: to learn from; 100 more are for testing.
        width: channels of the FNO.
        modes: of the FNO, per axis.
        epochs: passes through the training data.
        batch_size: samples per step.
        optimizer: its name.
        learning_rate: at the beginning; it falls to zero along a cosine. By default the optimizer's own.
        seed: of data, weights and order.
        data: folder of the data, which are made there if they are missing.
        out: folder of the results.
        quick: a minute on two cores.
    """

    resolution: int = 256
    samples: int = 1000
    width: int = 32
    modes: int = 32
    epochs: int = 60
    batch_size: int = 20
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = None
    seed: int = 0
    data: Path = Path("data/burgers")
    out: Path = Path("results/burgers")
    quick: bool = False


def load_data(settings: Settings) -> tuple[FieldDataset, dict[int, FieldDataset]]:
    """Training data, and the same 100 test functions at several resolutions."""
    n, count, folder = settings.resolution, settings.samples, settings.data / f"seed{settings.seed}"
    own = generate(
        "burgers", folder / f"{n}-{count}", samples=count + 100, resolution=n, settings="fno",
        splits={"train": count, "test": 100}, seed=settings.seed, workers=2, progress=True,
    )  # fmt: skip
    tests = {n: open_dataset(own, "test")}
    for other in (n // 2, 2 * n, 4 * n):
        place = generate(
            "burgers", folder / f"{other}-test", samples=100, resolution=other, settings="fno",
            splits={"test": 1.0}, seed=settings.seed, workers=2, progress=True,
        )  # fmt: skip
        tests[other] = open_dataset(place, "test")
    return open_dataset(own, "train"), dict(sorted(tests.items()))


def train(data: FieldDataset, settings: Settings) -> tuple[nn.Module, Trainer]:
    """The operator, and its trainer."""
    torch.manual_seed(settings.seed)
    network = FNO(1, 1, domain=data.domain, width=settings.width, num_layers=4, modes=settings.modes)
    statistics = data.statistics
    model = Normalized(network, input_statistics=statistics.input, target_statistics=statistics.target)
    optimizer = make_optimizer(settings.optimizer, model, settings.learning_rate, gives_residuals=True)
    num_steps = settings.epochs * -(-len(data) // settings.batch_size)
    schedule = PerStep(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps))
    trainer = Trainer(model, optimizer, loss=SampleErrors(data.domain), scheduler=schedule)
    trainer.fit(data, epochs=settings.epochs, batch_size=settings.batch_size, seed=settings.seed)
    return model.eval(), trainer


def amplitudes(u: Tensor) -> Tensor:
    """Root mean square over the batch of the modes of ``(batch, 1, num_points)``."""
    return torch.fft.rfft(u[:, 0].double(), norm="forward").abs().square().mean(dim=0).sqrt()


def draw(path: Path, data: FieldDataset, model: nn.Module) -> None:
    """Three test functions, and the spectra of all of them."""
    inputs, truth = data.read(range(len(data)))
    with torch.no_grad():
        prediction = model(inputs)
    (x,) = data.domain.coordinates(data.shape)
    figure, axes = plt.subplots(1, 4, figsize=(17, 3.6), layout="constrained")
    for k, axis in enumerate(axes[:3]):
        # Diffusion leaves a hundredth: drawn on one scale the two times would hide each other.
        axis.plot(x, inputs[k, 0] / SHRINKING, color=START, label=f"t = 0, divided by {SHRINKING}")
        axis.plot(x, truth[k, 0], color=END, label="t = 1")
        axis.plot(x, prediction[k, 0], "--", color=PREDICTED, label="predicted")
        axis.set(title=f"test function {k + 1}", xlabel="x", ylabel="velocity")
    for name, u, colour in (("t = 0", inputs, START), ("t = 1", truth, END), ("error", prediction - truth, PREDICTED)):
        count = data.shape[0] // 2
        axes[3].loglog(range(1, count), amplitudes(u)[1:count], color=colour, label=name)
    axes[3].set(title="amplitude by wavenumber", xlabel="waves per length", ylim=(1e-9, 1))
    for axis in axes:
        axis.grid(alpha=0.3)
    for axis in axes[::3]:
        axis.legend()
    save(figure, path)


def main(settings: Settings) -> None:
    """Generate, train, test, draw."""
    if settings.quick:
        settings = shorter(settings, resolution=128, samples=300, epochs=15)
    data, tests = load_data(settings)
    model, trainer = train(data, settings)
    errors = trainer.evaluate({str(n): test for n, test in tests.items()})
    rows = [{"points": n, "relative L2": errors[str(n)]["loss"]} for n in tests]
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "predictions.png", tests[max(tests)], model)
    print(f"\ntrained at {settings.resolution} points\n\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
