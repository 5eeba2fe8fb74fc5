"""IntegralConv: a kernel of fixed size in space, exact on a torus, second order between walls."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.layers import IntegralConv, Morlet, PiecewiseLinear, Zernike
from neuralop_kit.layers.ball_transform import ball_transform
from neuralop_kit.layers.solid_harmonics import num_harmonics, solid_harmonics
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from tests.contracts.convergence import measure_convergence
from tests.contracts.layer import SPECTRAL, LayerContract

BASES = (PiecewiseLinear(3, 1), PiecewiseLinear(2, 3), Zernike(3, 0), Zernike(2, 1), Morlet(2, 2))


class TestIntegralConv(LayerContract):
    order = SPECTRAL
    tiny_shape = (4, 3)

    def make(self):
        return IntegralConv(self.in_channels, 3, 0.2, domain=self.domain)

    @pytest.mark.parametrize("basis", BASES)
    def test_every_basis_is_exact_on_a_torus(self, basis):
        self.check_convergence(layer=IntegralConv(2, 3, 0.3, domain=self.domain, basis=basis).double())


class TestIntegralConvBetweenWalls(LayerContract):
    domain = Domain.box((1.0, 2.0), boundary=("periodic", "neumann"))
    shapes = ((12, 9), (7, 8))
    order = 2.0
    reference_shape = (12, 33)
    num_grids = 4

    def make(self):
        return IntegralConv(self.in_channels, 3, 0.3, domain=self.domain)

    @pytest.mark.parametrize("nodes", ["vertex", "interior", "cell"])
    def test_second_order_on_every_placement(self, nodes):
        case = TestIntegralConvBetweenWalls()
        case.domain = Domain.box((1.0, 2.0), nodes=nodes)
        case.reference_shape = {"vertex": (17, 33), "interior": (31, 63), "cell": (16, 32)}[nodes]
        case.num_grids = 3
        case.order_tolerance = 0.4
        case.check_convergence(layer=IntegralConv(2, 3, 0.3, domain=case.domain).double())

    def test_missing_end_weights_cost_an_order(self, monkeypatch):
        # Negative control: points on walls must count half.
        monkeypatch.setattr(IntegralConv, "_weigh", lambda self, x: x)
        self.check_convergence(order=1.0)


def directions(num_dims):
    """Points and weights of a rule on the unit sphere; exact for what is asked here."""
    if num_dims == 1:
        return np.array([[1.0, -1.0]]), np.ones(2)
    angle = np.arange(96) * 2 * np.pi / 96
    if num_dims == 2:
        return np.stack([np.cos(angle), np.sin(angle)]), np.full(96, 2 * np.pi / 96)
    height, weight = leggauss(32)
    flat = np.sqrt(1 - height**2)[:, None]
    points = np.stack(np.broadcast_arrays(flat * np.cos(angle), flat * np.sin(angle), height[:, None]))
    return points.reshape(3, -1), np.repeat(weight * 2 * np.pi / 96, 96)


def functions_on_ball(basis, num_dims):
    """Points, weights and values of all functions of a basis, in polar coordinates: an independent integration."""
    nodes, weights = leggauss(32)
    pieces = list(zip(basis.breaks, basis.breaks[1:], strict=False))
    s = np.concatenate([(a + b) / 2 + (b - a) / 2 * nodes for a, b in pieces])
    of_s = np.concatenate([(b - a) / 2 * weights for a, b in pieces]) * s ** (num_dims - 1)
    n, of_n = directions(num_dims)
    both = np.multiply.outer(of_s, of_n)
    values = [np.multiply.outer(t.profile(s), h) for t in basis.terms(num_dims) for h in solid_harmonics(t.degree, n)]
    values = [v / np.sqrt((both * v**2).sum() * both.sum()) for v in values]
    return np.einsum("s,dn->dsn", s, n).reshape(num_dims, -1), both.ravel(), np.stack(values).reshape(len(values), -1)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_transforms_agree_with_integration_in_polar_coordinates(num_dims, basis):
    q = np.random.default_rng(0).normal(size=(num_dims, 5)) * 2
    y, weights, values = functions_on_ball(basis, num_dims)
    expected = (values * weights) @ np.exp(-2j * np.pi * y.T @ q)
    assert basis.size(num_dims) == len(values)
    assert np.abs(ball_transform(basis, q) - expected).max() < 1e-11


@pytest.mark.parametrize(("num_dims", "degree"), [(1, 0), (1, 1), *itertools.product((2, 3), (0, 1, 2, 3))])
def test_harmonics_are_orthonormal_over_directions(num_dims, degree):
    n, weights = directions(num_dims)
    values = np.stack(solid_harmonics(degree, n))
    assert len(values) == num_harmonics(degree, num_dims)
    gram = (values * weights / weights.sum()) @ values.T
    assert np.abs(gram - np.eye(len(values))).max() < 1e-12


@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_convolution_is_the_integral_over_the_ball(num_dims):
    # One smooth function, integrated directly around a few points; a radius below the spacing, and beyond the domain.
    domain = Domain.periodic((1.0, 1.5, 2.0)[:num_dims])
    shape, basis = (17, 18, 19)[:num_dims], Zernike(2, 0)

    def function(x):
        scaled = [line / length for line, length in zip(x, domain.lengths, strict=True)]
        phase = 2 * math.pi * sum((j + 1) * line for j, line in enumerate(scaled))
        return np.sin(phase) + 0.3 * np.cos(2 * phase)

    x = domain.coordinates(shape, dtype=torch.float64).numpy()
    for radius in (0.01, 0.3, 1.1):
        layer = IntegralConv(1, 1, radius, domain=domain, basis=basis).double()
        y, weights, values = functions_on_ball(basis, num_dims)
        kernel = layer.weight.detach().numpy().ravel() @ values * weights
        points = x.reshape(num_dims, -1)[:, ::101][:, :6]
        expected = function(points[:, :, None] - radius * y[:, None]) @ kernel
        actual = layer(torch.from_numpy(function(x))[None, None]).detach().numpy().ravel()[::101][:6]
        assert np.abs(actual - expected).max() < 1e-11


def test_between_walls_the_integral_is_cut_by_the_box():
    # A constant field on a line: what is left of the kernel's integral, known in closed form for a triangle.
    layer = IntegralConv(1, 1, 0.25, domain=Domain.box((1.0,)), basis=PiecewiseLinear(1, 0)).double()
    nn.init.ones_(layer.weight)
    out = layer(torch.ones(1, 1, 257, dtype=torch.float64))[0, 0].detach()
    x = torch.linspace(0, 1, 257, dtype=torch.float64)
    whole = math.sqrt(3) / 2
    seen = whole * (1 - 0.5 * (1 - torch.minimum(x, 1 - x).div(0.25).clamp(max=1)) ** 2)
    torch.testing.assert_close(out, seen, rtol=0, atol=2e-4)


def test_what_is_outside_the_ball_is_not_seen():
    domain = Domain.periodic((1.0, 1.0))
    layer = IntegralConv(1, 1, 0.1, domain=domain, basis=Morlet()).double()
    spike = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    spike[..., 32, 32] = 1.0
    out = layer(spike)[0, 0].detach().abs()
    distance = (domain.coordinates((64, 64), dtype=torch.float64) - 0.5).norm(dim=0)
    assert out[distance > 0.12].max() < 2e-3 * out.max()


@pytest.mark.parametrize("shape", [(12, 9), (8, 15)])
def test_commutes_with_translations(shape):
    layer = IntegralConv(2, 3, 0.2, domain=Domain.periodic((1.0, 2.0))).double()
    u = torch.randn(2, 2, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer(u.roll((2, 3), (2, 3))), layer(u).roll((2, 3), (2, 3)), rtol=0, atol=1e-12)


def test_output_keeps_its_size_where_a_pixel_kernel_loses_it():
    case = TestIntegralConv()
    shapes = [(32, 32), (64, 64), (128, 128)]

    def sizes(layer):
        return torch.tensor([layer(case.field(shape)).square().mean().sqrt().item() for shape in shapes])

    ours = sizes(IntegralConv(2, 3, 0.25, domain=case.domain).double())
    assert (ours / ours[0] - 1).abs().max() < 1e-6
    # Negative control: a convolution of pixels tends to the pointwise product with the sum of its taps.
    pixels = nn.Conv2d(2, 3, 9, padding=4, padding_mode="circular", bias=False).double()
    measured = measure_convergence(lambda shape: pixels(case.field(shape)), case.domain, shapes)
    assert max(measured.drift) > 0.1


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
def test_three_dimensions(boundary):
    domain = Domain.box((1.0, 1.0, 2.0), boundary=boundary)
    layer = IntegralConv(2, 1, 0.4, domain=domain)
    assert layer(torch.randn(3, 2, 9, 8, 7)).shape == (3, 1, 9, 8, 7)


def test_a_bounded_field_is_not_enlarged():
    for basis in BASES:
        layer = IntegralConv(1, 1, 0.2, domain=Domain.periodic((1.0, 1.0)), basis=basis).double()
        for index in range(basis.size(2)):
            with torch.no_grad():
                layer.weight.zero_()[index] = 1.0
            wave = torch.cos(2 * math.pi * Domain.periodic((1.0, 1.0)).coordinates((32, 32), dtype=torch.float64)[0])
            assert layer(wave[None, None]).abs().max() <= 1 + 1e-12


def test_half_precision_is_computed_in_single():
    layer, u = IntegralConv(2, 3, 0.2, domain=Domain.periodic((1.0, 1.0))), torch.randn(2, 2, 12, 9).bfloat16()
    assert torch.equal(layer(u), layer(u.float()).bfloat16())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((0, 1, 0.1), ArgumentError), ((1, 1, 0.0), ArgumentError), ((1, 1, math.inf), ArgumentError)],
)
def test_bad_arguments_are_refused(arguments, error):
    with pytest.raises(error, match="expected"):
        IntegralConv(*arguments, domain=Domain.periodic((1.0,)))
    with pytest.raises(DomainError, match="expected"):
        IntegralConv(1, 1, 0.1, domain=Domain.periodic((1.0,) * 4))
    for make in (lambda: PiecewiseLinear(0), lambda: Zernike(4), lambda: Zernike(2, -1), lambda: Morlet(2, -1)):
        with pytest.raises(ArgumentError, match="expected"):
            make()
