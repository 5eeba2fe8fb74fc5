"""Multigrid operators: speed against a plain implementation of the same mathematics, cost per point, iterations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks import AgainstFloat64, Comparison, FieldCase, Forward, ForwardBackward
from neuralop_kit import Domain
from neuralop_kit.layers.multigrid import ReferenceMultigrid

SIX_LEVELS = ((1, 0),) * 5 + ((2, 0),)
BOX, TORUS = Domain.box((1.0, 1.0)), Domain.periodic((1.0, 1.0))


class PlainMultigrid(nn.Module):
    """The data flow of MgNO's released layer, written down with torch's own convolution modules, one call each."""

    def __init__(self, channels: int, sweeps: Sequence[tuple[int, int]], *, padding_mode: str) -> None:
        super().__init__()

        def convolution(stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, stride, 1, bias=False, padding_mode=padding_mode)

        num_steps = len(sweeps) - 1
        self.num_pre = [pre for pre, _ in sweeps]
        self.smoothers = nn.ModuleList(nn.ModuleList(convolution() for _ in range(sum(pair))) for pair in sweeps)
        self.systems = nn.ModuleList(
            nn.ModuleList(convolution() for _ in range(sum(pair) - (level == 0))) for level, pair in enumerate(sweeps)
        )
        self.restrictions = nn.ModuleList(convolution(2) for _ in range(num_steps))
        self.starts = nn.ModuleList(convolution(2) for _ in range(num_steps))
        self.prolongations = nn.ModuleList(
            nn.ConvTranspose2d(channels, channels, 4, 2, 1, bias=False) for _ in range(num_steps)
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


@torch.no_grad()
def give_weights(ours: ReferenceMultigrid, plain: PlainMultigrid) -> None:
    """Let the plain module compute the same function."""
    groups = ((ours.smoothers, plain.smoothers), (ours.systems, plain.systems))
    for stacks, lists in groups:
        for stack, modules in zip(stacks, lists, strict=True):
            for kernel, module in zip(stack, modules, strict=True):
                module.weight.copy_(kernel)
    singles = ((ours.restrictions, plain.restrictions), (ours.starts, plain.starts))
    for stacks, modules in (*singles, (ours.prolongations, plain.prolongations)):
        for stack, module in zip(stacks, modules, strict=True):
            module.weight.copy_(stack[0])


def reference_against_plain(channels: int, size: int, domain: Domain, *, quick: bool = True) -> Comparison:
    """One layer of ``channels`` to ``channels`` on a square grid."""
    boundary = domain.axes[0].boundary
    return Comparison(
        name=f"layers/reference_multigrid/{boundary}-{size}x{size}-{channels}channels",
        ours=lambda case: ReferenceMultigrid(case.channels, case.channels, SIX_LEVELS, domain=domain),
        peer=lambda case: PlainMultigrid(
            case.channels, SIX_LEVELS, padding_mode="zeros" if domain is BOX else "circular"
        ),
        case=FieldCase(batch=8, channels=channels, shape=(size, size)),
        measure=(Forward(), ForwardBackward()),
        accuracy=AgainstFloat64(tolerance=1e-5),
        match=give_weights,
        peer_name="plain torch",
        target=1.5,
        quick=quick,
    )


SPEED = tuple(
    reference_against_plain(channels, size, domain, quick=size == 64)
    for channels in (24, 32)
    for size in (64, 128)
    for domain in (BOX, TORUS)
)
