"""Domains: points where they belong, quadrature of the stated order, nesting, equality, JSON."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralop_kit import Domain, NeuralopKitError
from neuralop_kit.solvers import Axis, SphereDomain
from neuralop_kit.solvers.domain import BOUNDARIES
from neuralop_kit.solvers.errors import DomainError

KINDS = [(boundary, nodes) for boundary, placements in BOUNDARIES.items() for nodes in placements]
# A function that is smooth on [0, 2], not periodic, and vanishes nowhere on the boundary.
EXACT_EXPONENTIAL = math.e**2 - 1


def interval(boundary: str, nodes: str) -> Domain:
    return Domain.box((2.0,), boundary=boundary, nodes=nodes)


def quadrature_error(domain: Domain, num_points: int) -> float:
    x = domain.coordinates((num_points,), dtype=torch.float64)[0]
    return abs((domain.weights((num_points,), dtype=torch.float64) * torch.exp(x)).sum().item() - EXACT_EXPONENTIAL)


@pytest.mark.parametrize(
    ("boundary", "nodes", "expected"),
    [
        ("periodic", "left", [1.0, 1.5, 2.0, 2.5]),
        ("neumann", "cell", [1.25, 1.75, 2.25, 2.75]),
        ("dirichlet", "vertex", [1.0, 1 + 2 / 3, 1 + 4 / 3, 3.0]),
        ("dirichlet", "interior", [1.4, 1.8, 2.2, 2.6]),
    ],
)
def test_points_sit_where_the_placement_says(boundary, nodes, expected):
    domain = Domain.box((2.0,), boundary=boundary, nodes=nodes, origin=(1.0,))
    torch.testing.assert_close(
        domain.coordinates((4,), dtype=torch.float64)[0], torch.tensor(expected, dtype=torch.float64)
    )
    assert domain.spacing((4,))[0] == pytest.approx(expected[1] - expected[0], abs=1e-15)


@pytest.mark.parametrize(("boundary", "nodes"), [k for k in KINDS if k[1] != "left"])
def test_quadrature_is_second_order(boundary, nodes):
    domain = interval(boundary, nodes)
    errors = [quadrature_error(domain, n) for n in (domain.refine((20,), 2**level)[0] for level in range(5))]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders[-1] == pytest.approx(2.0, abs=0.1), orders


@pytest.mark.parametrize(("boundary", "nodes"), [k for k in KINDS if k[1] != "left"])
def test_equal_weights_would_lose_an_order_on_vertices(boundary, nodes):
    # Negative control: a plain mean is only first order where the ends are points, or where both are missing.
    domain = interval(boundary, nodes)
    errors = []
    for n in (domain.refine((40,), 2**level)[0] for level in range(3)):
        x = domain.coordinates((n,), dtype=torch.float64)[0]
        errors.append(abs(2.0 * torch.exp(x).mean().item() - EXACT_EXPONENTIAL))
    order = math.log2(errors[-2] / errors[-1])
    assert order == pytest.approx(2.0 if nodes == "cell" else 1.0, abs=0.15)


@pytest.mark.parametrize("nodes", BOUNDARIES["periodic"])
def test_quadrature_is_spectral_on_periodic_axes(nodes):
    domain = Domain.periodic((2.0,), nodes=nodes)
    x = domain.coordinates((24,), dtype=torch.float64)[0]
    value = (domain.weights((24,), dtype=torch.float64) * torch.exp(torch.sin(math.pi * x))).sum().item()
    assert value == pytest.approx(2.0 * 1.2660658777520082, abs=1e-13)  # 2 I_0(1)


@pytest.mark.parametrize(("boundary", "nodes"), KINDS)
@given(num_points=st.integers(2, 200), length=st.floats(1e-3, 1e3))
def test_weights_are_positive_and_sum_to_the_measure(boundary, nodes, num_points, length):
    weights = Domain.box((length,), boundary=boundary, nodes=nodes).weights((num_points,), dtype=torch.float64)
    assert weights.min() > 0
    assert weights.sum().item() == pytest.approx(length, rel=1e-12)


@pytest.mark.parametrize(("boundary", "nodes"), [k for k in KINDS if k[1] != "left"])
def test_linear_functions_are_integrated_exactly(boundary, nodes):
    domain = interval(boundary, nodes)
    for n in (2, 3, 8, 33):
        x = domain.coordinates((n,), dtype=torch.float64)[0]
        assert (domain.weights((n,), dtype=torch.float64) * x).sum().item() == pytest.approx(2.0, abs=1e-13)


@pytest.mark.parametrize(("boundary", "nodes"), KINDS)
@given(num_points=st.integers(2, 60), factor=st.integers(1, 5))
def test_refinement_divides_the_spacing_and_coarsening_undoes_it(boundary, nodes, num_points, factor):
    domain = interval(boundary, nodes)
    fine = domain.refine((num_points,), factor)
    assert domain.spacing(fine)[0] == pytest.approx(domain.spacing((num_points,))[0] / factor, rel=1e-12)
    assert domain.coarsen(fine, factor) == (num_points,)


@pytest.mark.parametrize(("boundary", "nodes"), KINDS)
@given(num_points=st.integers(2, 40), factor=st.sampled_from([1, 3, 5]))
def test_common_nodes_are_the_same_points(boundary, nodes, num_points, factor):
    domain = interval(boundary, nodes)
    fine = domain.refine((num_points,), factor)
    picked = domain.coordinates(fine, dtype=torch.float64)[0][domain.common_nodes((num_points,), fine)]
    torch.testing.assert_close(picked, domain.coordinates((num_points,), dtype=torch.float64)[0])


def test_cell_centres_are_not_nested_under_halving():
    with pytest.raises(DomainError, match="odd factor"):
        Domain.box((1.0,), boundary="neumann", nodes="cell").common_nodes((8,), (16,))


def test_coarsening_error_names_sizes_that_work():
    with pytest.raises(DomainError, match="take 63 or 65"):
        Domain.box((1.0,), boundary="dirichlet", nodes="vertex").coarsen((64,))


def test_shapes_and_axis_order():
    domain = Domain.box((2.0, 1.0, 4.0), boundary=("periodic", "dirichlet", "neumann"))
    grid = domain.coordinates((4, 5, 6))
    assert grid.shape == (3, 4, 5, 6)
    assert grid.dtype == torch.get_default_dtype()
    assert (grid[1, 0, :, 0].diff() > 0).all()
    assert (grid[1].diff(dim=0) == 0).all()
    assert domain.weights((4, 5, 6), dtype=torch.float64).sum().item() == pytest.approx(domain.measure)
    assert not domain.is_periodic


def test_equality_hash_and_repr():
    first, second = Domain.periodic((1.0, 2.0)), Domain.box((1, 2), boundary="periodic", nodes="left")
    assert first == second
    assert hash(first) == hash(second)
    assert first != Domain.periodic((1.0, 2.0), nodes="cell")
    assert Domain.sphere() != Domain.sphere(radius=2.0)
    assert "periodic/left" in repr(first)


@pytest.mark.parametrize(
    "domain",
    [Domain.periodic((0.1, 3.0)), Domain.box((1.0,), origin=(-0.5,)), Domain.sphere(radius=6.37e6, grid="gauss")],
)
def test_json_round_trip(domain):
    assert Domain.from_json(json.loads(json.dumps(domain.to_json()))) == domain


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: Domain([]),
        lambda: Domain.periodic((0.0,)),
        lambda: Domain.periodic((float("nan"),)),
        lambda: Domain.box((1.0,), boundary="open"),
        lambda: Domain.box((1.0,), boundary="periodic", nodes="vertex"),
        lambda: Domain.box((1.0, 1.0), boundary=("periodic",)),
        lambda: Domain.box(1.0),
        lambda: Domain.periodic((1.0,)).coordinates(16),
        lambda: Axis(1.0, 0.0, "neumann", "cell"),
        lambda: Domain.periodic((1.0,)).spacing((4, 4)),
        lambda: Domain.periodic((1.0,)).weights((0,)),
        lambda: Domain.box((1.0,)).weights((1,)),
        lambda: Domain.from_json({"type": "box"}),
        lambda: Domain.from_json({"type": "klein bottle"}),
        lambda: Domain.sphere(radius=-1.0),
        lambda: Domain.sphere(grid="healpix"),
        lambda: Domain.sphere(grid="gauss").common_nodes((8, 16), (16, 32)),
    ],
)
def test_bad_input_is_refused_with_our_error(attempt):
    with pytest.raises(NeuralopKitError, match="expected"):
        attempt()


class TestSphere:
    @pytest.mark.parametrize(("grid", "degree"), [("equiangular", 16), ("gauss", 33)])
    def test_zonal_polynomials_are_exact_to_the_stated_degree(self, grid, degree):
        sphere = Domain.sphere(grid=grid)
        theta = sphere.coordinates((17, 8), dtype=torch.float64)[0]
        weights = sphere.weights((17, 8), dtype=torch.float64)
        for k in range(degree + 1):
            exact = 2 * math.pi * (2 / (k + 1) if k % 2 == 0 else 0.0)
            assert (weights * torch.cos(theta) ** k).sum().item() == pytest.approx(exact, abs=1e-12)

    def test_one_degree_more_is_not_exact(self):
        sphere = Domain.sphere(grid="gauss")
        theta = sphere.coordinates((5, 8), dtype=torch.float64)[0]
        value = (sphere.weights((5, 8), dtype=torch.float64) * torch.cos(theta) ** 10).sum().item()
        assert abs(value - 4 * math.pi / 11) > 1e-3

    def test_area_scales_with_the_radius(self):
        sphere = Domain.sphere(radius=3.0)
        assert isinstance(sphere, SphereDomain)
        assert sphere.weights((9, 18), dtype=torch.float64).sum().item() == pytest.approx(36 * math.pi, rel=1e-13)
