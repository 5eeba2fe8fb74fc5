"""The released Helmholtz model: published counts, and equality with a plain implementation from torch's own layers."""

import pytest
import torch
from torch import nn

from neuralop_kit.layers.multigrid import WideningMultigrid
from neuralop_kit.models import ReferenceHelmholtzMgNO
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

NEVER_ACTING = 11_241


@pytest.mark.parametrize(("num_layers", "released"), [(4, 5_351_806), (5, 6_819_046)])
def test_counts_of_the_released_model(num_layers, released):
    model = ReferenceHelmholtzMgNO(num_layers=num_layers)
    unused = sum(b.in_channels * b.out_channels * 9 + b.in_channels for b in model.operators)
    assert sum(p.numel() for p in model.parameters()) + unused == released
    if num_layers == 4:
        assert unused == NEVER_ACTING


def plain_layer(layer: WideningMultigrid, f: torch.Tensor) -> torch.Tensor:
    """The same from nn.Conv2d and nn.ConvTranspose2d, written down level by level."""

    def conv(weight, bias, u):
        module = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, padding_mode="reflect").double()
        module.load_state_dict({"weight": weight, "bias": bias})
        return module(u)

    def down(weight, u):
        module = nn.Conv2d(weight.shape[1], weight.shape[0], 3, stride=2, bias=False).double()
        module.load_state_dict({"weight": weight})
        return module(u)

    def smooth(i, u, f):
        if u is None:
            return conv(layer.smoothers[i], layer.smoother_constants[i], f)
        rest = f - conv(layer.systems[i - 1], layer.system_constants[i - 1], u)
        return u + conv(layer.smoothers[i], layer.smoother_constants[i], rest)

    fine = smooth(0, None, f)
    f1 = down(layer.restrictions[0], f)
    middle = smooth(1, down(layer.starts[0], fine), f1)
    f2 = down(layer.restrictions[1], f1)
    coarse = smooth(3, smooth(2, down(layer.starts[1], middle), f2), f2)
    for level, below in ((1, middle), (0, fine)):
        weight = layer.prolongations[level]
        up = nn.ConvTranspose2d(weight.shape[0], weight.shape[1], weight.shape[2], stride=2, bias=False).double()
        up.load_state_dict({"weight": weight})
        coarse = below + up(coarse)
    return coarse


def test_equals_a_plain_implementation():
    layer = WideningMultigrid(2, 3, (1, 1, 2), prolongation_sizes=(3, 4)).double()
    f = torch.randn(2, 2, 21, 21, dtype=torch.float64)
    torch.testing.assert_close(layer(f), plain_layer(layer, f), rtol=1e-12, atol=1e-12)


def test_trains_and_every_weight_gets_a_gradient():
    model = ReferenceHelmholtzMgNO(width=2, num_layers=2, resolution=23, sweeps=(1, 2), prolongation_sizes=(3,))
    model(torch.randn(2, 1, 23, 23)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_sizes_are_checked():
    with pytest.raises(ShapeError, match="101 x 101"):
        ReferenceHelmholtzMgNO()(torch.randn(1, 1, 100, 100))
    with pytest.raises(ShapeError, match="single channel"):
        ReferenceHelmholtzMgNO()(torch.randn(1, 101, 101))
    with pytest.raises(ArgumentError, match="positive"):
        ReferenceHelmholtzMgNO(width=0)
    with pytest.raises(ArgumentError, match="between all levels"):
        WideningMultigrid(1, 1, (1, 1), prolongation_sizes=())
