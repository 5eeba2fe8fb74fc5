"""Constants of layers exist in bfloat16, which numpy does not know."""

import numpy as np
import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.layers import DifferentialConv, FunctionAttention
from neuralop_kit.layers.constants import constant


def test_constants():
    ramp = constant(lambda num_points: np.arange(num_points) / num_points)
    expected = torch.tensor([0.0, 0.25, 0.5, 0.75], dtype=torch.bfloat16)
    assert torch.equal(ramp(4, torch.bfloat16, torch.device("cpu")), expected)


@pytest.mark.parametrize("nodes", ["vertex", "interior", "cell"])
def test_attention_between_walls(nodes):
    torch.manual_seed(0)
    layer = FunctionAttention(4, 6, 2, domain=Domain.box((1.0, 1.0), boundary="dirichlet", nodes=nodes))
    u = torch.randn(2, 4, 9, 12)
    expected = layer(u)
    actual = layer.to(torch.bfloat16)(u.to(torch.bfloat16))
    assert actual.dtype == torch.bfloat16
    # Eight bits.
    torch.testing.assert_close(actual.float(), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_between_walls_are_taken_in_single(order):
    # One-sided differences of rounded numbers were off by a half.
    layer = DifferentialConv(2, 3, domain=Domain.box((1.0, 1.0)), order=order)
    u = torch.randn(2, 2, 9, 12)
    expected = layer(u)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(u), expected)
    # In pure bfloat16 the field and the weights are rounded once, and the result.
    rounded = layer.to(torch.bfloat16)
    exact = DifferentialConv(2, 3, domain=Domain.box((1.0, 1.0)), order=order)
    exact.load_state_dict(rounded.state_dict())
    torch.testing.assert_close(rounded(u.bfloat16()), exact(u.bfloat16().float()).bfloat16(), rtol=0, atol=0)
