"""Resample on spheres: exact for harmonics that both grids carry, in every direction, across the poles."""

import itertools

import numpy as np
import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.convert import convergence_report
from neuralop_kit.layers import Cubic, Resample, SphericalConv
from neuralop_kit.solvers.errors import DomainError, ShapeError
from tests.contracts.layer import SPECTRAL
from tests.layers.test_spherical_conv import SphereContract, zonal

GRIDS = ["equiangular", "gauss"]


class TestResampleOnSphere(SphereContract):
    """To a smaller grid and back."""

    accepts_any_channels = True
    order = SPECTRAL

    def make(self):
        return Resample(self.domain)

    def apply(self, layer, u):
        return layer(layer(u, tuple(2 * n // 3 + 1 for n in u.shape[2:])), u.shape[2:])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("old", [(8, 15), (12, 21), (21, 40)])
@pytest.mark.parametrize("new", [(9, 16), (17, 31), (8, 15)])
def test_harmonics_of_any_direction_are_exact(grid, old, new):
    domain = Domain.sphere(grid=grid)
    fields = []
    for degree in range(7):
        direction = np.random.default_rng(degree).normal(size=3)
        direction /= np.linalg.norm(direction)
        on_both = [zonal(direction, degree, domain.coordinates(shape, dtype=torch.float64)) for shape in (old, new)]
        fields.append(on_both)
    u, v = (torch.stack(rows)[None] for rows in zip(*fields, strict=True))
    assert (Resample(domain)(u, new) - v).abs().max() < 1e-12


def test_axis_by_axis_is_wrong_near_the_poles():
    # Negative control: latitudes with walls at the poles and cubics between them, longitudes by their Fourier series.
    sphere, box = Domain.sphere(), Domain.box((np.pi, 2 * np.pi), boundary=("neumann", "periodic"))
    direction = np.array([0.6, 0.0, 0.8])
    u, v = (zonal(direction, 5, sphere.coordinates(n, dtype=torch.float64))[None, None] for n in ((13, 24), (25, 48)))
    assert (Resample(sphere)(u, (25, 48)) - v).abs().max() < 1e-12
    assert (Resample(box)(u, (25, 48)) - v).abs().max() > 1e-3


@pytest.mark.parametrize("grid", GRIDS)
def test_harmonics_that_the_new_grid_cannot_carry_are_dropped_not_aliased(grid):
    domain = Domain.sphere(grid=grid)
    high = zonal(np.array([0.36, 0.48, 0.8]), 12, domain.coordinates((24, 48), dtype=torch.float64))[None, None]
    assert Resample(domain)(high, (9, 17)).abs().max() < 1e-12
    assert high.abs().max() > 0.3


def test_resampling_commutes_with_a_convolution():
    domain = Domain.sphere()
    layer = SphericalConv(1, 1, 6, domain=domain).double()
    u = torch.randn(2, 1, 9, 18, dtype=torch.float64)
    resample = Resample(domain)
    torch.testing.assert_close(resample(layer(u), (17, 32)), layer(resample(u, (17, 32))), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(u, output_shape=(17, 32)), layer(resample(u, (17, 32))), rtol=0, atol=1e-12)


def test_same_grid_is_the_identity():
    u = torch.randn(2, 3, 8, 16)
    assert torch.equal(Resample(Domain.sphere())(u, (8, 16)), u)


def test_half_precision_is_computed_in_single():
    u = torch.randn(1, 2, 9, 16).bfloat16()
    assert Resample(Domain.sphere())(u, (13, 24)).dtype == torch.bfloat16


def test_operators_on_gauss_latitudes_can_be_compared():
    # Their grids share no points: outputs are compared after resampling.
    domain = Domain.sphere(grid="gauss")
    layer = SphericalConv(1, 1, 4, domain=domain)

    def cap(x):
        return torch.exp(x[0].cos()) * (1 + 0.3 * x[0].sin() * torch.cos(x[1]))

    measured = convergence_report(layer, domain, cap, [(6, 12), (8, 16), (24, 48)])
    assert measured.error[0] > measured.error[1] > measured.error[2] == 0, f"\n{measured}"
    assert measured.error[1] < 1e-4, f"\n{measured}"
    floors = itertools.pairwise(measured.floor)
    assert all(coarse > fine for coarse, fine in floors), f"\n{measured}"


def test_bad_input_is_refused():
    with pytest.raises(DomainError, match="leave it out"):
        Resample(Domain.sphere(), interpolation=Cubic())
    with pytest.raises(ShapeError, match="expected"):
        Resample(Domain.sphere())(torch.ones(8, 16), (4, 8))
    with pytest.raises(DomainError, match="expected"):
        Resample(Domain.sphere())(torch.ones(1, 1, 8, 16), (1, 8))
