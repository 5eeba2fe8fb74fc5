"""GraphKernel against neuraloperator's GNOBlock: time, and what becomes of the output as points are added."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import AgainstFloat64, Comparison, Forward, ForwardBackward, Setting, Study
from benchmarks.entry import Row
from neuralop_kit.layers import GraphKernel

HIDDEN_WIDTH = 32


@dataclass(frozen=True)
class CloudCase:
    """Values at points drawn uniformly in the unit square or cube; balls of about 28 points."""

    points: int
    num_dims: int = 2
    channels: int = 16

    @property
    def radius(self) -> float:
        """Of the balls."""
        volume = {2: 3.1416, 3: 4.1888}[self.num_dims]
        return (28 / (volume * self.points)) ** (1 / self.num_dims)

    def inputs(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Values and points."""
        values = torch.randn(1, self.channels, self.points, generator=generator)
        return values, torch.rand(self.points, self.num_dims, generator=generator)


class GNO(nn.Module):
    """The peer with our arguments: the same hidden width, no embedding, its own search and sums without extensions."""

    def __init__(self, case: CloudCase) -> None:
        super().__init__()
        from neuralop.layers.gno_block import GNOBlock

        self.block = GNOBlock(
            case.channels,
            case.channels,
            coord_dim=case.num_dims,
            radius=case.radius,
            pos_embedding_type=None,
            channel_mlp_layers=[HIDDEN_WIDTH],
            use_torch_scatter_reduce=False,
            use_open3d_neighbor_search=False,
        )

    def forward(self, u: Tensor, points: Tensor) -> Tensor:
        """Values at the points themselves."""
        return self.block(points, points, u.mT).mT


def ours(case: CloudCase) -> nn.Module:
    """Ours, the search included."""
    return GraphKernel(case.channels, case.channels, case.radius, num_dims=case.num_dims, hidden_width=HIDDEN_WIDTH)


def comparison(case: CloudCase, *, target: float | None = None, quick: bool = True) -> Comparison:
    """One cloud."""
    return Comparison(
        name=f"layers/graph_kernel/{case.num_dims}d-{case.points}-points",
        ours=ours,
        peer=GNO,
        peer_name="neuraloperator",
        peer_requires="neuraloperator==2.0.0",
        case=case,
        measure=(Forward(), ForwardBackward()),
        accuracy=AgainstFloat64(tolerance=1e-5),
        target=target,
        quick=quick,
    )


CLOUDS = [
    comparison(CloudCase(2_000)),
    comparison(CloudCase(2_000, num_dims=3)),
    # One call of the peer takes seconds here.
    comparison(CloudCase(10_000), target=20.0, quick=False),
    comparison(CloudCase(10_000, num_dims=3), target=20.0, quick=False),
]


@dataclass(frozen=True)
class RefinementSize:
    """Numbers of points, at one radius."""

    points: tuple[int, ...] = (400, 1600, 6400)


def refinement(size: RefinementSize, setting: Setting) -> Iterator[Row]:
    """Rows: root mean square of the output for one function at more and more points."""
    case = CloudCase(400, channels=4)
    torch.manual_seed(setting.seed)
    layers: dict[str, nn.Module | None] = {"ours": ours(case), "neuraloperator": None}
    with contextlib.suppress(ImportError):
        layers["neuraloperator"] = GNO(case)
    for count in size.points:
        points = torch.rand(count, 2, generator=torch.Generator().manual_seed(setting.seed))
        u = torch.stack([torch.cos(k * points[:, 0] + points[:, 1]) for k in range(4)])[None]
        row: dict[str, str | int | float | None] = {"points": count}
        with torch.no_grad():
            for name, layer in layers.items():
                row[name] = None if layer is None else layer(u, points).square().mean().sqrt().item()
        yield row


REFINEMENT = Study(
    name="layers/graph_kernel_refinement",
    run=refinement,
    columns=("points", "ours", "neuraloperator"),
    quick=RefinementSize(),
    full=RefinementSize((400, 1600, 6400, 25600)),
    check=lambda rows: (
        [] if abs(rows[-1]["ours"] / rows[0]["ours"] - 1) < 0.1 else ["the output grows with the points"]
    ),
    caption="Size of the output for one function at more and more points, one radius: a mean stays, a sum grows.",
)
