"""A whole training step of FNO against neuraloperator's, with as many parameters, and what both learn from it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from benchmarks import Comparison, FieldCase, Setting, Study, TrainingStep
from benchmarks.accuracy import AgainstFloat64
from benchmarks.entries.resolution_sweep import DOMAIN, SweepSize, darcy, error, train
from benchmarks.entry import Row
from neuralop_kit import Domain
from neuralop_kit.models import FNO

TORUS = Domain.periodic((1.0, 1.0))
WIDTH, NUM_LAYERS, MODES = 32, 4, (16, 16)
ADAM = partial(torch.optim.Adam, lr=1e-3)


def on_torus(case: object = None) -> nn.Module:
    """Ours, all axes periodic."""
    return FNO(1, 1, domain=TORUS, width=WIDTH, num_layers=NUM_LAYERS, modes=MODES)


def between_walls(case: object = None) -> nn.Module:
    """Ours, each convolution with the field continued by mirror images."""
    return FNO(1, 1, domain=DOMAIN, width=WIDTH, num_layers=NUM_LAYERS, modes=MODES)


def neuraloperator(case: object = None) -> nn.Module:
    """The peer as it comes: no padding, grid embedding, channel network and skips in every block."""
    from neuralop.models import FNO as Peer

    return Peer(n_modes=MODES, in_channels=1, out_channels=1, hidden_channels=WIDTH, n_layers=NUM_LAYERS)


TRAINING_STEPS = [
    Comparison(
        name=f"models/fno_training_step/{size}x{size}-batch{batch}-{label}",
        ours=ours,
        peer=neuraloperator,
        peer_name="neuraloperator",
        peer_requires="neuraloperator==2.0.0",
        case=FieldCase(batch=batch, channels=1, shape=(size, size)),
        measure=(TrainingStep(optimizer=ADAM),),
        accuracy=AgainstFloat64(tolerance=1e-4),
        target=2.0,
        quick=batch == 8,
    )
    for label, ours in (("periodic", on_torus), ("walls", between_walls))
    for size, batch in ((64, 8), (128, 8), (64, 16))
]


@dataclass(frozen=True)
class TrainingSize:
    """Samples, epochs and repetitions."""

    num_train: int
    num_test: int
    num_epochs: int
    num_seeds: int
    batch_size: int = 16


def num_parameters(model: nn.Module) -> int:
    """Real numbers; a complex parameter is two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in model.parameters())


def equal_epochs(size: TrainingSize, setting: Setting) -> Iterator[Row]:
    """Rows: one per seed and model."""
    tests = {n: darcy(size.num_test, n, seed=10_000 + setting.seed, device=setting.device) for n in (64, 128)}
    steps = SweepSize(**vars(size), width=WIDTH, modes=MODES[0], width_of_unet=0)
    for seed in range(setting.seed, setting.seed + size.num_seeds):
        data = darcy(size.num_train, 64, seed=seed, device=setting.device)
        for name, build in (("ours", between_walls), ("neuraloperator", neuraloperator)):
            torch.manual_seed(seed)
            network = build()
            start = time.perf_counter()
            model = train(network, data, steps, setting, seed=seed)
            yield {
                "model": name,
                "seed": seed,
                "parameters": num_parameters(network),
                "training s": time.perf_counter() - start,
                "train": error(model, data),
                "test 64": error(model, tests[64]),
                "test 128": error(model, tests[128]),
            }


def claims(rows: Sequence[Row]) -> list[str]:
    """Equal parameters within 2 %, and an error no larger, at both resolutions."""
    complaints = []
    for ours, peer in zip(rows[::2], rows[1::2], strict=True):
        ratio = float(ours["parameters"] or 0) / float(peer["parameters"] or 1)
        if abs(ratio - 1) > 0.02:
            complaints.append(f"ours has {ratio:.3f} times the parameters")
        for column in ("test 64", "test 128"):
            mine, theirs = float(ours[column] or 0), float(peer[column] or 0)
            if mine > theirs:
                complaints.append(f"{column}, seed {ours['seed']}: ours {mine:.4f}, neuraloperator {theirs:.4f}")
    return complaints


EQUAL_EPOCHS = Study(
    name="models/fno/equal_epochs",
    run=equal_epochs,
    columns=("model", "seed", "parameters", "training s", "train", "test 64", "test 128"),
    quick=TrainingSize(num_train=256, num_test=64, num_epochs=10, num_seeds=1),
    full=TrainingSize(num_train=1000, num_test=100, num_epochs=40, num_seeds=3),
    check=claims,
    caption=(
        "Darcy flow, two-phase coefficients, trained at 64 x 64 with the same optimizer, schedule, batches and epochs: "
        "mean relative L2 errors on grids of 64 x 64 and 128 x 128 cells."
    ),
)
