"""Learn the flow through a porous medium: from its permeability to its pressure, at any resolution.

    python examples/darcy.py --model fno
    python examples/darcy.py --model both --optimizer lion --resolution 64 --samples 1000 --epochs 40

Generates the data with a reference solver, trains, measures the error at the training resolution and at twice that,
and leaves a picture, a table and the trained operators in ``results/darcy``.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from _command_line import run_example, shorter
from _figures import draw_predictions
from _optimizers import OptimizerName, SampleErrors, make_optimizer
from _tables import markdown, save_table
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.datasets import FieldDataset, generate, open_dataset
from neuralop_kit.models import FNO, UNO, DeepONet, LocalNO, MgNO
from neuralop_kit.training import Normalized, PerStep, Trainer, save_model

MODELS = {
    "fno": lambda domain: FNO(1, 1, domain=domain, width=24, num_layers=4, modes=16),
    "mgno": lambda domain: MgNO(1, 1, domain=domain, width=16, num_layers=4, levels=5),
    "local_no": lambda domain: LocalNO(1, 1, domain=domain, width=24, num_layers=4, modes=12),
    "uno": lambda domain: UNO(1, 1, domain=domain, width=16, levels=3, modes=16),
    "deeponet": lambda domain: DeepONet(1, 1, domain=domain),
}


@dataclass(frozen=True)
class Settings:
    """What to train, on what, for how long.

    Args:
        model: one of the operators; "both" trains FNO and MgNO side by side.
        optimizer: its name.
        learning_rate: at the beginning; it falls to zero along a cosine. By default the optimizer's own.
        problem: distribution of the permeability.
        resolution: points per axis of the training data.
        samples: of the training set; 200 more are for testing.
        epochs: passes through the training data.
        batch_size: samples per step.
        seed: of the data, the weights and the order.
        data: folder of the data, which are made there if they are missing.
        out: folder of the results.
        quick: the setting of `make demo`, a few minutes on two cores.
    """

    model: Literal["fno", "mgno", "local_no", "uno", "deeponet", "both"] = "fno"
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = None
    problem: Literal["darcy", "darcy-rough", "darcy-lognormal"] = "darcy"
    resolution: int = 64
    samples: int = 1000
    epochs: int = 40
    batch_size: int = 20
    seed: int = 0
    data: Path = Path("data")
    out: Path = Path("results/darcy")
    quick: bool = False


def load_data(settings: Settings) -> tuple[FieldDataset, dict[str, FieldDataset]]:
    """Training data, and the same 200 test functions at the training resolution and at twice that."""
    folder, n = settings.data / settings.problem / f"seed{settings.seed}", settings.resolution
    sizes = {"train": settings.samples, "test": 200}
    coarse = generate(
        settings.problem, folder / f"{n}-{settings.samples}", samples=sum(sizes.values()), resolution=n,
        splits=sizes, seed=settings.seed, workers=2, progress=True,
    )  # fmt: skip
    fine = generate(
        settings.problem, folder / f"{2 * n}-test", samples=200, resolution=2 * n,
        splits={"test": 1.0}, seed=settings.seed, workers=2, progress=True,
    )  # fmt: skip
    tests = {str(n): open_dataset(coarse, split="test"), str(2 * n): open_dataset(fine, split="test")}
    return open_dataset(coarse, split="train"), tests


def train(name: str, data: FieldDataset, settings: Settings) -> tuple[nn.Module, Trainer, float]:
    """A trained operator in physical units, its trainer, and the seconds that training took."""
    torch.manual_seed(settings.seed)
    statistics = data.statistics
    model = Normalized(
        MODELS[name](data.domain), input_statistics=statistics.input, target_statistics=statistics.target
    )
    optimizer = make_optimizer(settings.optimizer, model, settings.learning_rate, gives_residuals=True)
    num_steps = settings.epochs * -(-len(data) // settings.batch_size)
    schedule = PerStep(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps))
    trainer = Trainer(model, optimizer, loss=SampleErrors(data.domain), scheduler=schedule)
    print(f"\n{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {settings.optimizer}")
    began = time.perf_counter()
    trainer.fit(data, epochs=settings.epochs, batch_size=settings.batch_size, seed=settings.seed)
    return model, trainer, time.perf_counter() - began


def main(settings: Settings) -> None:
    """Generate, train, test, draw."""
    if settings.quick:
        settings = shorter(settings, samples=800, epochs=20)
    data, tests = load_data(settings)
    coefficient, truth = tests[str(settings.resolution)][0]
    rows, predictions = [], {}
    for name in ["fno", "mgno"] if settings.model == "both" else [settings.model]:
        model, trainer, seconds = train(name, data, settings)
        errors = trainer.evaluate(tests)
        rows.append(
            {
                "model": type(model.model).__name__,
                "optimizer": settings.optimizer,
                "parameters": sum(p.numel() for p in model.parameters()),
                "training seconds": seconds,
                **{f"relative L2 at {n}x{n}": values["loss"] for n, values in errors.items()},
            }
        )
        save_model(settings.out / name, model)
        with torch.no_grad():
            predictions[rows[-1]["model"]] = model.eval()(coefficient[None])[0, 0]
    save_table(settings.out, rows, settings=asdict(settings))
    draw_predictions(
        settings.out / "predictions.png", coefficient=coefficient[0], truth=truth[0], predictions=predictions,
        extent=extent_of(data.domain),
    )  # fmt: skip
    print(f"\n{markdown(rows)}\n\nTable, picture and trained operators are in {settings.out}")


def extent_of(domain: Domain) -> list[float]:
    """Left, right, bottom, top."""
    return [end for axis in domain.axes for end in (axis.start, axis.stop)]


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
