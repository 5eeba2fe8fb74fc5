"""How much of the time of a training is spent on reading its data: that of the examples, one process, no workers."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import Setting, Study
from benchmarks.entry import Row
from neuralop_kit import Domain
from neuralop_kit.datasets import FieldDataset, Steps, generate, open_dataset
from neuralop_kit.models import FNO
from neuralop_kit.training import Normalized, RelativeL2, Trainer

BATCH, LIMIT = 20, 5.0


class Timed:
    """A dataset that knows how long it was read."""

    def __init__(self, data: FieldDataset) -> None:
        self.data = data
        self.seconds, self.batches = 0.0, 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.data[index]

    def read(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """As the dataset."""
        began = time.perf_counter()
        batch = self.data.read(indices)
        self.seconds += time.perf_counter() - began
        self.batches += 1
        return batch


@dataclass(frozen=True)
class TrainingCase:
    """One of the examples, or the setting of its published twin, with fewer samples.

    Args:
        problem: in the registry.
        resolution: points per axis.
        samples: functions, or trajectories.
        model: of the domain.
        in_pairs: whether trajectories are cut into pairs.
    """

    problem: str
    resolution: int
    samples: int
    model: Callable[[Domain], nn.Module]
    in_pairs: bool = False


CASES = (
    TrainingCase("burgers", 256, 200, lambda domain: FNO(1, 1, domain=domain, width=32, num_layers=4, modes=32)),
    TrainingCase("darcy", 64, 200, lambda domain: FNO(1, 1, domain=domain, width=24, num_layers=4, modes=16)),
    TrainingCase(
        "advection-pdebench-0.4", 256, 4, lambda domain: FNO(1, 1, domain=domain, width=20, num_layers=4, modes=12),
        in_pairs=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Passes:
    """How often the data are gone through, after a first pass in which files are opened and checksums verified."""

    epochs: int


def wait(size: Passes, setting: Setting) -> Iterator[Row]:
    """Train each, with a clock around its data."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = generate(
                case.problem, folder, samples=case.samples, resolution=case.resolution, splits={"train": 1.0},
                seed=setting.seed,
            )  # fmt: skip
            data = Timed(open_dataset(path, "train", task=Steps() if case.in_pairs else None))
            torch.manual_seed(setting.seed)
            model, statistics = case.model(data.data.domain), data.data.statistics
            if statistics is not None:
                model = Normalized(model, input_statistics=statistics.input, target_statistics=statistics.target)
            model.to(setting.device)
            first, later = (train(model, data, epochs, setting) for epochs in (1, size.epochs))
        yield {
            "training": f"{case.problem}, {case.resolution} points, FNO", "batches": later.batches,
            "milliseconds reading a batch": 1e3 * later.reading / later.batches,
            "milliseconds of a step": 1e3 * later.seconds / later.batches,
            "% waiting": 100 * later.reading / later.seconds,
            "% waiting in the first pass": 100 * first.reading / first.seconds,
        }  # fmt: skip


class Spent(NamedTuple):
    """Where the time of a training went."""

    batches: int
    reading: float
    seconds: float


def train(model: nn.Module, data: Timed, epochs: int, setting: Setting) -> Spent:
    """Some passes through the data."""
    data.seconds, data.batches = 0.0, 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trainer = Trainer(model, optimizer, loss=RelativeL2(data.data.domain))
    began = time.perf_counter()
    trainer.fit(data, epochs=epochs, batch_size=BATCH, seed=setting.seed)
    return Spent(data.batches, data.seconds, time.perf_counter() - began)


def is_never_the_bottleneck(rows: Sequence[Row]) -> list[str]:
    """The promise."""
    return [
        f"{row['training']} waits {row['% waiting']:.1f} % of its time for data, at most {LIMIT:g} % were promised"
        for row in rows
        if row["% waiting"] >= LIMIT
    ]


WAITING = Study(
    name="datasets/waiting_for_data",
    run=wait,
    columns=(
        "training", "batches", "milliseconds reading a batch", "milliseconds of a step", "% waiting",
        "% waiting in the first pass",
    ),
    quick=Passes(epochs=3),
    full=Passes(epochs=10),
    check=is_never_the_bottleneck,
    caption="Share of a training that its data are read in, in batches of 20 and in the process that trains. The first "
    "pass opens files and verifies checksums; it is promised nothing. The networks are those of examples/burgers.py "
    "and examples/darcy.py, and PDEBench's FNO "
    "on pairs of neighbouring frames of its advection.",
)  # fmt: skip
