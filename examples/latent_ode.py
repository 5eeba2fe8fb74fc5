"""Fill the gaps of irregular time series with a latent ODE, without and with a regularizer on the solver's error.

    python examples/latent_ode.py
    python examples/latent_ode.py --regularizer error --steps 600

Every series is a point that turns in the plane with random amplitude, frequency and phase, seen at half of 20 times,
with noise. A recurrent network reads it backwards and says where a path in a latent space of 8 dimensions begins; a
neural ODE continues it; a linear map returns to the plane. Leaves table and picture in ``results/latent_ode``.
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
    Autonomous,
    ErrorRegularizer,
    ExponentialDecay,
    LatentODE,
    NeuralODE,
    RecurrentEncoder,
    masked_mean_square,
    negative_evidence,
)


@dataclass(frozen=True)
class Settings:
    """What to train, for how long.

    Args:
        regularizer: on the error of the solver, or none, or both in turn.
        steps: of the optimizer.
        batch_size: series per step.
        samples: for training; 128 more are for testing.
        learning_rate: of Adam at the beginning; it falls to zero along a cosine.
        tolerance: of the solver.
        weight: of the regularizer at the beginning; a tenth at the end.
        seed: of data and weights.
        out: where results go.
        quick: half a minute on one core.
    """

    regularizer: Literal["none", "error", "both"] = "both"
    steps: int = 300
    batch_size: int = 64
    samples: int = 512
    learning_rate: float = 1e-2
    tolerance: float = 1e-6
    weight: float = 10.0
    seed: int = 0
    out: Path = Path("results/latent_ode")
    quick: bool = False


def series(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Values ``(count, 20, 2)``, the mask of what is seen, and the times."""
    t = torch.linspace(0, 1, 20)
    amplitude, frequency, phase = torch.rand(3, count, 1, generator=generator)
    angle = 2 * math.pi * ((0.1 + 0.2 * frequency) * t + phase)
    values = torch.stack([angle.sin(), angle.cos()], dim=2) * (0.5 + amplitude)[..., None]
    values = values + 0.02 * torch.randn(values.shape, generator=generator)
    return values, (torch.rand(count, 20, 1, generator=generator) < 0.5).expand_as(values), t


def make_model(settings: Settings) -> LatentODE:
    """Encoder, dynamics, decoder."""
    torch.manual_seed(settings.seed)
    network = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 8))
    tolerance = {"rtol": settings.tolerance, "atol": settings.tolerance}
    node = NeuralODE(Autonomous(network), **tolerance, control="joint", raise_on_failure=True)
    return LatentODE(RecurrentEncoder(2, 8, hidden_channels=32), node, nn.Linear(8, 2))


def train(kind: str, settings: Settings) -> dict[str, Any]:
    """One run: its row of the table, and its model."""
    generator = torch.Generator().manual_seed(settings.seed)
    values, mask, t = series(settings.samples + 128, generator)
    model = make_model(settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    regularizer = ErrorRegularizer(ExponentialDecay(settings.weight, settings.weight / 10))
    began = time.perf_counter()
    for step in trange(settings.steps, desc=kind, leave=False):
        batch = torch.randint(settings.samples, (settings.batch_size,), generator=generator)
        progress = step / settings.steps
        path = model(values[batch], mask[batch], t, generator=generator)
        # The loss per observation, so that weights do not depend on their number.
        loss = negative_evidence(path, values[batch], mask[batch], sigma=0.1, kl_weight=0.1 * progress) / 100
        if kind == "error":
            loss = loss + regularizer(path.solution.stats, progress=progress)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - began
    seen, shown = values[settings.samples :], mask[settings.samples :]
    with torch.no_grad():
        path = model.eval()(seen, shown, t)
    error = masked_mean_square(path.prediction, seen, ~shown) / seen.var()
    row = {
        "regularizer": kind, "error in the gaps in % of the variance": 100 * error.item(),
        "evaluations": int(path.solution.stats.num_evaluations[0]), "training seconds": seconds,
    }  # fmt: skip
    return {"row": row, "t": t, "seen": seen, "shown": shown, "prediction": path.prediction}


def draw(path: Path, runs: list[dict[str, Any]]) -> None:
    """Three test series: observations and predictions."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for k, axis in enumerate(axes):
        first = runs[0]
        for channel in range(2):
            seen = first["shown"][k, :, channel]
            axis.plot(first["t"][seen], first["seen"][k, seen, channel], "k.")
            axis.plot(first["t"][~seen], first["seen"][k, ~seen, channel], ".", color="0.8")
            for colour, run in enumerate(runs):
                label = run["row"]["regularizer"] if channel == 0 else None
                axis.plot(run["t"], run["prediction"][k, :, channel], color=f"C{colour}", label=label)
        axis.set(xlabel="t")
    axes[0].set(ylabel="both coordinates")
    axes[0].legend(title="regularizer")
    axes[1].set(title="black: shown to the model, grey: hidden from it")
    save(figure, path)


def main(settings: Settings) -> None:
    """Train, print, save, draw."""
    torch.set_num_threads(1)
    if settings.quick:
        settings = shorter(settings, steps=150)
    runs = []
    for kind in ("none", "error") if settings.regularizer == "both" else (settings.regularizer,):
        runs.append(train(kind, settings))
        print(*(f"{key} {value}" for key, value in runs[-1]["row"].items()), sep=", ")
    rows = [run["row"] for run in runs]
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "series.png", runs)
    print(f"\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
