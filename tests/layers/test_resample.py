"""Resample: exact where it says so, of the stated order elsewhere, on every placement of nodes."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralop_kit import Domain
from neuralop_kit.layers import CosineSeries, Cubic, Linear, Resample, SineSeries, Trigonometric, interpolation
from neuralop_kit.solvers.domain import BOUNDARIES
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from tests.contracts.layer import SPECTRAL, LayerContract

WALLS = [(boundary, nodes) for boundary in ("dirichlet", "neumann") for nodes in BOUNDARIES[boundary]]


@pytest.fixture(params=["dense", "sparse"], autouse=True)
def _both_ways(request, monkeypatch):
    """Every test runs with matrices, and with FFTs and gathers."""
    if request.param == "sparse":
        monkeypatch.setattr(interpolation, "MAX_DENSE_POINTS", 0)


def there_and_back(layer, u):
    coarse = tuple(2 * n // 3 + 1 for n in u.shape[2:])
    return layer(layer(u, coarse), u.shape[2:])


class TestResample(LayerContract):
    """Periodic: to a grid of about two thirds of the points and back."""

    order = SPECTRAL

    def make(self):
        return Resample(self.domain)

    def apply(self, layer, u):
        return there_and_back(layer, u)

    accepts_any_channels = takes_complex = True


class TestResampleBetweenWalls(LayerContract):
    domain = Domain.box((1.0, 2.0), boundary=("neumann", "dirichlet"), nodes=("vertex", "interior"))
    shapes = ((12, 9), (7, 8))
    order = 4.0
    order_tolerance = 0.4
    reference_shape = (17, 19)
    accepts_any_channels = takes_complex = True

    def make(self):
        return Resample(self.domain)

    def apply(self, layer, u):
        return there_and_back(layer, u)


def field_of(domain, function, num_points):
    return function(domain.coordinates((num_points,), dtype=torch.float64)[0])[None, None]


def error_of(domain, rule, function, num_old, num_new):
    moved = Resample(domain, interpolation=rule)(field_of(domain, function, num_old), (num_new,))
    return (moved - field_of(domain, function, num_new)).abs().max().item()


def order_of(domain, rule, function):
    """Largest error on grids that are not nested, least-squares slope."""
    sizes = [24, 48, 96, 192]
    errors = [error_of(domain, rule, function, n, 8 * n // 5 + 1) for n in sizes]
    return sum((k - 1.5) * -math.log2(e) for k, e in enumerate(errors)) / 5.0, errors


def waves(highest, *, mean=0.7):
    """Every mode up to ``highest``, with phases."""

    def function(x):
        terms = [math.cos(k) * torch.cos(2 * math.pi * k * x + k * k) for k in range(1, highest + 1)]
        return sum(terms, torch.full_like(x, mean))

    return function


@pytest.mark.parametrize("nodes", BOUNDARIES["periodic"])
@given(num_old=st.integers(1, 40), num_new=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_band_limited_functions_are_exact_for_every_pair_of_sizes(nodes, num_old, num_new):
    domain = Domain.periodic((1.0,), nodes=nodes)
    function = waves((min(num_old, num_new) - 1) // 2)
    assert error_of(domain, None, function, num_old, num_new) < 1e-12


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.5, 2])
def test_nyquist_mode_keeps_its_amplitude(axis, factor):
    # cos(pi i) on a grid of 8 is cos(8 pi x) on one of 16, and back; on each axis of a field.
    shape, new = [6, 6, 6], [6, 6, 6]
    shape[axis] = 8 if factor == 2 else 16
    new[axis] = round(shape[axis] * factor)
    domain = Domain.periodic((1.0, 1.0, 1.0))
    u = torch.cos(8 * math.pi * domain.coordinates(shape, dtype=torch.float64)[axis])[None, None]
    v = torch.cos(8 * math.pi * domain.coordinates(new, dtype=torch.float64)[axis])[None, None]
    torch.testing.assert_close(Resample(domain)(u, new), v, rtol=0, atol=1e-12)


def test_padding_the_spectrum_without_care_doubles_the_nyquist_mode():
    # Negative control: what a plain irfft of a longer spectrum does.
    u = torch.cos(math.pi * torch.arange(8, dtype=torch.float64))
    naive = torch.fft.irfft(torch.fft.rfft(u, norm="forward"), n=16, norm="forward")
    assert naive.abs().max().item() == pytest.approx(2.0)


def test_modes_that_the_new_grid_cannot_carry_are_dropped_not_aliased():
    domain = Domain.periodic((1.0,))
    high = field_of(domain, lambda x: torch.cos(2 * math.pi * 7 * x), 24)
    assert Resample(domain)(high, (10,)).abs().max() < 1e-13
    assert Resample(domain, interpolation=Cubic())(high, (12,)).abs().max() > 0.5  # a local rule samples


@pytest.mark.parametrize(("boundary", "nodes"), WALLS)
@pytest.mark.parametrize(("rule", "order"), [(Linear(), 2.0), (Cubic(), 4.0)])
def test_order_of_local_rules_up_to_the_walls(boundary, nodes, rule, order):
    # exp meets no boundary condition: nothing may be assumed about what lies behind a wall.
    slope, errors = order_of(Domain.box((1.5,), boundary=boundary, nodes=nodes), rule, torch.exp)
    assert slope == pytest.approx(order, abs=0.2), errors


@pytest.mark.parametrize("nodes", BOUNDARIES["periodic"])
@pytest.mark.parametrize(("rule", "order"), [(Linear(), 2.0), (Cubic(), 4.0)])
def test_order_of_local_rules_on_periodic_axes(nodes, rule, order):
    domain = Domain.periodic((1.0,), nodes=nodes)
    slope, errors = order_of(domain, rule, lambda x: torch.exp(torch.sin(2 * math.pi * x)))
    assert slope == pytest.approx(order, abs=0.2), errors


@pytest.mark.parametrize(("rule", "degree"), [(Linear(), 1), (Cubic(), 3)])
@pytest.mark.parametrize(("boundary", "nodes"), WALLS)
def test_local_rules_are_exact_for_polynomials_on_any_pair_of_grids(boundary, nodes, rule, degree):
    domain = Domain.box((2.0,), boundary=boundary, nodes=nodes)
    for num_old, num_new in itertools.product((degree + 1, 9, 16), (2, 7, 30)):
        assert error_of(domain, rule, lambda x: (x - 0.3) ** degree, num_old, num_new) < 1e-12


def test_few_points_lower_the_degree_but_do_not_fail():
    domain = Domain.box((1.0,), boundary="neumann", nodes="cell")
    assert error_of(domain, Cubic(), torch.ones_like, 1, 5) < 1e-14
    assert error_of(domain, Cubic(), lambda x: x**2, 3, 5) < 1e-14


@pytest.mark.parametrize("nodes", ["vertex", "cell"])
def test_cosine_series(nodes):
    domain = Domain.box((1.5,), boundary="neumann", nodes=nodes)
    for num_old, num_new in itertools.product((9, 16, 23), (9, 14, 31)):
        finite = lambda x: sum(torch.cos(math.pi * k * x / 1.5) / (k + 1) for k in range(8))  # noqa: E731
        assert error_of(domain, CosineSeries(), finite, num_old, num_new) < 1e-13
    flat_at_the_walls = lambda x: (x * (1.5 - x)) ** 2 * torch.exp(x)  # noqa: E731
    assert order_of(domain, CosineSeries(), flat_at_the_walls)[0] == pytest.approx(3.0, abs=0.2)
    assert order_of(domain, CosineSeries(), torch.exp)[0] == pytest.approx(1.0, abs=0.2)  # as the docstring warns


@pytest.mark.parametrize("nodes", BOUNDARIES["dirichlet"])
def test_sine_series(nodes):
    domain = Domain.box((1.5,), boundary="dirichlet", nodes=nodes)
    for num_old, num_new in itertools.product((9, 16, 23), (9, 14, 31)):
        finite = lambda x: sum(torch.sin(math.pi * k * x / 1.5) / k for k in range(1, 7))  # noqa: E731
        assert error_of(domain, SineSeries(), finite, num_old, num_new) < 1e-13
    vanishing = lambda x: x * (1.5 - x) * torch.exp(x)  # noqa: E731
    assert order_of(domain, SineSeries(), vanishing)[0] == pytest.approx(2.0, abs=0.2)
    assert order_of(domain, SineSeries(), torch.exp)[0] == pytest.approx(0.0, abs=0.3)  # as the docstring warns


@pytest.mark.parametrize(
    ("boundary", "nodes", "align_corners"),
    [
        ("periodic", "left", True),
        ("dirichlet", "vertex", False),
        ("dirichlet", "interior", True),
        ("neumann", "cell", True),
    ],
)
def test_interpolation_that_does_not_know_the_nodes_shifts_the_field(boundary, nodes, align_corners):
    # Negative control: the choices of torch's interpolate that do not belong to these nodes lose an order.
    domain = Domain.box((1.0,), boundary=boundary, nodes=nodes)
    errors = {"ours": [], "shifted": []}
    for n in (32, 64):
        u, v = (field_of(domain, lambda x: torch.exp(torch.sin(2 * math.pi * x)), size) for size in (n, 2 * n))
        shifted = torch.nn.functional.interpolate(u, 2 * n, mode="linear", align_corners=align_corners)
        errors["ours"].append((Resample(domain, interpolation=Linear())(u, (2 * n,)) - v).abs().max().item())
        errors["shifted"].append((shifted - v).abs().max().item())
    assert errors["ours"][0] / errors["ours"][1] == pytest.approx(4.0, rel=0.2)
    assert errors["shifted"][0] / errors["shifted"][1] == pytest.approx(2.0, rel=0.2)


def test_each_axis_has_its_own_rule():
    domain = Domain.box((1.0, 2.0, 1.0), boundary=("periodic", "neumann", "dirichlet"))
    function = lambda x: waves(3)(x[0]) * torch.cos(math.pi * x[1] / 2) * x[2] ** 3  # noqa: E731
    old, new = (8, 9, 12), (11, 17, 7)
    u, v = (function(domain.coordinates(shape, dtype=torch.float64))[None, None] for shape in (old, new))
    rules = (Trigonometric(), CosineSeries(), Cubic())
    torch.testing.assert_close(Resample(domain, interpolation=rules)(u, new), v, rtol=0, atol=1e-13)


def test_same_grid_is_the_identity():
    domain = Domain.periodic((1.0, 1.0))
    u = torch.randn(2, 3, 8, 9)
    assert torch.equal(Resample(domain)(u, (8, 9)), u)


def test_half_precision_is_computed_in_single():
    u = torch.randn(1, 2, 16).bfloat16()
    layer = Resample(Domain.periodic((1.0,)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(u, (24,)).dtype == torch.bfloat16
        inside = layer(u.float(), (24,))
    assert torch.equal(inside, layer(u.float(), (24,)))


def test_bad_input_is_refused():
    domain = Domain.periodic((1.0, 1.0))
    with pytest.raises(ShapeError, match="expected"):
        Resample(domain)(torch.ones(8, 8), (4, 4))
    with pytest.raises(DomainError, match="expected"):
        Resample(domain)(torch.ones(1, 1, 8, 8), (4,))
    with pytest.raises(DomainError, match="expected"):
        Resample(domain)(torch.ones(1, 1, 8, 8), (4, 0))
    with pytest.raises(ArgumentError, match="expected"):
        Resample(domain, interpolation=(Cubic(),))
    for rule in (CosineSeries(), SineSeries()):
        with pytest.raises(DomainError, match="expected"):
            Resample(domain, interpolation=rule)
    walls = Domain.box((1.0,), nodes="interior")
    for rule in (Trigonometric(), CosineSeries()):
        with pytest.raises(DomainError, match="expected"):
            Resample(walls, interpolation=rule)
    with pytest.raises(DomainError, match="leave it out"):
        Resample(Domain.sphere(), interpolation=Cubic())
    with pytest.raises(DomainError, match="three axes"):
        Resample(Domain.periodic((1.0,) * 4))
