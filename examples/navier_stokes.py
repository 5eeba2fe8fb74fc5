"""Learn one step of a turbulent flow, and apply it again and again: how long does the prediction hold?

    python examples/navier_stokes.py
    python examples/navier_stokes.py --viscosity 1e-4 --resolution 64 --samples 400 --epochs 20

The flow is the FNO paper's: vorticity on a torus, stirred along its diagonal. An FNO learns the map from one frame to
the next, one unit of time later; the rollout then feeds it its own output. Leaves a table of errors by step and a
picture in ``results/navier_stokes``: the last frame, the error over time beside that of predicting no change, and the
energy by wavenumber, which shows whether small eddies survive.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from _command_line import run_example, shorter
from _figures import ERROR, save
from _optimizers import OptimizerName, SampleErrors, make_optimizer
from _tables import markdown, save_table
from torch import Tensor, nn

from neuralop_kit import Domain
from neuralop_kit.datasets import Steps, TaskDataset, generate, open_dataset
from neuralop_kit.models import FNO
from neuralop_kit.training import Normalized, PerStep, Trainer, rollout, rollout_errors


@dataclass(frozen=True)
class Settings:
    """What to learn, and how.

    Args:
        viscosity: one of the published ones; the flow becomes wilder as it falls.
        resolution: points per axis.
        samples: trajectories to learn from; 20 more are for testing.
        skip: frames before the first one that is learned, in which the flow forgets how it began.
        steps: of the rollout.
        width: channels of the FNO.
        modes: of the FNO, per axis.
        epochs: passes through the training data.
        batch_size: samples per step.
        optimizer: its name.
        learning_rate: at the beginning; it falls to zero along a cosine. By default the optimizer's own.
        seed: of data, weights and order.
        data: folder of the data, which are made there if they are missing.
        out: folder of the results.
        quick: a few minutes on two cores.
    """

    viscosity: Literal["1e-3", "1e-4", "1e-5"] = "1e-3"
    resolution: int = 64
    samples: int = 200
    skip: int = 5
    steps: int = 15
    width: int = 24
    modes: int = 16
    epochs: int = 12
    batch_size: int = 16
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = None
    seed: int = 0
    data: Path = Path("data")
    out: Path = Path("results/navier_stokes")
    quick: bool = False


def load_data(settings: Settings) -> tuple[TaskDataset, TaskDataset]:
    """Training and test trajectories, cut into pairs of neighbouring frames."""
    name, n = f"navier-stokes-fno-{settings.viscosity}", settings.resolution
    sizes = {"train": settings.samples, "test": 20}
    folder = settings.data / name / f"seed{settings.seed}" / f"{n}-{settings.samples}"
    generate(
        name, folder, samples=sum(sizes.values()), resolution=n,
        splits=sizes, seed=settings.seed, workers=2, progress=True,
    )  # fmt: skip
    task = Steps(first=settings.skip)
    train, test = (open_dataset(folder, split, task=task) for split in ("train", "test"))
    return train, test


def train_step(data: TaskDataset, settings: Settings) -> nn.Module:
    """An operator from one frame to the next."""
    torch.manual_seed(settings.seed)
    network = FNO(1, 1, domain=data.domain, width=settings.width, num_layers=4, modes=settings.modes)
    statistics = data.statistics
    model = Normalized(network, input_statistics=statistics.input, target_statistics=statistics.target)
    optimizer = make_optimizer(settings.optimizer, model, settings.learning_rate, gives_residuals=True)
    num_steps = settings.epochs * -(-len(data) // settings.batch_size)
    schedule = PerStep(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps))
    trainer = Trainer(model, optimizer, loss=SampleErrors(data.domain), scheduler=schedule)
    trainer.fit(data, epochs=settings.epochs, batch_size=settings.batch_size, seed=settings.seed)
    return model.eval()


def energy_spectrum(vorticity: Tensor) -> np.ndarray:
    """Kinetic energy of ``(batch, num_x, num_y)`` in shells k - 1/2 <= |k| < k + 1/2, averaged over the batch."""
    n = vorticity.shape[-1]
    modes = torch.fft.fft2(vorticity.double(), norm="forward").abs().square().mean(dim=0)
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    length = torch.hypot(k[:, None], k)
    energy = torch.where(length > 0, modes / (2 * (2 * torch.pi * length.clamp_min(1)) ** 2), 0.0)
    return np.bincount(length.round().long().flatten().numpy(), weights=energy.flatten().numpy())[: n // 2]


def draw(path: Path, truth: Tensor, prediction: Tensor, errors: dict[str, Tensor], domain: Domain) -> None:
    """The last frame three times, errors over time, spectra at the last frame."""
    figure, axes = plt.subplots(1, 5, figsize=(19, 3.6), layout="constrained")
    last, guess = truth[0, -1, 0].numpy(), prediction[0, -1, 0].numpy()
    limit = np.abs(last).max()
    extent = [end for axis in domain.axes for end in (axis.start, axis.stop)]
    panels = {"truth": last, "prediction": guess, "error": guess - last}
    for axis, (title, field) in zip(axes, panels.items(), strict=False):
        shown = axis.imshow(field.T, origin="lower", extent=extent, cmap=ERROR, vmin=-limit, vmax=limit)
        axis.set(title=f"{title}, step {truth.shape[1]}", xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes[2], label="vorticity")
    for name, values in errors.items():
        axes[3].semilogy(range(1, len(values) + 1), values, marker=".", label=name)
    axes[3].set(title="error of the rollout", xlabel="step", ylabel="relative L2")
    axes[3].xaxis.get_major_locator().set_params(integer=True)
    for name, field in (("truth", truth), ("prediction", prediction), ("error", prediction - truth)):
        spectrum = energy_spectrum(field[:, -1, 0])
        axes[4].loglog(range(1, len(spectrum)), spectrum[1:], label=name)
    axes[4].set(title="energy at the last step", xlabel="waves per side")
    for axis in axes[3:]:
        axis.grid(alpha=0.3)
        axis.legend()
    save(figure, path)


def main(settings: Settings) -> None:
    """Generate, train, roll out, draw."""
    if settings.quick:
        settings = shorter(settings, resolution=32, samples=48, width=16, modes=12, epochs=4)
    data, test = load_data(settings)
    num_frames = len(test.trajectories[0])
    if settings.skip + settings.steps >= num_frames:
        raise SystemExit(
            f"expected --skip and --steps below {num_frames} together, the frames of a trajectory, "
            f"got {settings.skip} and {settings.steps}"
        )
    model = train_step(data, settings)
    window = range(settings.skip, settings.skip + settings.steps + 1)
    frames = torch.stack([test.trajectories[k][window.start : window.stop] for k in range(len(test.trajectories))])
    start, truth = frames[:, 0], frames[:, 1:]
    errors = {
        "FNO": rollout_errors(model, start, truth, domain=data.domain),
        "no change": rollout_errors(nn.Identity(), start, truth, domain=data.domain),
    }
    with torch.no_grad():
        prediction = rollout(model, start, settings.steps)
    rows = [
        {"step": k, **{name: values[k - 1].item() for name, values in errors.items()}}
        for k in sorted({1, settings.steps, *range(0, settings.steps, max(1, settings.steps // 5))} - {0})
    ]
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "rollout.png", truth, prediction, errors, data.domain)
    print(f"\nrelative L2 error of the vorticity\n\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
