"""BoundedSpectralConv: continuation and transform in one matrix, for every placement and every number of points."""

import math

import pytest
import torch
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.layers import (
    BoundedSpectralConv,
    Extended,
    FourierContinuation,
    ReflectionPadding,
    SpectralConv,
    ZeroPadding,
)
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from tests.contracts.layer import LayerContract

PADDINGS = [ZeroPadding(), ReflectionPadding(), FourierContinuation(0.25, 3)]
# Sizes at which a quarter of the length is no whole number of spacings.
ODD_REFERENCE = {"vertex": (36,), "interior": (32,), "cell": (30,)}
EVEN_SHAPE = {"vertex": 33, "interior": 31, "cell": 32}
placements = pytest.mark.parametrize("nodes", ["vertex", "interior", "cell"])


class TestBoundedSpectralConv(LayerContract):
    domain = Domain.box((1.0, 2.0), boundary=("neumann", "dirichlet"), nodes=("cell", "vertex"))
    tiny_shape = (4, 5)
    reference_shape = (10, 12)
    num_grids = 3
    order = 2.0

    def make(self) -> nn.Module:
        return BoundedSpectralConv(self.in_channels, 3, (5, 6), domain=self.domain)

    def make_tiny(self) -> nn.Module:
        return BoundedSpectralConv(self.in_channels, 1, (3, 3), domain=self.domain)


class TestBetweenTwoWalls(TestBoundedSpectralConv):
    """A channel in three dimensions: periodic axes before and behind the one with walls."""

    domain = Domain.box(
        (1.0, 2.0, 1.0), boundary=("periodic", "dirichlet", "periodic"), nodes=("left", "interior", "cell")
    )
    shapes = ((6, 8, 9), (5, 9, 6))
    tiny_shape = (2, 5, 2)
    reference_shape = (6, 15, 6)

    def make(self) -> nn.Module:
        return BoundedSpectralConv(self.in_channels, 2, (3, 5, 3), domain=self.domain, padding=ZeroPadding())

    def make_tiny(self) -> nn.Module:
        return BoundedSpectralConv(self.in_channels, 1, (1, 3, 1), domain=self.domain, padding=ZeroPadding())


def line_case(nodes: str, padding) -> tuple[LayerContract, nn.Module]:
    """The contract on a line, and a layer there."""
    case = TestBoundedSpectralConv()
    case.domain, case.reference_shape, case.num_grids = Domain.box((1.0,), nodes=nodes), ODD_REFERENCE[nodes], 4
    torch.manual_seed(0)
    return case, BoundedSpectralConv(2, 2, (8,), domain=case.domain, padding=padding).double()


@placements
@pytest.mark.parametrize("padding", PADDINGS)
def test_equals_padding_the_array_where_that_needs_no_rounding(padding, nodes):
    domain = Domain.box((1.0, 1.0, 2.0), boundary=("dirichlet", "dirichlet", "periodic"), nodes=(nodes, nodes, "left"))
    plain = SpectralConv(2, 3, (6, 5, 4)).double()
    bounded = BoundedSpectralConv(2, 3, (6, 5, 4), domain=domain, padding=padding).double()
    bounded.load_state_dict(plain.state_dict())
    u = torch.randn(2, 2, EVEN_SHAPE[nodes], EVEN_SHAPE[nodes], 5, dtype=torch.float64)
    torch.testing.assert_close(bounded(u), Extended(plain, padding, domain=domain)(u), atol=1e-11, rtol=0)


@placements
@pytest.mark.parametrize("padding", PADDINGS[:2])
def test_second_order_at_sizes_where_an_array_would_be_rounded(padding, nodes):
    case, layer = line_case(nodes, padding)
    case.check_convergence(layer=layer)


@placements
def test_polynomials_are_far_more_accurate_where_the_strip_is_a_whole_number_of_spacings(nodes):
    errors = []
    for padding in PADDINGS[1:]:
        case, layer = line_case(nodes, padding)
        case.reference_shape, case.order_tolerance = (EVEN_SHAPE[nodes],), math.inf
        errors.append(case.check_convergence(layer=layer).error)
    assert max(smooth / kinked for kinked, smooth in zip(*errors, strict=True)) < 0.05


def test_padding_the_array_is_first_order_there():
    # Negative control: 30, 90, 270, ... cells times 1.25 leave half a cell, so the period is off by half a spacing.
    case, layer = line_case("cell", ReflectionPadding())
    rounded = Extended(SpectralConv(2, 2, (8,)), ReflectionPadding(), domain=case.domain).double()
    rounded.operator.load_state_dict(layer.state_dict())
    case.check_convergence(layer=rounded, order=1.0)


def test_periodic_axes_are_left_alone():
    domain = Domain.periodic((1.0, 2.0))
    plain, bounded = SpectralConv(2, 3, (5, 6)), BoundedSpectralConv(2, 3, (5, 6), domain=domain)
    bounded.load_state_dict(plain.state_dict())
    u = torch.randn(2, 2, 12, 13)
    assert torch.equal(bounded(u), plain(u))


@placements
def test_output_on_another_grid(nodes):
    domain = Domain.box((1.0,), nodes=nodes)
    layer = BoundedSpectralConv(1, 1, (8,), domain=domain).double()
    u = torch.randn(2, 1, 21, dtype=torch.float64)
    (finer,) = domain.refine((21,), 3)
    picked = layer(u, output_shape=(finer,))[(..., *domain.common_nodes((21,), (finer,)))]
    torch.testing.assert_close(picked, layer(u))


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        (lambda: BoundedSpectralConv(1, 1, (4,), domain=Domain.box((1.0, 1.0))), DomainError),
        (lambda: BoundedSpectralConv(1, 1, (4, 4), domain=Domain.sphere()), DomainError),
        (lambda: BoundedSpectralConv(1, 1, (0,), domain=Domain.box((1.0,))), ArgumentError),
    ],
)
def test_bad_arguments_are_refused(attempt, error):
    with pytest.raises(error, match="expected"):
        attempt()
