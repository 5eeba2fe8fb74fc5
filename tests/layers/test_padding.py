"""Padding: the same longer domain at every resolution, and the order that each continuation promises."""

import math

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit import Domain
from neuralop_kit.layers import Extended, FourierContinuation, ReflectionPadding, SpectralConv, ZeroPadding
from neuralop_kit.registry import decode, encode
from neuralop_kit.solvers.errors import ArgumentError
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


class TestExtendedByFourierContinuation(TestExtended):
    domain = Domain.box((1.0,), nodes="interior")
    shapes = ((12,), (9,))
    tiny_shape = (6,)
    reference_shape = (15,)
    num_grids = 4
    order = 4.0

    def make(self) -> nn.Module:
        return Extended(SpectralConv(self.in_channels, 2, (8,)), FourierContinuation(), domain=self.domain)

    def make_tiny(self) -> nn.Module:
        return Extended(SpectralConv(self.in_channels, 1, (3,)), FourierContinuation(), domain=self.domain)


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
    assert smooth.order > 3.5, smooth
    assert max(a / b for a, b in zip(smooth.error, kinked.error, strict=True)) < 0.05


@pytest.mark.parametrize("nodes", ["vertex", "interior"])
def test_zeros_without_quadrature_weights_lose_an_order(nodes):
    class Bare(ZeroPadding):
        def inside(self, u: Tensor, dim: int, axis) -> Tensor:
            return u

    case = line_case(nodes)
    case.max_drift = 0.2
    case.check_convergence(layer=extended(Bare(), nodes), order=1.0)


def test_a_fixed_number_of_points_would_be_another_operator_on_every_grid():
    class EightPoints(ReflectionPadding):
        def num_points(self, axis, num_points: int) -> int:
            return num_points + 8

    with pytest.raises(AssertionError, match="expected"):
        line_case("vertex").check_convergence(layer=extended(EightPoints(), "vertex"))


@placements
@pytest.mark.parametrize("padding", PADDINGS)
def test_restriction_undoes_extension(padding, nodes):
    domain = Domain.box((1.0, 2.0), nodes=nodes)
    u = torch.randn(2, 3, 10, 13, dtype=torch.float64)
    longer = padding.extend(u, domain)
    weights = domain.weights((10, 13), dtype=torch.float64) / math.prod(domain.spacing((10, 13)))
    expected = u * weights if isinstance(padding, ZeroPadding) else u
    torch.testing.assert_close(padding.restrict(longer, (10, 13)), expected)


@placements
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_longer_domain_has_the_same_spacing(padding, nodes):
    domain = Domain.box((1.0, 2.0), boundary=("dirichlet", "periodic"), nodes=(nodes, "left"))
    shape = (*REFERENCE[nodes], 12)
    longer = padding.domain(domain)
    assert longer.is_periodic
    assert longer.lengths == (1.25, 2.0)
    assert padding.extend(torch.zeros(1, 1, *shape), domain).shape[2:] == (40, 12)
    assert longer.spacing((40, 12)) == pytest.approx(domain.spacing(shape))


@placements
@pytest.mark.parametrize("num_points", [5, 8, 33, 50])
def test_the_period_is_right_to_half_a_spacing(nodes, num_points):
    (axis,) = Domain.box((1.0,), nodes=nodes).axes
    for fraction in (0.25, 0.3, 1.0):
        period = ZeroPadding(fraction).num_points(axis, num_points) * axis.spacing(num_points)
        assert abs(period - (1 + fraction)) <= 0.5001 * axis.spacing(num_points)


@placements
def test_polynomials_are_continued_as_themselves_next_to_the_wall(nodes):
    # A cubic is its own fit; the strip continues it until the fade, 1 - 35 s^4 + ..., sets in.
    domain = Domain.box((1.0,), nodes=nodes)
    num_points = 4 * (REFERENCE[nodes][0])
    x = domain.coordinates((num_points,), dtype=torch.float64)[0]
    longer = FourierContinuation().extend((x**3 - x)[None, None], domain)[0, 0]
    behind = x[-1] + domain.spacing((num_points,))[0] * torch.arange(1, 3, dtype=torch.float64)
    torch.testing.assert_close(longer[num_points : num_points + 2], behind**3 - behind, atol=1e-6, rtol=5e-3)


def test_truncated_series_of_a_continued_function():
    # Largest error of exp on [0, 1] from 16 modes to either side: slow decay after a jump, after a kink, fast decay.
    domain, x = Domain.box((1.0,)), torch.linspace(0, 1, 129, dtype=torch.float64)
    errors = []
    for padding in PADDINGS:
        longer = padding.extend(torch.exp(x)[None, None], domain)[0, 0]
        modes = torch.fft.rfft(longer)
        modes[17:] = 0
        errors.append((torch.fft.irfft(modes, n=len(longer)) - longer)[:129].abs().max().item())
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 0.1 * errors[1]
    assert errors[2] < 2e-3


@pytest.mark.parametrize("padding", PADDINGS)
def test_coarse_grids_and_full_reflection_work(padding):
    for nodes in ("vertex", "interior", "cell"):
        domain = Domain.box((1.0,), nodes=nodes)
        for num_points in range(6, 12):
            for fraction in (0.01, 0.25, 1.0):
                longer = type(padding)(fraction).extend(torch.ones(1, 1, num_points), domain)
                assert longer.isfinite().all()


def test_constants_stay_constant():
    # Negative control: zeros do not.
    u = torch.ones(1, 1, 21, dtype=torch.float64)
    for padding in PADDINGS[1:]:
        assert (padding.extend(u, Domain.box((1.0,))) - 1).abs().max() < 1e-12
    assert ZeroPadding().extend(u, Domain.box((1.0,))).min() == 0


@pytest.mark.parametrize("padding", [*PADDINGS, FourierContinuation(0.5, 2)])
def test_a_config_remembers_the_padding(padding):
    assert decode(encode(padding)) == padding


@pytest.mark.parametrize(
    "attempt",
    [lambda: ZeroPadding(0.0), lambda: ReflectionPadding(1.5), lambda: FourierContinuation(0.25, 9)],
)
def test_bad_arguments_are_refused(attempt):
    with pytest.raises(ArgumentError, match="expected"):
        attempt()


def line_case(nodes: str) -> LayerContract:
    """The contract on a line, for its measure of convergence."""
    case = TestExtended()
    case.domain, case.reference_shape, case.num_grids, case.order = line(nodes), REFERENCE[nodes], 4, 2.0
    return case


def line(nodes: str) -> Domain:
    return Domain.box((1.0,), nodes=nodes)


def extended(padding, nodes: str) -> nn.Module:
    torch.manual_seed(0)
    return Extended(SpectralConv(2, 2, (8,)), padding, domain=line(nodes)).double()
