"""SphericalMultigrid: rings are what they claim, textbook kernels solve, nothing depends on the grid."""

import math

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.layers.multigrid import Chebyshev, EllipticKernels, Jacobi, RedBlack, SphericalMultigrid
from neuralop_kit.layers.multigrid.ring_levels import ring_means
from neuralop_kit.models import MgNO
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from tests.contracts.layer import SPECTRAL, LayerContract

SPHERE = Domain.sphere()


class SphereContract(LayerContract):
    domain = SPHERE
    shapes = ((8, 12), (7, 9))
    tiny_shape = (4, 5)
    reference_shape = (17, 32)
    num_grids = 3
    order = SPECTRAL

    def function(self, x, phase):
        theta, phi = x
        return torch.exp(theta.sin() * torch.cos(phi + phase) / 2) * (1 + theta.cos() / 2)


class TestSphericalMultigrid(SphereContract):
    def make(self):
        return SphericalMultigrid(self.in_channels, 3, 3, domain=self.domain)


class TestWCycleWithTwoRings(SphereContract):
    def make(self):
        return SphericalMultigrid(
            self.in_channels, 2, 2, domain=self.domain, cycle="W", post_smoothing=0, coarsest=3, num_rings=2
        )


def solver(levels: int, radius: float = 1.0, **options) -> SphericalMultigrid:
    options = {"initialization": EllipticKernels(), **options}
    return SphericalMultigrid(1, 1, levels, domain=Domain.sphere(radius=radius), **options).double()


def errors(layer: SphericalMultigrid) -> torch.Tensor:
    """Factor of an error of each degree after one cycle; the constant, which the Laplacian annihilates, is left out."""
    count = layer.coarsest * 2 ** (layer.levels - 1)
    product = layer.multiplier(count) @ layer.system_multiplier(count)
    return (1 - product[1:, 0, 0]).abs()


def contraction(layer: SphericalMultigrid) -> float:
    """The largest of them."""
    return errors(layer).max().item()


def test_rings_are_means_over_circles():
    # cos(angle to a direction) ** 3 has degrees 1 and 3; its mean over a circle, by the trapezoidal rule.
    x = torch.tensor([0.3, -0.5, math.sqrt(1 - 0.34)], dtype=torch.float64)
    direction = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64) / 3
    distance = math.pi / 5
    east = torch.linalg.cross(x, direction) / torch.linalg.cross(x, direction).norm()
    angle = torch.arange(64, dtype=torch.float64)[:, None] * (2 * math.pi / 64)
    tangent = angle.cos() * east + angle.sin() * torch.linalg.cross(x, east)
    circle = math.cos(distance) * x + math.sin(distance) * tangent
    expected = (circle @ direction).pow(3).mean()
    t = x @ direction
    by_degree = torch.stack([0.6 * t, 0.4 * (2.5 * t**3 - 1.5 * t)])
    means = ring_means(0, 4, 5, 1, torch.float64, x.device)[:, 1]
    torch.testing.assert_close(by_degree @ means[[1, 3]], expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("smoother", "bound"), [(Jacobi(), 0.34), (Chebyshev(), 0.30)])
def test_textbook_kernels_contract_independently_of_the_grid(smoother, bound):
    factors = [contraction(solver(levels, smoother=smoother)) for levels in range(2, 9)]
    assert max(factors) < bound
    assert factors[-1] - factors[-2] < 0.005
    # Negative control: the same sweeps on one level alone.
    assert contraction(solver(1, coarsest=128, smoother=smoother)) > 0.99


def test_cycles_that_do_more_contract_more():
    by_cycle = {cycle: errors(solver(6, cycle=cycle)) for cycle in ("backslash", "V", "W")}
    # No cycle helps degrees that the coarser levels do not carry, but W solves the others better.
    assert torch.equal(by_cycle["W"][32:], by_cycle["V"][32:])
    assert by_cycle["W"][:31].max() < 0.85 * by_cycle["V"][:31].max()
    assert by_cycle["V"].max() < by_cycle["backslash"].max() < 0.7


def test_solves_an_elliptic_equation_to_second_order():
    # Degree 5 is an eigenfunction of the Laplacian: -Lap u + 2 u = (30 / radius^2 + 2) u.
    radius, found = 3.0, []
    theta, phi = SPHERE.coordinates((81, 160), dtype=torch.float64)
    u = (theta.sin() ** 5 * torch.cos(5 * phi))[None, None]
    for levels in (5, 6):
        layer = solver(levels, radius, initialization=EllipticKernels(reaction=2.0))
        f = (30 / radius**2 + 2) * u
        v = torch.zeros_like(u)
        for _ in range(25):
            v = v + layer(f - layer.system(v))
        assert (f - layer.system(v)).abs().max() < 1e-9
        found.append((v - u).abs().max().item())
    assert 3.5 < found[0] / found[1] < 4.5


def test_nothing_depends_on_the_grid():
    torch.manual_seed(0)
    layer = SphericalMultigrid(2, 3, 3, domain=SPHERE).double()
    assert torch.equal(layer.multiplier(10), layer.multiplier(40)[:10])
    # Degrees above the last level of its own see something, too.
    assert layer.multiplier(40)[8:].abs().flatten(1).max(dim=1).values.min() > 1e-3


@pytest.mark.parametrize("shape", [(9, 16), (17, 24)])
def test_commutes_with_rotations(shape):
    torch.manual_seed(0)
    layer = SphericalMultigrid(1, 2, 3, domain=SPHERE).double()
    theta, phi = SPHERE.coordinates(shape, dtype=torch.float64)
    points = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=-1)
    multiplier = layer.multiplier(6)[:, :, 0]
    direction = torch.nn.functional.normalize(torch.randn(3, dtype=torch.float64), dim=0)
    t = points @ direction
    u = torch.stack([torch.ones_like(t), t, 1.5 * t**2 - 0.5, 2.5 * t**3 - 1.5 * t])
    expected = multiplier[:4, :, None, None] * u[:, None]
    torch.testing.assert_close(layer(u[:, None]), expected, rtol=0, atol=1e-12)


def test_mgno_on_the_sphere():
    model = MgNO(1, 2, domain=SPHERE, width=6, num_layers=2, levels=3, coarsest=2)
    u = torch.randn(2, 1, 16, 32)
    assert model(u).shape == (2, 2, 16, 32)
    assert sum(isinstance(m, SphericalMultigrid) for m in model.modules()) == 2
    model(u).square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.layers[0].operator.smoother_kernels)


def test_bad_arguments_are_refused():
    with pytest.raises(DomainError, match="MultigridOperator"):
        SphericalMultigrid(1, 1, 2, domain=Domain.periodic((1.0, 1.0)))
    for options in ({"coarsest": 1}, {"num_rings": 3}, {"cycle": "Z"}, {"smoother": RedBlack()}):
        with pytest.raises(ArgumentError, match="expected"):
            SphericalMultigrid(1, 1, 2, domain=SPHERE, **options)
    with pytest.raises(ShapeError, match="channel"):
        SphericalMultigrid(1, 1, 2, domain=SPHERE)(torch.randn(8, 16))
