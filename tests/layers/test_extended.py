"""Extended: the same longer domain at every resolution, with the order that each continuation promises."""

import math

import pytest
import torch
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.layers import Extended, FourierContinuation, ReflectionPadding, SpectralConv, ZeroPadding
from neuralop_kit.layers.extended import longer_domain
from tests.contracts.layer import LayerContract

PADDINGS = [ZeroPadding(), ReflectionPadding(), FourierContinuation()]
# Grids of 32, 64, ... intervals on every placement.
REFERENCE = {"vertex": (33,), "interior": (31,), "cell": (32,)}
placements = pytest.mark.parametrize("nodes", ["vertex", "interior", "cell"])


class TestExtended(LayerContract):
    domain = Domain.box(
        (1.0, 2.0, 1.0), boundary=("neumann", "periodic", "dirichlet"), nodes=("cell", "left", "vertex")
    )
    shapes = ((8, 6, 9), (9, 7, 6))
    tiny_shape = (4, 2, 5)
    reference_shape = (8, 6, 9)
    num_grids = 3
    order = 2.0

    def make(self) -> nn.Module:
        return Extended(SpectralConv(self.in_channels, 2, (5, 3, 5)), ReflectionPadding(), domain=self.domain)

    def make_tiny(self) -> nn.Module:
        return Extended(SpectralConv(self.in_channels, 1, (3, 1, 3)), ReflectionPadding(), domain=self.domain)


def line_case(nodes: str) -> LayerContract:
    """The contract on a line, for its measure of convergence."""
    case = TestExtended()
    case.domain, case.reference_shape, case.num_grids = line(nodes), REFERENCE[nodes], 4
    return case


def line(nodes: str) -> Domain:
    return Domain.box((1.0,), nodes=nodes)


def extended(padding, nodes: str) -> nn.Module:
    torch.manual_seed(0)
    return Extended(SpectralConv(2, 2, (8,)), padding, domain=line(nodes)).double()


@placements
@pytest.mark.parametrize("padding", PADDINGS[:2])
def test_zeros_and_mirror_images_are_second_order(padding, nodes):
    line_case(nodes).check_convergence(layer=extended(padding, nodes))


@placements
def test_polynomials_are_far_more_accurate_than_mirror_images(nodes):
    case = line_case(nodes)
    case.order_tolerance = math.inf
    smooth = case.check_convergence(layer=extended(FourierContinuation(), nodes))
    kinked = case.check_convergence(layer=extended(ReflectionPadding(), nodes))
    assert max(a / b for a, b in zip(smooth.error, kinked.error, strict=True)) < 0.1


@pytest.mark.parametrize("nodes", ["vertex", "interior"])
def test_zeros_with_equal_weights_lose_an_order(nodes):
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.operator = extended(ZeroPadding(), nodes).operator

        def forward(self, u):
            intervals = line(nodes).axes[0].placement.num_intervals(u.shape[-1])
            return self.operator(nn.functional.pad(u, (0, intervals * 5 // 4 - u.shape[-1])))[..., : u.shape[-1]]

    case = line_case(nodes)
    case.max_drift = 0.2
    case.check_convergence(layer=Bare(), order=1.0)


def test_a_fixed_number_of_points_would_be_another_operator_on_every_grid():
    class EightPoints(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.operator = extended(ZeroPadding(), "vertex").operator

        def forward(self, u):
            return self.operator(nn.functional.pad(u, (0, 8)))[..., : u.shape[-1]]

    with pytest.raises(AssertionError, match="expected"):
        line_case("vertex").check_convergence(layer=EightPoints())


@placements
@pytest.mark.parametrize("padding", PADDINGS)
def test_restriction_undoes_extension(padding, nodes):
    domain = Domain.box((1.0, 2.0), nodes=nodes)
    u = torch.randn(2, 3, 10, 13, dtype=torch.float64)
    weights = domain.weights((10, 13), dtype=torch.float64) / math.prod(domain.spacing((10, 13)))
    expected = u * weights if isinstance(padding, ZeroPadding) else u
    torch.testing.assert_close(Extended(nn.Identity(), padding, domain=domain)(u), expected)


@placements
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_longer_domain_has_the_same_spacing(padding, nodes):
    domain = Domain.box((1.0, 2.0), boundary=("dirichlet", "periodic"), nodes=(nodes, "left"))
    shape = (*REFERENCE[nodes], 12)
    longer = longer_domain(domain, padding)
    assert longer.is_periodic
    assert longer.lengths == (1.25, 2.0)
    assert Extended(nn.Identity(), padding, domain=domain).extend(torch.zeros(1, 1, *shape)).shape[2:] == (40, 12)
    assert longer.spacing((40, 12)) == pytest.approx(domain.spacing(shape))


@placements
@pytest.mark.parametrize("num_points", [5, 8, 33, 50])
def test_the_period_is_right_to_half_a_spacing(nodes, num_points):
    spacing = line(nodes).spacing((num_points,))[0]
    for fraction in (0.25, 0.3, 1.0):
        layer = Extended(nn.Identity(), ZeroPadding(fraction), domain=line(nodes))
        period = layer.extend(torch.zeros(1, 1, num_points)).shape[-1] * spacing
        assert abs(period - (1 + fraction)) <= 0.5001 * spacing
