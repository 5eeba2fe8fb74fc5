"""PointwiseLinear: the same numbers as a convolution with kernel size 1."""

import pytest
import torch
from torch import nn

from neuralop_kit.layers import PointwiseLinear
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.layer import SPECTRAL, LayerContract


class TestPointwiseLinear(LayerContract):
    order = SPECTRAL
    max_drift = 1e-12

    def make(self) -> nn.Module:
        return PointwiseLinear(self.in_channels, 3)

    @pytest.mark.parametrize("bias", [True, False])
    def test_equals_a_convolution_of_one_point(self, bias):
        layer, u = PointwiseLinear(2, 3, bias=bias), torch.randn(4, 2, 5, 6, 7)
        kernel = layer.weight[..., None, None, None]
        torch.testing.assert_close(layer(u), nn.functional.conv3d(u, kernel, layer.bias))

    def test_plus_is_added(self):
        layer, u, v = PointwiseLinear(2, 3), torch.randn(4, 2, 9), torch.randn(4, 3, 9)
        kept = v.clone()
        torch.testing.assert_close(layer(u, plus=v), layer(u) + v)
        assert torch.equal(v, kept)

    def wrong_fields(self, u):
        # It works on any number of axes.
        return [u[:, 0, 0], u[0], torch.cat([u, u], dim=1), u[:, :0]]

    @pytest.mark.parametrize("channels", [(0, 2), (2, 0)])
    def test_bad_arguments_are_refused(self, channels):
        with pytest.raises(ArgumentError, match="expected"):
            PointwiseLinear(*channels)
