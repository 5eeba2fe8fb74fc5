"""IntegralConv on a sphere: kernels on caps, exact, the same after every rotation."""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.layers import IntegralConv, Morlet, PiecewiseLinear, Zernike
from neuralop_kit.layers.cap_transform import cap_transform
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.layer import SPECTRAL, LayerContract

BASES = (PiecewiseLinear(3, 0), Zernike(0, 1), Morlet(2, 0))


class TestIntegralConvOnSphere(LayerContract):
    domain = Domain.sphere(radius=2.0)
    tiny_shape = (4, 5)
    reference_shape = (13, 24)
    num_grids = 3
    order = SPECTRAL

    def function(self, x, phase):
        # Smooth at the poles too.
        theta, phi = x
        return torch.exp(theta.sin() * torch.cos(phi + phase) / 2) * (1 + theta.cos() / 2)

    def make(self):
        return IntegralConv(self.in_channels, 3, 0.8, domain=self.domain)


def on_cap(angle, centre, num_nodes=40):
    """Unit vectors of a rule in polar coordinates around a centre, their angles to it, and weights."""
    nodes, weights = leggauss(num_nodes)
    theta, turn = angle / 2 * (nodes + 1), np.arange(64) * 2 * math.pi / 64
    centre = centre / np.linalg.norm(centre)
    east = np.cross(centre, [0.3, 0.5, -0.8])
    east /= np.linalg.norm(east)
    north = np.cross(centre, east)
    around = np.multiply.outer(np.cos(turn), east) + np.multiply.outer(np.sin(turn), north)
    points = np.cos(theta)[:, None, None] * centre + np.sin(theta)[:, None, None] * around
    area = angle / 2 * weights * np.sin(theta) * 2 * math.pi
    return points, theta, area


@pytest.mark.parametrize("basis", [Zernike(0, 1), Morlet(2, 0)])
def test_convolution_is_the_integral_over_the_cap(basis):
    def function(points):
        x, y, z = np.moveaxis(points, -1, 0)
        return np.exp(x - 0.5 * y) * (1 + z**3)

    domain, angle, shape = Domain.sphere(radius=3.0), 0.7, (24, 47)
    layer = IntegralConv(1, 1, 3.0 * angle, domain=domain, basis=basis).double()
    theta, phi = domain.coordinates(shape, dtype=torch.float64).numpy()
    grid = np.stack((np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), axis=-1)
    out = layer(torch.from_numpy(function(grid))[None, None])[0, 0].detach().numpy()
    for place in ((0, 0), (1, 5), (12, 30), (23, 46)):
        points, distance, area = on_cap(angle, grid[place])
        means = function(points).mean(axis=1)
        profiles = np.stack([term.profile(distance / angle) for term in basis.terms(2)])
        profiles /= np.sqrt(profiles**2 @ area * area.sum())[:, None]
        expected = layer.weight.detach().numpy().ravel() @ (profiles * area) @ means
        assert abs(out[place] - expected) < 1e-12


def test_small_caps_are_flat():
    # The transform of a cap tends to that of a disk, sampled at the wavenumber l + 1/2.
    from neuralop_kit.layers.ball_transform import ball_transform

    for basis in BASES:
        on_sphere = cap_transform(basis, 0.01, 400)
        wavenumbers = (np.arange(400) + 0.5) / (2 * math.pi) * 0.01
        flat = ball_transform(basis, np.stack((wavenumbers, 0 * wavenumbers))).real
        assert np.abs(on_sphere - flat).max() < 1e-4


def test_a_bounded_field_is_not_enlarged():
    for basis in BASES:
        assert np.abs(cap_transform(basis, 0.4, 60)).max() <= 1 + 1e-12


def test_commutes_with_a_quarter_turn_of_the_axis():
    # exp(a y + b z) turned about the x axis, which takes the north pole to the equator.
    layer = IntegralConv(1, 1, 0.6, domain=Domain.sphere()).double()
    theta, phi = Domain.sphere().coordinates((33, 64), dtype=torch.float64)
    y, z = theta.sin() * phi.sin(), theta.cos()
    out, of_turned = (layer(torch.exp(a - 0.5 * b)[None, None])[0, 0] for a, b in ((y, z), (z, -y)))
    assert abs(of_turned[0, 0] - out[16, 16]) < 1e-12
    assert abs(of_turned[16, 16] - out[32, 0]) < 1e-12
    assert abs(out[0, 0] - out[16, 16]) > 1e-2


def test_bad_arguments_are_refused():
    for radius, basis in ((3.2, None), (0.1, PiecewiseLinear(3, 1)), (0.1, Zernike(2, 1))):
        with pytest.raises(ArgumentError, match="isotropic"):
            IntegralConv(1, 1, radius, domain=Domain.sphere(), basis=basis)
    assert isinstance(IntegralConv(1, 1, 3.1, domain=Domain.sphere()), nn.Module)
