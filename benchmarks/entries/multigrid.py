"""Multigrid operators: speed against a plain implementation of the same mathematics, cost per point, iterations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks import AgainstFloat64, Comparison, FieldCase, Forward, ForwardBackward, Setting, Study
from benchmarks.entry import Row
from benchmarks.memory import pages_kept
from benchmarks.timing import clock_for
from neuralop_kit import Domain
from neuralop_kit.layers import MultigridOperator
from neuralop_kit.layers.multigrid import ReferenceMultigrid
from neuralop_kit.models import ReferenceMgNO

SIX_LEVELS = ((1, 0),) * 5 + ((2, 0),)
BOX, TORUS = Domain.box((1.0, 1.0)), Domain.periodic((1.0, 1.0))
BOX_OF_CELLS = Domain.box((1.0, 1.0), nodes="cell")


class PlainMultigrid(nn.Module):
    """The data flow of MgNO's released layer, written down with torch's own convolution modules, one call each."""

    def __init__(self, num_in: int, num_out: int, sweeps: Sequence[tuple[int, int]], *, padding_mode: str) -> None:
        super().__init__()

        def convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False, padding_mode=padding_mode)

        num_steps = len(sweeps) - 1
        self.num_pre = [pre for pre, _ in sweeps]
        self.smoothers = nn.ModuleList(
            nn.ModuleList(convolution(num_in, num_out) for _ in range(sum(pair))) for pair in sweeps
        )
        self.systems = nn.ModuleList(
            nn.ModuleList(convolution(num_out, num_in) for _ in range(sum(pair) - (level == 0)))
            for level, pair in enumerate(sweeps)
        )
        self.restrictions = nn.ModuleList(convolution(num_in, num_in, 2) for _ in range(num_steps))
        self.starts = nn.ModuleList(convolution(num_out, num_out, 2) for _ in range(num_steps))
        self.prolongations = nn.ModuleList(
            nn.ConvTranspose2d(num_out, num_out, 4, 2, 1, bias=False) for _ in range(num_steps)
        )

    def forward(self, f: Tensor) -> Tensor:
        """Down, up."""
        v: Tensor | None = None
        levels = []
        for level, num_pre in enumerate(self.num_pre):
            if v is not None:
                f, v = self.restrictions[level - 1](f), self.starts[level - 1](v)
            v = self.iterate(level, f, v, range(num_pre))
            levels.append((f, v))
        for level in reversed(range(len(levels) - 1)):
            f, fine = levels[level]
            v = fine + self.prolongations[level](v)
            v = self.iterate(level, f, v, range(self.num_pre[level], len(self.smoothers[level])))
        return v

    def iterate(self, level: int, f: Tensor, v: Tensor | None, indices: range) -> Tensor:
        """``v <- v + S (f - A v)``; the very first one starts from zero."""
        for index in indices:
            smoother = self.smoothers[level][index]
            v = smoother(f) if v is None else v + smoother(f - self.systems[level][index - (level == 0)](v))
        return v


class PlainMgNO(nn.Module):
    """The released Darcy model: four layers with pointwise branches, 24 channels, six levels."""

    def __init__(self) -> None:
        super().__init__()
        channels = [1, 24, 24, 24, 24]
        pairs = list(pairwise(channels))
        self.operators = nn.ModuleList(PlainMultigrid(*pair, SIX_LEVELS, padding_mode="zeros") for pair in pairs)
        self.branches = nn.ModuleList(nn.Conv2d(*pair, 1) for pair in pairs)
        self.head = nn.Conv2d(24, 1, 1, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        """All layers."""
        for operator, branch in zip(self.operators, self.branches, strict=True):
            u = nn.functional.gelu(operator(u) + branch(u))
        return self.head(u)


@torch.no_grad()
def give_weights(ours: ReferenceMultigrid, plain: PlainMultigrid) -> None:
    """Let the plain module compute the same function."""
    pairs = [
        (ours.smoothers, chain(*plain.smoothers)),
        (ours.systems, chain(*plain.systems)),
        (ours.restrictions, plain.restrictions),
        (ours.starts, plain.starts),
        (ours.prolongations, plain.prolongations),
    ]
    for kernels, modules in pairs:
        for kernel, module in zip(kernels, modules, strict=True):
            module.weight.copy_(kernel)


@torch.no_grad()
def give_model_weights(ours: ReferenceMgNO, plain: PlainMgNO) -> None:
    """The same for whole models."""
    for layer, operator, branch in zip(ours.layers, plain.operators, plain.branches, strict=True):
        give_weights(layer.operator, operator)
        branch.weight.copy_(layer.pointwise.weight[..., None, None])
        branch.bias.copy_(layer.pointwise.bias)
    plain.head.weight.copy_(ours.head.weight[..., None, None])


def layer_against_plain(channels: int, size: int, domain: Domain) -> Comparison:
    """One layer of ``channels`` to ``channels`` on a square grid."""
    boundary = domain.axes[0].boundary
    padding_mode = "zeros" if boundary == "dirichlet" else "circular"
    return Comparison(
        name=f"layers/reference_multigrid/{boundary}-{size}x{size}-{channels}channels",
        ours=lambda case: ReferenceMultigrid(channels, channels, SIX_LEVELS, domain=domain),
        peer=lambda case: PlainMultigrid(channels, channels, SIX_LEVELS, padding_mode=padding_mode),
        case=FieldCase(batch=8, channels=channels, shape=(size, size)),
        measure=(Forward(), ForwardBackward()),
        accuracy=AgainstFloat64(tolerance=1e-5),
        match=give_weights,
        peer_name="plain torch",
        target=1.5,
        quick=False,
    )


def model_against_plain(size: int) -> Comparison:
    """The published Darcy model, 572,661 parameters."""
    return Comparison(
        name=f"models/reference_mgno/darcy-{size}x{size}",
        ours=lambda case: ReferenceMgNO.darcy(BOX),
        peer=lambda case: PlainMgNO(),
        case=FieldCase(batch=8, channels=1, shape=(size, size)),
        measure=(Forward(), ForwardBackward()),
        accuracy=AgainstFloat64(tolerance=1e-5),
        match=give_model_weights,
        peer_name="plain torch",
        target=1.5,
        quick=size == 64,
    )


LAYERS = tuple(
    layer_against_plain(channels, size, domain)
    for channels in (24, 32)
    for size in (64, 128)
    for domain in (BOX, TORUS)
)
MODELS = tuple(model_against_plain(size) for size in (64, 128))


@dataclass(frozen=True)
class CostSize:
    """Grids of one layer from ``channels`` to ``channels``; ``repeats`` of each, in alternation."""

    sizes: tuple[int, ...]
    channels: int = 16
    repeats: int = 9


def cost(size: CostSize, setting: Setting) -> Iterator[Row]:
    """Rows: one per grid, with the ratio to the grid of half the points per axis."""
    layer = MultigridOperator(size.channels, size.channels, 5, domain=BOX_OF_CELLS).to(setting.device)
    fields = [
        torch.randn(1, size.channels, n, n, generator=setting.generator()).to(setting.device).requires_grad_()
        for n in size.sizes
    ]
    works = [ForwardBackward().prepare(layer, (field,)) for field in fields]
    clock = clock_for(setting.device)
    with pages_kept():
        for work in works:
            work()
        seconds = [[clock(work, 1) for work in works] for _ in range(size.repeats)]
    for index, n in enumerate(size.sizes):
        ratios = [row[index] / row[index - 1] for row in seconds]
        yield {
            "grid": f"{n}x{n}",
            "levels": len(layer.grids.shapes((n, n))),
            "milliseconds": 1e3 * median(row[index] for row in seconds),
            "ratio to half": median(ratios) if index else None,
        }


def is_linear(rows: Sequence[Row]) -> list[str]:
    """From 256 points per axis on, four times the points cost 3.5 to 4.5 times the time."""
    ratios = {str(row["grid"]): row["ratio to half"] for row in rows if row["ratio to half"] is not None}
    return [
        f"{grid}: {ratio} times the cost of half the points per axis, promised 3.5 to 4.5"
        for grid, ratio in ratios.items()
        if int(grid.split("x")[0]) > 256 and not 3.5 <= float(ratio) <= 4.5
    ]


COST = Study(
    name="layers/multigrid_cost",
    run=cost,
    columns=("grid", "levels", "milliseconds", "ratio to half"),
    quick=CostSize(sizes=(128, 256, 512), repeats=5),
    full=CostSize(sizes=(128, 256, 512, 1024)),
    check=is_linear,
    caption="Forward and backward of one MultigridOperator, V(1,1), 16 channels: time against the number of points. "
    "Freed memory is kept by the process: with glibc's usual setting the kernel clears new pages for all large fields, "
    "and 1024 x 1024 points take more than twice as long.",
)
