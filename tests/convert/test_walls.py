"""What pooling and upsampling read next to a wall converges there too, point by point."""

import itertools
import math

import pytest
import torch
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.convert import to_operator

POOLINGS = [
    nn.AvgPool1d(2),
    nn.AvgPool1d(3, stride=1, padding=1, count_include_pad=False),
    nn.AvgPool1d(3, stride=2, padding=1, count_include_pad=False),
]


def differences(net: nn.Module, nodes: str) -> list[float]:
    """Largest one between successive grids, over the points of the reference."""
    domain = Domain.box((1.0,), boundary="neumann" if nodes != "interior" else "dirichlet", nodes=nodes)
    operator = to_operator(nn.Sequential(net).double(), domain, resolution=(16,), in_channels=1)
    outputs = []
    for ratio in (2, 4, 8, 16):
        x = domain.coordinates((domain.axes[0].placement.refine(16, ratio),), dtype=torch.float64)
        output = operator(torch.sin(2 * x + 0.3)[None])[0, 0]
        outputs.append(output[ratio - 1 :: ratio] if nodes == "interior" else output[::ratio])
    return [(a - b).abs().max().item() for a, b in itertools.pairwise(outputs)]


@pytest.mark.parametrize("nodes", ["vertex", "interior"])
@pytest.mark.parametrize("net", POOLINGS, ids=str)
def test_averages_over_boxes_that_a_wall_cuts_are_of_second_order(net, nodes):
    steps = differences(net, nodes)
    assert math.log2(steps[-2] / steps[-1]) > 1.7


@pytest.mark.parametrize("nodes", ["vertex", "interior"])
def test_upsampling_behind_pooling_does_not_extrapolate(nodes):
    steps = differences(nn.Sequential(nn.AvgPool1d(2), nn.Upsample(scale_factor=2, mode="linear")), nodes)
    assert math.log2(steps[-2] / steps[-1]) > 1.7


def test_upsampling_keeps_the_last_value_beyond_the_first_and_last_point():
    domain = Domain.box((1.0,), boundary="neumann")
    operator = to_operator(nn.Sequential(nn.Upsample(scale_factor=2, mode="linear")), domain, resolution=(8,),
                           in_channels=1)  # fmt: skip
    u = torch.randn(1, 1, 7 * 32 + 1, generator=torch.Generator().manual_seed(0))
    v = operator(u)
    assert torch.equal(v[..., 0], u[..., 0])
    # A cubic through rough values would leave them by hundreds of times their size.
    assert v.abs().max() < 2 * u.abs().max()


@pytest.mark.parametrize("shape", [(32, 32), (21, 24)])
def test_an_empty_batch_stays_one(shape):
    domain = Domain.box((1.0, 1.0), boundary="neumann", nodes="cell")
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="replicate"), nn.GELU(), nn.Conv2d(2, 1, 1))
    operator = to_operator(net, domain, resolution=(16, 16))
    assert operator(torch.zeros(0, 1, *shape)).shape == (0, 1, *shape)
