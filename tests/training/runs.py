"""A small run that several test files train, kill and resume; everything that a checkpoint holds takes part in it."""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # optimizers import it at their first step, which takes seconds: here once, not in every child
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from neuralop_kit.solvers import atomic
from neuralop_kit.training import Checkpoints, EarlyStopping, PerStep, RelativeL2, Trainer
from neuralop_kit.training.checkpoint import Snapshot, read_checkpoint
from neuralop_kit.training.logs import Record
from neuralop_kit.training.steps import BatchObjective

# Children come from a server that has imported everything once and runs no threads, so that each costs milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.training.runs"])
NUM_EPOCHS = 4
STEPS_PER_EPOCH = 6 + 3


class Shifted(Dataset[Any]):
    """The field one cell further, halved; with ``noise`` every reading differs, drawn from three global streams."""

    def __init__(
        self, num_samples: int, num_points: int, *, noise: float = 0.0, dtype: torch.dtype | None = None
    ) -> None:
        generator = torch.Generator().manual_seed(num_points)
        self.fields = torch.randn(num_samples, 1, num_points, generator=generator, dtype=dtype)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        u = self.fields[index]
        if self.noise:
            u = u + self.noise * (torch.randn_like(u) + random.gauss() + np.random.normal())
        return u, 0.5 * u.roll(1, -1)

    def in_memory(self) -> TensorDataset:
        return TensorDataset(self.fields, 0.5 * self.fields.roll(1, -1))


def small_model(dtype: torch.dtype | None = None) -> nn.Module:
    """Dropout draws random numbers, batch normalisation keeps buffers; fields of any length."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 6, 3, padding=1, padding_mode="circular"), nn.BatchNorm1d(6), nn.Dropout(0.1), nn.GELU(),
        nn.Conv1d(6, 1, 3, padding=1, padding_mode="circular"),
    ).to(dtype)  # fmt: skip


class Killed(Trainer):
    """Dies of SIGKILL when it is about to take the step after ``last_step``."""

    last_step: int | None = None

    def _objective(self, source: Tensor, target: Tensor, num_samples: int, num_joined: int) -> BatchObjective:
        if self.state.step == self.last_step:
            if workers := multiprocessing.active_children():
                (self.folder / "workers").write_text(str([worker.pid for worker in workers]))
            os.kill(os.getpid(), signal.SIGKILL)
        # Every stream that is to be continued is drawn from, and shows in the weights.
        first, second = self.generators
        scale = random.random() + np.random.random() + second.random() + torch.rand(1, generator=first)
        return super()._objective(source * (1 + 0.01 * scale), target, num_samples, num_joined)


Optimizers = Callable[[nn.Module], torch.optim.Optimizer]


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


def make_trainer(folder: Path | None, *, optimizer: Optimizers = adamw, **options: Any) -> Killed:
    model = small_model()
    made = optimizer(model)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    schedule = PerStep(
        torch.optim.lr_scheduler.OneCycleLR(made, 2e-2, total_steps=NUM_EPOCHS * STEPS_PER_EPOCH, cycle_momentum=False)
    )
    settings = {
        "loss": RelativeL2(), "folder": folder, "checkpoints": Checkpoints(every_steps=4), "scheduler": schedule,
        "early_stopping": EarlyStopping(patience=50), "progress": False,
        "generators": (torch.Generator().manual_seed(2), np.random.default_rng(3)),
    }  # fmt: skip
    return Killed(model, made, **{**settings, **options})


def fit(trainer: Trainer, *, num_workers: int = 0, epochs: int = NUM_EPOCHS, resume: bool = True) -> list[Record]:
    """Two resolutions, random augmentation, validation at both."""
    train = [Shifted(22, 16, noise=0.1), Shifted(9, 32, noise=0.1)]
    valid = {"16": Shifted(7, 16), "32": Shifted(5, 32)}
    options = {"epochs": epochs, "num_workers": num_workers, "resume": resume}
    return trainer.fit(train, batch_size=4, valid=valid, seed=5, **options)


def run_child(task: Callable[..., None], *arguments: Any, timeout: float = 60) -> int:
    """Exit code of ``task`` in a process of its own."""
    child = PROCESSES.Process(target=_quietly, args=(task, *arguments))
    child.start()
    child.join(timeout)
    if child.exitcode is None:
        child.kill()
        raise AssertionError("child hangs")
    return child.exitcode


def _quietly(task: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    # The default on most systems; a child of the server would go back to the server for its own children.
    multiprocessing.set_start_method("fork", force=True)
    task(*arguments)


def die_at(point: str) -> None:
    """From now on this process kills itself when a write reaches ``point``."""

    def observer(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    atomic.observer = observer


def latest(folder: Path) -> Snapshot:
    """The checkpoint that ``latest`` names, verified."""
    return read_checkpoint(folder / (folder / "latest").read_text())


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Two trees of tensors and primitives are equal, bit for bit."""
    assert type(a) is type(b), path
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype, path
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{index}]")
    else:
        assert a == b, path


def assert_same_run(a: Path, b: Path) -> None:
    """Two folders hold the same run: every checkpoint, both pointers, and the log but for the seconds."""
    names = {p.name for p in a.iterdir()}
    assert names == {p.name for p in b.iterdir()}
    for name in names:
        if name.startswith("step_"):
            one, two = read_checkpoint(a / name), read_checkpoint(b / name)
            assert_same([one.model, one.train_state, one.state], [two.model, two.train_state, two.state], name)
        elif name == "metrics.jsonl":
            one_log, two_log = ([line.partition(', "seconds"')[0] for line in (f / name).read_text().splitlines()]
                                for f in (a, b))  # fmt: skip
            assert one_log == two_log
        else:
            assert (a / name).read_bytes() == (b / name).read_bytes(), name
