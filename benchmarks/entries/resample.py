"""Resampling against ``torch.nn.functional.interpolate``: a known smooth function on two grids of one domain."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks import AgainstReference, Comparison, Forward, ForwardBackward
from neuralop_kit import Domain
from neuralop_kit.layers import Resample


@dataclass(frozen=True)
class ResampleCase:
    """From one square grid to another; eight items of 32 channels."""

    domain: Domain
    old: int
    new: int
    num_cycles: float

    def field(self, num_points: int) -> Tensor:
        """A wave with a phase of its own in each channel, float64."""
        x, y = self.domain.coordinates((num_points, num_points), dtype=torch.float64)
        phase = torch.arange(8 * 32, dtype=torch.float64).reshape(8, 32, 1, 1)
        wave = 2 * math.pi * self.num_cycles
        return torch.sin(wave * x + phase) * torch.cos(wave * y + 0.3 * phase)

    def inputs(self, generator: torch.Generator) -> tuple[Tensor]:
        """The wave on the old grid, float32; nothing is random."""
        return (self.field(self.old).float(),)


def ours(case: ResampleCase) -> Callable[[Tensor], Tensor]:
    """Trigonometric where periodic, cubic between walls."""
    resample = Resample(case.domain)
    return lambda u: resample(u, (case.new, case.new))


def bicubic(case: ResampleCase) -> Callable[[Tensor], Tensor]:
    """Torch's best, told correctly where the points sit: ends included on vertex nodes, centres on cells."""
    ends = case.domain.axes[0].nodes == "vertex"
    return lambda u: interpolate(u, (case.new, case.new), mode="bicubic", align_corners=ends)


def comparison(kind: str, case: ResampleCase, tolerance: float, *, quick: bool = True) -> Comparison:
    """One domain and pair of sizes."""
    return Comparison(
        name=f"layers/resample/{kind}-{case.old}-to-{case.new}",
        ours=ours,
        peer=bicubic,
        peer_name="torch interpolate, bicubic",
        case=case,
        measure=(Forward(), ForwardBackward()),
        accuracy=AgainstReference(lambda u: case.field(case.new), tolerance=tolerance),
        quick=quick,
    )


# Whole waves on the torus are exact but for rounding. A cubic through four points is off by 3/128 h^4 times the fourth
# derivative in the middle of a cell, and by 1/24 of it next to a wall; 2.3 waves are no multiple of the length.
TORUS = Domain.periodic((1.0, 1.0), nodes="cell")
VERTEX, CELL = (Domain.box((1.0, 1.0), boundary="dirichlet", nodes=nodes) for nodes in ("vertex", "cell"))
RESAMPLE = [
    comparison("periodic", ResampleCase(TORUS, 64, 128, 2.0), 1e-6),
    comparison("periodic", ResampleCase(TORUS, 128, 96, 2.0), 1e-6),
    comparison("walls-vertex", ResampleCase(VERTEX, 65, 129, 2.3), 2e-4),
    comparison("walls-cell", ResampleCase(CELL, 128, 96, 2.3), 2e-5),
    comparison("periodic", ResampleCase(TORUS, 256, 512, 2.0), 1e-6, quick=False),
]
