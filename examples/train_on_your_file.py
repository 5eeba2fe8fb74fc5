"""Train an operator on a file of yours: PDEBench, The Well, PDEArena, FNO's .mat, neuraloperator's .pt, .npy, or ours.

    python examples/train_on_your_file.py --file 1D_Burgers_Sols_Nu0.01.hdf5
    python examples/train_on_your_file.py --file waves.npy --axes ntxy
    python examples/train_on_your_file.py --quick

Without a file it makes a small one first, in PDEBench's layout. What the file holds is read from its content, and said.
The last fifth of its samples is for testing. Of a problem in time FNO learns the step from one frame to the next, and
is then applied to its own output; the error after each step stands beside that of "nothing changes". Leaves a table, a
picture and the trained operator in ``results/your_file``.
"""

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from _command_line import run_example, shorter
from _figures import COEFFICIENT, ERROR, SOLUTION, save
from _optimizers import OptimizerName, SampleErrors, make_optimizer
from _tables import markdown, save_table
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.utils.data import Subset

from neuralop_kit.datasets import DataWarning, FieldDataset, TaskDataset, open_dataset
from neuralop_kit.datasets.describe import describe
from neuralop_kit.models import FNO
from neuralop_kit.solvers.pde import Burgers
from neuralop_kit.training import (
    ChannelStatistics,
    Normalized,
    PerStep,
    RelativeL2,
    Trainer,
    nrmse,
    rollout,
    rollout_errors,
    save_model,
)

TEST_SHARE = 0.2
MAX_TEST_PAIRS, MAX_ROLLOUTS = 200, 16


@dataclass(frozen=True)
class Settings:
    """Which file, and how much to train.

    Args:
        file: of any known layout; by default a small one is made.
        axes: of a .npy file, one letter each: n sample, t time, c channel, x y z.
        optimizer: its name.
        learning_rate: at the beginning; it falls to zero along a cosine. By default the optimizer's own.
        pairs: of input and target that are trained on, at most, spread evenly over the training samples.
        epochs: passes through them.
        batch_size: pairs per step.
        width: of FNO.
        modes: of FNO per axis, at most half the points.
        seed: of the weights and the order.
        out: folder of the table, the picture and the operator.
        quick: about a minute on two cores.
    """

    file: Path | None = None
    axes: str | None = None
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = None
    pairs: int = 4000
    epochs: int = 20
    batch_size: int = 20
    width: int = 32
    modes: int = 32
    seed: int = 0
    out: Path = Path("results/your_file")
    quick: bool = False


def make_file(path: Path) -> Path:
    """Burgers' equation as PDEBench stores it, its surplus time included: 100 trajectories of 21 frames."""
    num_points, frames, nu = 128, 21, 0.03
    stepper = Burgers.pdebench(nu=nu, dt=0.05, num_substeps=100)
    start = stepper.initial_condition(100, (4 * num_points,), generator=torch.Generator().manual_seed(0))
    states = stepper.rollout(start, num_steps=frames - 1)[:, :, 0]
    # PDEBench's values stand at the centres of cells: half a cell to the right, by the phase of each mode.
    modes = torch.fft.rfft(states)
    half_cell = torch.exp(1j * torch.pi * torch.arange(modes.shape[-1]) / num_points)
    centred = torch.fft.irfft(modes * half_cell, n=states.shape[-1])[..., ::4]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with h5py.File(unfinished, "w") as file:
        file["tensor"] = centred.float().numpy()
        file["x-coordinate"] = (np.arange(num_points, dtype="f4") + 0.5) / num_points
        file["t-coordinate"] = 0.05 * np.arange(frames + 1, dtype="f4")
        file.attrs["Nu"] = nu
    return unfinished.replace(path)


def split(data: FieldDataset, max_pairs: int) -> tuple[Subset, Subset, range]:
    """Training and test pairs from different samples, and the numbers of the test trajectories."""
    num_samples = len(data.trajectories) if in_time(data) else len(data)
    pairs_each = len(data) // num_samples
    cut = num_samples - max(1, round(TEST_SHARE * num_samples))
    if cut < 1:
        raise SystemExit(f"expected a file with several samples, got {num_samples}: nothing would be left for testing")
    train = Subset(data, spread(0, cut * pairs_each, max_pairs))
    test = Subset(data, spread(cut * pairs_each, len(data), MAX_TEST_PAIRS))
    return train, test, range(cut, num_samples)


def spread(first: int, end: int, count: int) -> list[int]:
    """At most so many numbers, evenly spread."""
    return np.linspace(first, end - 1, min(count, end - first)).round().astype(int).tolist()


def in_time(data: FieldDataset) -> bool:
    """Whether the file holds trajectories."""
    return isinstance(data, TaskDataset) and data.contents.num_frames is not None


def train_model(data: FieldDataset, train: Subset, settings: Settings) -> tuple[nn.Module, Trainer]:
    """FNO in the units of the file, and its trainer."""
    torch.manual_seed(settings.seed)
    u, v = (torch.stack(fields) for fields in zip(*train.__getitems__(spread(0, len(train), 200)), strict=True))
    modes = [min(settings.modes, n // 2) for n in data.shape]
    operator = FNO(u.shape[1], v.shape[1], domain=data.domain, width=settings.width, modes=modes)
    statistics = {"input_statistics": ChannelStatistics.of(u), "target_statistics": ChannelStatistics.of(v)}
    model = Normalized(operator.to(u.dtype), **statistics)
    optimizer = make_optimizer(settings.optimizer, model, settings.learning_rate, gives_residuals=True)
    steps = settings.epochs * -(-len(train) // settings.batch_size)
    schedule = PerStep(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps))
    metrics = {"nrmse": lambda prediction, target: nrmse(prediction, target, domain=data.domain)}
    trainer = Trainer(model, optimizer, loss=SampleErrors(data.domain), metrics=metrics, scheduler=schedule)
    trainer.fit(train, epochs=settings.epochs, batch_size=settings.batch_size, seed=settings.seed)
    return model.eval(), trainer


class Unchanged(nn.Module):
    """The forecast to beat."""

    def forward(self, u: Tensor) -> Tensor:
        """The field itself."""
        return u


def rollout_row(name: str, curve: Tensor) -> dict[str, str | float]:
    """Relative L2 errors half-way and at the end."""
    steps = sorted({max(1, len(curve) // 2), len(curve)})
    return {"forecast": name, **{f"after {k} steps": curve[k - 1].item() for k in steps}}


def unchanged_scores(test: Subset, data: FieldDataset) -> dict[str, float]:
    """One step of the forecast to beat."""
    u, v = (torch.stack(fields) for fields in zip(*test.__getitems__(range(len(test))), strict=True))
    error, normalized = RelativeL2(data.domain)(u, v), nrmse(u, v, domain=data.domain)
    return {"one step, any frame": error.item(), "its nRMSE": normalized.item()}


def main(settings: Settings) -> None:
    """Read, train, test, draw."""
    if settings.quick:
        settings = shorter(settings, pairs=1000, epochs=8, width=24)
    path = settings.file or make_file(settings.out / "burgers.hdf5")
    print(describe(path, axes=settings.axes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # what is wrong with the file has just been said
        data = open_dataset(path, axes=settings.axes)
    train, test, trajectories = split(data, settings.pairs)
    model, trainer = train_model(data, train, settings)
    scores = trainer.evaluate({"test": test})["test"]
    rows = [{"forecast": "FNO", "relative L2": scores["loss"], "nRMSE": scores["nrmse"]}]
    picture = settings.out / "predictions.png"
    if in_time(data) and len(data.input_names) == len(data.target_names):
        truth = torch.stack([data.trajectories[k] for k in trajectories[:MAX_ROLLOUTS]])
        curves = {
            name: rollout_errors(step, truth[:, 0], truth[:, 1:], domain=data.domain)
            for name, step in (("FNO", model), ("nothing changes", Unchanged()))
        }
        rows = [rollout_row(name, curve) for name, curve in curves.items()]
        rows[0] |= {"one step, any frame": scores["loss"], "its nRMSE": scores["nrmse"]}
        rows[1] |= unchanged_scores(test, data)
        with torch.no_grad():
            predicted = rollout(model, truth[:1, 0], truth.shape[1] - 1, include_start=True)[0]
        draw_rollout(picture, truth[0], predicted, curves)
    else:
        u, v = test[0]
        with torch.no_grad():
            draw_pair(picture, u, v, model(u[None])[0])
    save_table(settings.out, rows, settings=asdict(settings))
    save_model(settings.out / "operator", model)
    print(f"\n{markdown(rows)}\n\nTable, picture and the trained operator are in {settings.out}")


def draw_rollout(path: Path, truth: Tensor, predicted: Tensor, curves: dict[str, Tensor]) -> None:
    """Channel 0 of one test trajectory: over time in one dimension, its last frame in more; and the errors per step."""
    flat = truth.ndim == 3
    fields = [u[:, 0] if flat else plane(u[-1, 0]) for u in (truth, predicted)]
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.4), layout="constrained")
    draw_three(axes[:3], *fields, names=("frame", "x") if flat else ("x", "y"))
    for name, curve in curves.items():
        axes[3].semilogy(range(1, len(curve) + 1), curve, label=name)
    axes[3].set(title="error of test trajectories", xlabel="steps")
    axes[3].grid(alpha=0.3)
    axes[3].legend()
    save(figure, path)


def draw_pair(path: Path, u: Tensor, truth: Tensor, predicted: Tensor) -> None:
    """Channel 0 of one test sample."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.4), layout="constrained")
    if u.ndim == 2:
        for axis, lines in zip(axes, ([u[0]], [truth[0], predicted[0]], [predicted[0] - truth[0]], []), strict=True):
            for line in lines:
                axis.plot(line)
        for axis, title in zip(axes, ("input", "truth and prediction", "error", ""), strict=True):
            axis.set_title(title)
        axes[3].axis("off")
    else:
        image = axes[0].imshow(plane(u[0]).T.float().numpy(), origin="lower", cmap=COEFFICIENT)
        axes[0].set_title("input")
        figure.colorbar(image, ax=axes[0], shrink=0.8)
        draw_three(axes[1:], plane(truth[0]), plane(predicted[0]), names=("x", "y"))
    save(figure, path)


def draw_three(axes: np.ndarray, truth: Tensor, predicted: Tensor, *, names: tuple[str, str]) -> None:
    """Truth, prediction and error; the first axis of a field runs to the right."""
    error = predicted - truth
    low, high, size = truth.min().item(), truth.max().item(), error.abs().max().item()
    panels = [
        ("truth", truth, low, high, SOLUTION),
        ("prediction", predicted, low, high, SOLUTION),
        ("error", error, -size, size, ERROR),
    ]
    for axis, (title, field, bottom, top, colours) in zip(axes, panels, strict=True):
        image = axis.imshow(field.T.numpy(), origin="lower", aspect="auto", vmin=bottom, vmax=top, cmap=colours)
        axis.set(title=title, xlabel=names[0], ylabel=names[1])
        axis.figure.colorbar(image, ax=axis, shrink=0.8)


def plane(field: Tensor) -> Tensor:
    """The middle slice of what has three dimensions."""
    return field if field.ndim == 2 else field[..., field.shape[-1] // 2]


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
