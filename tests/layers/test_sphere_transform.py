"""Spherical harmonics: orthonormal, exact for what a grid carries, the same as those of torch-harmonics."""

import math

import numpy as np
import pytest
import torch

from neuralop_kit.layers.sphere_transform import SphereTransform, carried_degrees, legendre

PEER_GRIDS = {"equiangular": "equiangular", "gauss": "legendre-gauss"}


def coefficients(num_degrees, num_orders):
    """Random ``(2, 3, degree, order)``, of real fields."""
    random = torch.randn(2, 3, num_degrees, num_orders, dtype=torch.complex128).tril()
    random.imag[..., 0] = 0.0
    return random


@pytest.mark.parametrize(("grid", "shape"), [("equiangular", (9, 16)), ("equiangular", (12, 15)), ("gauss", (8, 17))])
def test_agrees_with_torch_harmonics_and_returns_every_degree(grid, shape):
    harmonics = pytest.importorskip("torch_harmonics")
    ours = SphereTransform(grid, shape, carried_degrees(grid, shape[0]))
    assert ours.num_degrees == (shape[0] if grid == "gauss" else shape[0] - 1)
    assert ours.num_orders == min(ours.num_degrees, (shape[1] + 1) // 2)
    kind = {"lmax": ours.num_degrees, "mmax": ours.num_orders, "grid": PEER_GRIDS[grid], "csphase": False}
    expected = coefficients(ours.num_degrees, ours.num_orders)
    u = harmonics.InverseRealSHT(*shape, **kind)(expected.clone())
    modes = ours.to_modes(u)
    returned = torch.view_as_complex(modes.permute(3, 4, 1, 0, 2).contiguous())
    torch.testing.assert_close(returned, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.to_points(modes), u, rtol=0, atol=1e-11)
    if grid == "equiangular":
        # Negative control: quadrature at the points themselves is exact for half of the degrees only.
        assert (harmonics.RealSHT(*shape, **kind)(u) - expected).abs().max() > 0.01


def test_functions_are_orthonormal():
    x, weights = np.polynomial.legendre.leggauss(40)
    table = legendre(x, 40, 30)
    for order in (0, 1, 7, 29):
        gram = 2 * math.pi * (table[order] * weights) @ table[order].T
        assert np.abs(gram - np.diag(np.arange(40) >= order)).max() < 1e-12


def test_high_degrees_stay_orthonormal():
    x, weights = np.polynomial.legendre.leggauss(250)
    table = legendre(x, 250, 250)[::31, 249]
    assert np.abs(2 * math.pi * (table**2 * weights).sum(axis=1) - 1).max() < 1e-10
