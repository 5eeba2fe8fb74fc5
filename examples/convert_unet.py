"""A network trained at one resolution becomes an operator, learns a little at two, and is asked at others.

    python examples/convert_unet.py --quick
    python examples/convert_unet.py --problem burgers

Trains a plain U-Net on Darcy flow through a rough medium, or a small vision transformer on Burgers' equation, and
converts it. Shown is the error over resolutions of the plain network, of the same between two interpolations (the
baseline to beat, before and after the very fine-tuning that the converted network gets), of the converted network, and
of FNO.

Errors at four times the trained resolution, where nothing was trained (defaults; --quick in brackets):

    U-Net, rough Darcy                      as trained         fine-tuned
        between interpolations              0.0405 (0.118)     0.0377 (0.100)
        between averages                    0.0315 (0.106)     0.0252 (0.086)
        converted                           0.115  (0.125)     0.0321 (0.092)
        FNO                                 0.048  (0.166)     0.0339 (0.090)
    vision transformer, Burgers
        between interpolations              0.0048 (0.027)     0.0040 (0.021)
        converted                           0.0043 (0.024)     0.0038 (0.019)
        FNO                                 0.0062 (0.025)     0.0029 (0.016)

The U-Net needs the tuning: between its taps the trained weights say nothing. It then beats interpolation, but not the
network that is given means over coarse cells. Nor does it pay where a coarse grid loses little: trained at 32 points,
the interpolated network stays ahead at 128 (0.027 against 0.030 with ``--resolution 32 --epochs 50``).
``--kernel hat`` (0.041), which moves the trained map further, and ``dilated`` (0.065), which reads single points,
lose to interpolation as well.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from _command_line import run_example, shorter
from _figures import draw_errors
from _optimizers import OptimizerName, SampleErrors, make_optimizer
from _tables import markdown, save_table
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

from neuralop_kit import Domain
from neuralop_kit.convert import convergence_report, to_operator
from neuralop_kit.datasets import PROBLEMS
from neuralop_kit.layers import Resample
from neuralop_kit.models import FNO
from neuralop_kit.training import ChannelStatistics, Normalized, PerStep, Trainer, relative_l2


@dataclass(frozen=True)
class Settings:
    """What to train, on what, for how long.

    Args:
        problem: one of Darcy's, with a U-Net, or burgers, with a vision transformer.
        kernel: what lies between the taps of converted convolutions.
        resolution: points per axis of the training data; fine-tuning sees twice that as well.
        samples: of the training set; 64 more are for testing.
        epochs: passes through the data before conversion.
        tune_epochs: the same after it.
        optimizer: its name.
        width: of the network.
        seed: of the data, the weights and the order.
        out: where the table and the picture go.
        quick: a smaller setting, under a minute.
    """

    problem: Literal["darcy-rough", "darcy", "burgers"] = "darcy-rough"
    kernel: Literal["hat", "cubic", "dilated"] = "cubic"
    resolution: int = 16
    samples: int = 1000
    epochs: int = 60
    tune_epochs: int = 10
    optimizer: OptimizerName = "adam"
    width: int = 12
    seed: int = 0
    out: Path = Path("results/convert")
    quick: bool = False


class UNet(nn.Module):
    """As anybody would write it: convolutions of 3 x 3, pooling, interpolation, skips."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        pairs = zip([1, *widths[:-1]], widths, strict=True)
        self.down = nn.ModuleList(self.block(a, b) for a, b in pairs)
        self.up = nn.ModuleList(self.block(widths[i + 1] + widths[i], widths[i]) for i in (1, 0))
        self.pool, self.head = nn.AvgPool2d(2), nn.Conv2d(width, 1, 1)

    @staticmethod
    def block(inputs: int, outputs: int) -> nn.Sequential:
        """Two convolutions."""
        first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        return nn.Sequential(first, nn.GELU(), second, nn.GELU())

    def forward(self, u: Tensor) -> Tensor:
        """``(batch, 1, height, width)`` to the same."""
        a = self.down[0](u)
        b = self.down[1](self.pool(a))
        c = self.down[2](self.pool(b))
        b = self.up[0](torch.cat([interpolate(c, scale_factor=2, mode="bilinear"), b], dim=1))
        return self.head(self.up[1](torch.cat([interpolate(b, scale_factor=2, mode="bilinear"), a], dim=1)))


class VisionTransformer(nn.Module):
    """In one dimension: patches of four points, learned positions, attention, and back to points."""

    def __init__(self, width: int, num_points: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(1, width, 4, stride=4)
        self.positions = nn.Parameter(0.5 * torch.randn(1, num_points // 4, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(6))
        self.attention = nn.ModuleList(nn.MultiheadAttention(width, 4, batch_first=True) for _ in range(3))
        self.mix = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(3)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, u: Tensor) -> Tensor:
        """``(batch, 1, points)`` to the same."""
        x = self.embed(u).transpose(1, 2) + self.positions
        for i, (attend, mix) in enumerate(zip(self.attention, self.mix, strict=True)):
            y = self.norms[2 * i](x)
            x = x + attend(y, y, y, need_weights=False)[0]
            x = x + mix(self.norms[2 * i + 1](x))
        return self.head(x).flatten(1).unsqueeze(1)


def sample(settings: Settings, resolution: int, count: int, seed: int) -> TensorDataset:
    """Inputs and solutions; one seed, the same functions at every resolution."""
    problem = PROBLEMS[settings.problem]
    generators = [torch.Generator().manual_seed(1_000_000 * seed + i) for i in range(count)]
    shape = (resolution,) * problem.domain.num_dims
    parts = [problem.sample(generators[i : i + 32], shape) for i in range(0, count, 32)]
    inputs, targets = (torch.cat([getattr(part, side) for part in parts]).float() for side in ("input", "target"))
    # Of a trajectory the last state.
    return TensorDataset(inputs, targets[:, -1] if targets.ndim > inputs.ndim else targets)


def train(
    model: nn.Module,
    data: list[TensorDataset],
    domain: Domain,
    *,
    optimizer: OptimizerName,
    epochs: int,
    seed: int,
) -> None:
    """Along a cosine; with several datasets every batch comes from one of them."""
    batch = 16
    num_steps = epochs * sum(-(-len(part) // batch) for part in data)
    chosen = make_optimizer(optimizer, model, gives_residuals=True)
    schedule = PerStep(torch.optim.lr_scheduler.CosineAnnealingLR(chosen, num_steps))
    trainer = Trainer(model, chosen, loss=SampleErrors(domain), scheduler=schedule, progress=False)
    trainer.fit(data, epochs=epochs, batch_size=batch, seed=seed)


@torch.no_grad()
def errors(apply: Callable[[Tensor], Tensor], tests: dict[int, TensorDataset], domain: Domain) -> dict[int, float]:
    """Mean relative L2 error at each resolution; NaN where the network does not run."""
    found = {}
    for n, data in tests.items():
        inputs, targets = data.tensors
        try:
            parts = [relative_l2(apply(u), v, domain=domain, reduction="sum").item()
                     for u, v in zip(inputs.split(16), targets.split(16), strict=True)]  # fmt: skip
            found[n] = sum(parts) / len(inputs)
        except RuntimeError:
            found[n] = float("nan")
    return found


class BetweenInterpolations(nn.Module):
    """The plain network at its own resolution: Fourier series on periodic axes, cubics between walls."""

    def __init__(self, model: nn.Module, domain: Domain, resolution: int) -> None:
        super().__init__()
        self.model, self.resample = model, Resample(domain)
        self.shape = (resolution,) * domain.num_dims

    def forward(self, u: Tensor) -> Tensor:
        """A field on any grid to one on the same grid."""
        return self.resample(self.model(self.resample(u, self.shape)), u.shape[2:])


class BetweenAverages(BetweenInterpolations):
    """As before, but means over coarse cells go in: a value at a centre does not tell how much of a cell is which."""

    def forward(self, u: Tensor) -> Tensor:
        """A field on any grid to one on the same grid."""
        means = u if u.shape[2:] == self.shape else interpolate(u, self.shape, mode="area")
        return self.resample(self.model(means), u.shape[2:])


def main(settings: Settings) -> None:
    """Sample, train, convert, train on, compare, draw."""
    if settings.quick:
        resolution = 16 if settings.problem == "burgers" else 8
        settings = shorter(settings, resolution=resolution, samples=400, epochs=30, tune_epochs=6, width=8)
    if settings.resolution % 4:
        raise SystemExit(f"expected a --resolution that both networks can quarter, got {settings.resolution}; try 16")
    n, domain, seed = settings.resolution, PROBLEMS[settings.problem].domain, settings.seed
    torch.manual_seed(seed)
    coarse, fine = (sample(settings, m, settings.samples, seed) for m in (n, 2 * n))
    tests = {m: sample(settings, m, 64, 10_000 + seed) for m in (n, 3 * n // 2, 2 * n, 3 * n, 4 * n)}
    statistics = [ChannelStatistics.of(fields) for fields in coarse.tensors]

    def normalized(network: nn.Module) -> Normalized:
        return Normalized(network, input_statistics=statistics[0], target_statistics=statistics[1])

    is_darcy = settings.problem != "burgers"
    plain = normalized(UNet(settings.width) if is_darcy else VisionTransformer(4 * settings.width, n))
    modes = 12
    fno = normalized(FNO(1, 1, domain=domain, width=settings.width, num_layers=4, modes=modes))
    began = time.perf_counter()
    for model in (plain, fno):
        train(model, [coarse], domain, optimizer=settings.optimizer, epochs=settings.epochs, seed=seed)

    network = copy.deepcopy(plain.model)
    latent = "ratio" if is_darcy else "fixed"
    operator = to_operator(network, domain, resolution=(n,) * domain.num_dims, kernel=settings.kernel, latent=latent)
    print(operator.report(), "\n")
    print(convergence_report(operator, domain, lambda x: torch.sin(6.283185307 * x[0]), [n, 3 * n, 9 * n]), "\n")
    baseline = BetweenInterpolations(copy.deepcopy(plain), domain, n)
    candidates = {"interpolated": baseline, "converted": normalized(operator), "FNO": fno}
    if is_darcy:
        candidates = {"averaged": BetweenAverages(copy.deepcopy(plain), domain, n), **candidates}
    rows = {"plain": errors(plain, tests, domain)}
    for name, model in candidates.items():
        rows[name] = errors(model, tests, domain)
        epochs = settings.tune_epochs
        train(model, [coarse, fine], domain, optimizer=settings.optimizer, epochs=epochs, seed=seed + 1)
        rows[f"{name}, fine-tuned"] = errors(model, tests, domain)
    table = [{"model": name, **{str(m): error for m, error in row.items()}} for name, row in rows.items()]
    out = settings.out / settings.problem
    save_table(out, table, settings={**asdict(settings), "seconds": round(time.perf_counter() - began)})
    draw_errors(out / "errors.png", rows, trained_at=(n, 2 * n))
    print(f"{markdown(table)}\n\nTable and picture are in {out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
