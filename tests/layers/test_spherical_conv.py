"""SphericalConv: exact, and turns with what it is given."""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import legval

from neuralop_kit import Domain
from neuralop_kit.layers import SphericalConv
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from tests.contracts.layer import SPECTRAL, LayerContract


class SphereContract(LayerContract):
    """Fields that are smooth at the poles too."""

    domain = Domain.sphere()
    shapes = ((8, 12), (7, 9))
    tiny_shape = (4, 5)
    reference_shape = (13, 24)
    num_grids = 3
    order = SPECTRAL

    def function(self, x, phase):
        theta, phi = x
        return torch.exp(theta.sin() * torch.cos(phi + phase) / 2) * (1 + theta.cos() / 2)


class TestSphericalConv(SphereContract):
    def make(self):
        return SphericalConv(self.in_channels, 3, 6, domain=self.domain)


class TestEastAndWest(SphereContract):
    def make(self):
        return SphericalConv(self.in_channels, 3, 5, domain=self.domain, isotropic=False)


class TestGaussLatitudes(SphereContract):
    domain = Domain.sphere(grid="gauss", radius=3.0)

    def make(self):
        return SphericalConv(self.in_channels, 3, 6, domain=self.domain)

    def test_converges_under_refinement(self):
        # No Gauss grid holds the points of another: sample all outputs on one.
        layer = self.layer()
        outputs = [layer(self.field((n, 2 * n)), output_shape=(32, 64)) for n in (6, 8, 10, 32)]
        errors = [(out - outputs[-1]).abs().max().item() for out in outputs[:-1]]
        assert 1e-9 < errors[0] < 1e-3
        assert errors[1] < errors[0] / 100
        assert errors[2] < 1e-12


def zonal(direction, degree, x):
    """Legendre's polynomial of the cosine of the angle to a direction: a harmonic of that degree, turned."""
    theta, phi = x.numpy()
    points = np.stack((np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)))
    return torch.from_numpy(legval(np.tensordot(direction, points, 1), np.eye(degree + 1)[degree]))


@pytest.mark.parametrize("grid", ["equiangular", "gauss"])
@pytest.mark.parametrize("isotropic", [True, False])
def test_harmonics_of_any_direction_are_eigenfunctions(grid, isotropic):
    domain = Domain.sphere(grid=grid)
    layer = SphericalConv(1, 1, 9, domain=domain, isotropic=isotropic).double()
    x, apart = domain.coordinates((11, 20), dtype=torch.float64), 0.0
    for degree in (0, 1, 4, 8):
        direction = np.random.default_rng(degree).normal(size=3)
        u = zonal(direction / np.linalg.norm(direction), degree, x)
        apart = max(apart, (layer(u[None, None])[0, 0] - layer.weight[0, degree] * u).abs().max().item())
    # Negative control: what tells east from west has other eigenfunctions.
    assert apart < 1e-12 if isotropic else apart > 0.1


def test_is_the_integral_over_the_sphere():
    domain, shape = Domain.sphere(grid="gauss"), (16, 31)
    layer = SphericalConv(1, 1, 6, domain=domain).double()
    theta, phi = x = domain.coordinates(shape, dtype=torch.float64)
    u = torch.exp(theta.sin() * phi.cos()) * theta.cos() ** 3
    points = torch.stack((theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos())).flatten(1)
    degrees = np.arange(6)
    series = (2 * degrees + 1) / (4 * math.pi) * layer.weight.detach().numpy()[0, :, 0, 0]
    kernel = torch.from_numpy(legval((points.mT @ points).numpy(), series))
    expected = kernel @ (domain.weights(shape, dtype=torch.float64) * u).flatten()
    torch.testing.assert_close(layer(u[None, None]).flatten(), expected, rtol=0, atol=1e-12)
    assert x.shape == (2, *shape)


@pytest.mark.parametrize("isotropic", [True, False])
def test_commutes_with_rotations_about_the_axis(isotropic):
    layer = SphericalConv(2, 3, 6, domain=Domain.sphere(), isotropic=isotropic).double()
    u = torch.randn(2, 2, 9, 15, dtype=torch.float64)
    torch.testing.assert_close(layer(u.roll(4, 3)), layer(u).roll(4, 3), rtol=0, atol=1e-12)
    mirrored = (layer(u.flip(3)) - layer(u).flip(3)).abs().max()
    assert mirrored < 1e-12 if isotropic else mirrored > 0.1


def test_samples_the_result_anywhere():
    case = TestSphericalConv()
    layer, u = case.layer(), case.field((20, 40))
    fine = layer(u, output_shape=(39, 80))
    torch.testing.assert_close(fine[..., ::2, ::2], layer(u), rtol=0, atol=1e-12)
    # Fewer longitudes than the orders need: the same harmonics are left out on both sides.
    assert layer(u, output_shape=(7, 4)).shape == (2, 3, 7, 4)


def test_a_field_keeps_its_size():
    torch.manual_seed(0)
    domain = Domain.sphere()
    for isotropic in (True, False):
        layer = SphericalConv(64, 64, 12, domain=domain, isotropic=isotropic)
        first = SphericalConv(64, 64, 12, domain=domain)
        u = first(torch.randn(2, 64, 25, 48))
        weights = domain.weights((25, 48))
        before, after = ((weights * f.square()).mean() for f in (u, layer(u)))
        assert 0.8 < after / before < 1.25


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="expected"):
        SphericalConv(1, 1, 0, domain=Domain.sphere())
    with pytest.raises(DomainError, match="SpectralConv"):
        SphericalConv(1, 1, 4, domain=Domain.periodic((1.0, 1.0)))
    with pytest.raises(ShapeError, match="output shape"):
        SphericalConv(1, 1, 4, domain=Domain.sphere())(torch.ones(1, 1, 5, 8), output_shape=(5,))
