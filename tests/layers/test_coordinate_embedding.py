"""CoordinateEmbedding: exact at every resolution, and without a jump where an axis closes."""

import math

import pytest
import torch
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.layers import CoordinateEmbedding
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.layer import SPECTRAL, LayerContract


class TestCoordinateEmbedding(LayerContract):
    domain = Domain.box((4.0, 1.0), boundary=("periodic", "dirichlet"), origin=(-1.0, 3.0))
    order = SPECTRAL
    accepts_any_channels = True

    def make(self) -> nn.Module:
        return CoordinateEmbedding(domain=self.domain)

    def test_features_are_the_stated_functions(self):
        out = CoordinateEmbedding(domain=self.domain, num_frequencies=2)(self.field((6, 5)))
        x, y = self.domain.coordinates((6, 5), dtype=torch.float64)
        angle = 2 * math.pi * (x + 1) / 4
        expected = torch.stack([angle.sin(), (2 * angle).sin(), angle.cos(), (2 * angle).cos(), 2 * (y - 3) - 1])
        torch.testing.assert_close(out[0, self.in_channels :], expected)
        torch.testing.assert_close(out[:, : self.in_channels], self.field((6, 5)))

    def test_no_jump_where_a_periodic_axis_closes(self):
        # Steps of a smooth function shrink with h, also the one across the seam; those of the bare coordinate do not.
        def largest_step(channel, dim):
            return (channel.roll(-1, dim) - channel).abs().max().item()

        for num_points in (32, 64, 128):
            shape = (num_points, 8)
            features = self.make()(self.field(shape))[0, self.in_channels :]
            assert largest_step(features[:2], -2) <= 2 * math.pi / num_points
            bare = self.domain.coordinates(shape)[0] / 4
            assert largest_step(bare, -2) > 0.9  # negative control

    def test_sphere_gets_the_unit_vector(self):
        embed = CoordinateEmbedding(domain=Domain.sphere(radius=6.0))
        vector = embed(torch.zeros(1, 1, 9, 16, dtype=torch.float64))[0, 1:]
        assert embed.num_features == len(vector) == 3
        torch.testing.assert_close(vector.square().sum(dim=0), torch.ones(9, 16, dtype=torch.float64))
        # At a pole all longitudes are the same point.
        assert vector[:, 0].std(dim=-1).max() < 1e-15

    def test_num_features_matches_what_is_appended(self):
        for boundary in ("periodic", "neumann"):
            embed = CoordinateEmbedding(domain=Domain.box((1.0,) * 3, boundary=boundary), num_frequencies=3)
            assert embed(torch.zeros(1, 0, 4, 5, 6)).shape[1] == embed.num_features

    def test_no_frequencies_are_refused(self):
        with pytest.raises(ArgumentError, match="expected at least one"):
            CoordinateEmbedding(domain=self.domain, num_frequencies=0)
