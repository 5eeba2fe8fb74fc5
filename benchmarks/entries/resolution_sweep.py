"""Trained at one resolution, asked at four: FNO, a plain U-Net, and the same U-Net between two interpolations."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

from benchmarks import Setting, Study
from benchmarks.entry import Cell, Row
from neuralop_kit import Domain
from neuralop_kit.models import FNO
from neuralop_kit.solvers.pde import Darcy, TwoPhase
from neuralop_kit.training import ChannelStatistics, Normalized, PerStep, RelativeL2, Trainer, relative_l2

DOMAIN = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
TRAINED_AT = 64
RESOLUTIONS = (32, 64, 128, 256)


@dataclass(frozen=True)
class SweepSize:
    """How much data, how long, how often; widths that give both networks about as many parameters."""

    num_train: int
    num_test: int
    num_epochs: int
    num_seeds: int
    width: int
    modes: int
    width_of_unet: int
    batch_size: int = 16


def darcy(num_samples: int, resolution: int, *, seed: int, device: torch.device) -> TensorDataset:
    """Coefficients of the FNO paper and our solutions; one seed, the same functions at every resolution."""
    inputs, targets = [], []
    # One generator per sample: how many numbers a sample takes depends on the grid.
    generators = [torch.Generator().manual_seed(seed * 1_000_000 + i) for i in range(num_samples)]
    for some in (generators[start : start + 32] for start in range(0, num_samples, 32)):
        coefficient = TwoPhase.fno(DOMAIN).sample(len(some), (resolution, resolution), generator=some)
        inputs.append(coefficient.to(device))
        targets.append(Darcy(DOMAIN).solve(inputs[-1], 1.0)[0])
    return TensorDataset(torch.cat(inputs), torch.cat(targets))


def block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.GELU(),
    )


class UNet(nn.Module):
    """A plain U-Net of four levels: pooling down, interpolation up, skips between."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.down = nn.ModuleList(block(a, b) for a, b in zip([in_channels, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(block(widths[i + 1] + widths[i], widths[i]) for i in reversed(range(len(widths) - 1)))
        self.head = nn.Conv2d(width, out_channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """``(batch, in_channels, height, width)`` to the same with ``out_channels``; sizes are multiples of 8."""
        skips = []
        for i, layer in enumerate(self.down):
            u = layer(u if i == 0 else nn.functional.avg_pool2d(u, 2))
            skips.append(u)
        for layer, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            u = layer(torch.cat([interpolate(u, scale_factor=2, mode="bilinear"), skip], dim=1))
        return self.head(u)


def between_interpolations(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The network at its own resolution, with interpolation before and after: the baseline that costs nothing."""

    def apply(u: Tensor) -> Tensor:
        coarse = interpolate(u, (TRAINED_AT, TRAINED_AT), mode="bilinear", antialias=True)
        return interpolate(network(coarse), u.shape[2:], mode="bicubic", antialias=True)

    return apply


def train(network: nn.Module, data: TensorDataset, size: SweepSize, setting: Setting, *, seed: int) -> nn.Module:
    """Adam, one cycle, relative L2."""
    inputs, targets = data.tensors
    model = Normalized(
        network, input_statistics=ChannelStatistics.of(inputs), target_statistics=ChannelStatistics.of(targets)
    ).to(setting.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    num_steps = size.num_epochs * -(-len(data) // size.batch_size)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=num_steps)
    trainer = Trainer(model, optimizer, loss=RelativeL2(DOMAIN), scheduler=PerStep(cycle), progress=False)
    trainer.fit(data, epochs=size.num_epochs, batch_size=size.batch_size, seed=seed)
    return model


@torch.no_grad()
def error(operator: Callable[[Tensor], Tensor], data: TensorDataset) -> float:
    """Mean relative L2 error."""
    pairs = zip(*(tensor.split(16) for tensor in data.tensors), strict=True)
    sums = [relative_l2(operator(u), v, domain=DOMAIN, reduction="sum").item() for u, v in pairs]
    return sum(sums) / len(data)


def sweep(size: SweepSize, setting: Setting) -> Iterator[Row]:
    """Rows: one per seed and model."""
    tests = {n: darcy(size.num_test, n, seed=10_000 + setting.seed, device=setting.device) for n in RESOLUTIONS}
    for seed in range(setting.seed, setting.seed + size.num_seeds):
        data = darcy(size.num_train, TRAINED_AT, seed=seed, device=setting.device)
        torch.manual_seed(seed)
        networks = {
            "FNO": FNO(1, 1, domain=DOMAIN, width=size.width, num_layers=4, modes=(size.modes, size.modes)),
            "U-Net": UNet(1, 1, width=size.width_of_unet),
        }
        for name, network in networks.items():
            start = time.perf_counter()
            model = train(network, data, size, setting, seed=seed)
            facts: dict[str, Cell] = {
                "seed": seed,
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "training s": time.perf_counter() - start,
            }
            yield {"model": name, **facts, **{str(n): error(model, tests[n]) for n in RESOLUTIONS}}
            if name == "U-Net":
                around = between_interpolations(model)
                name = "U-Net, interpolated"
                yield {"model": name, **facts, **{str(n): error(around, tests[n]) for n in RESOLUTIONS}}


def claims(rows: Sequence[Row]) -> list[str]:
    """An operator keeps its error at twice the resolution it was trained at; the plain network does not."""
    complaints = []
    for row in rows:
        trained, twice = float(row[str(TRAINED_AT)] or 0), float(row[str(2 * TRAINED_AT)] or 0)
        if row["model"] == "FNO" and twice > 1.5 * trained:
            complaints.append(f"FNO, seed {row['seed']}: error {trained:.3f} where trained, {twice:.3f} at twice that")
        if row["model"] == "U-Net" and twice < 1.5 * trained:
            complaints.append("the plain U-Net keeps its error too: this test problem shows nothing")
    return complaints


RESOLUTION_SWEEP = Study(
    name="models/fno/resolution_sweep",
    run=sweep,
    columns=("model", "seed", "parameters", "training s", *map(str, RESOLUTIONS)),
    quick=SweepSize(num_train=256, num_test=32, num_epochs=10, num_seeds=1, width=24, modes=12, width_of_unet=18),
    full=SweepSize(num_train=1000, num_test=100, num_epochs=60, num_seeds=3, width=32, modes=16, width_of_unet=32),
    check=claims,
    caption=(
        "Darcy flow, two-phase coefficients, trained at 64 x 64: mean relative L2 test error on grids of n x n cells. "
        "The same test functions on every grid, each with the finite volume solution of that grid as the truth."
    ),
)
