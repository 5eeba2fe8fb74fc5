"""Restriction and prolongation: adjoint, exact for constants and lines, second order, the same on every path."""

import itertools
import math

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.layers.multigrid import Transfers
from neuralop_kit.layers.multigrid.extensions import extension_of
from neuralop_kit.layers.multigrid.levels import Levels, coarsest_intervals
from neuralop_kit.layers.multigrid.transfers import sample

KINDS = [
    ("periodic", "left"),
    ("periodic", "cell"),
    ("dirichlet", "interior"),
    ("dirichlet", "cell"),
    ("neumann", "vertex"),
    ("neumann", "cell"),
]
WITHOUT_DIRICHLET = [kind for kind in KINDS if kind[0] != "dirichlet"]


def box(kind: tuple[str, str], num_dims: int = 2) -> Domain:
    return Domain.box((1.0,) * num_dims, boundary=kind[0], nodes=kind[1])


def transfers(domain: Domain) -> Transfers:
    return Transfers(domain.axes).double()


def shape_of(domain: Domain, *intervals: int) -> tuple[int, ...]:
    return tuple(axis.placement.num_points(n) for axis, n in zip(domain.axes, intervals, strict=True))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [k for k in KINDS if k[1] != "cell"])
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_prolongation_is_the_adjoint_of_restriction(kind, num_dims):
    domain = box(kind, num_dims)
    coarse, fine = shape_of(domain, *[4] * num_dims), shape_of(domain, *[8] * num_dims)
    u, v = noise(1, 2, *fine), noise(1, 2, *coarse)
    weights = [domain.weights(s, dtype=torch.float64) for s in (coarse, fine)]
    if kind[0] == "dirichlet":  # functions vanish on the walls: every point counts the same
        weights = [torch.full(s, math.prod(domain.spacing(s)), dtype=torch.float64) for s in (coarse, fine)]
    left = (weights[0] * transfers(domain).restrict(u, coarse) * v).sum()
    right = (weights[1] * u * transfers(domain).prolong(v, fine)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)


def test_on_neumann_vertices_only_the_trapezoid_weights_make_them_adjoint():
    domain = box(("neumann", "vertex"), 1)
    u, v = noise(1, 1, 9), noise(1, 1, 5)
    left, right = transfers(domain).restrict(u, (5,)) * v / 4, u * transfers(domain).prolong(v, (9,)) / 8
    assert (left.sum() - right.sum()).abs() > 1e-2  # negative control


@pytest.mark.parametrize("kind", WITHOUT_DIRICHLET)
@pytest.mark.parametrize(("coarse", "fine"), [(8, 16), (8, 13), (16, 23), (8, 21)])
def test_constants_are_kept_up_to_the_walls(kind, coarse, fine):
    domain = box(kind)
    small, large = shape_of(domain, coarse, coarse), shape_of(domain, fine, fine + 1)
    ones = torch.ones(1, 3, *large, dtype=torch.float64)
    assert (transfers(domain).restrict(ones, small) - 1).abs().max() <= 1e-14
    assert (transfers(domain).prolong(ones[..., : small[0], : small[1]], large) - 1).abs().max() <= 1e-14


@pytest.mark.parametrize(("coarse", "fine"), [(8, 16), (8, 13)])
def test_between_dirichlet_walls_restriction_and_reconstruction_keep_constants(coarse, fine):
    for nodes in ("interior", "cell"):
        domain = box(("dirichlet", nodes))
        small, large = shape_of(domain, coarse, coarse), shape_of(domain, fine, fine)
        ones = torch.ones(1, 1, *large, dtype=torch.float64)
        assert (transfers(domain).restrict(ones, small) - 1).abs().max() <= 1e-14
        start = ones[..., : small[0], : small[1]]
        assert (transfers(domain).reconstruct(start, large) - 1).abs().max() <= 1e-14
        assert transfers(domain).prolong(start, large)[..., 0, :].max() < 0.9  # towards the wall's zero


@pytest.mark.parametrize("kind", [k for k in KINDS if k[0] != "periodic"])
@pytest.mark.parametrize(("coarse", "fine"), [(8, 16), (8, 13)])
def test_straight_lines_pass_reconstruction_and_injection(kind, coarse, fine):
    domain = box(kind)
    small, large = shape_of(domain, coarse, coarse), shape_of(domain, fine, fine)
    lines = [domain.coordinates(s, dtype=torch.float64)[None] for s in (small, large)]
    torch.testing.assert_close(transfers(domain).reconstruct(lines[0], large), lines[1])
    torch.testing.assert_close(transfers(domain).inject(lines[1], small), lines[0])


@pytest.mark.parametrize("kind", KINDS)
def test_injection_undoes_reconstruction(kind):
    domain = box(kind)
    small, large = shape_of(domain, 8, 8), shape_of(domain, 16, 16)
    u = noise(2, 3, *small)
    assert (transfers(domain).inject(transfers(domain).reconstruct(u, large), small) - u).abs().max() <= 1e-14
    if kind[1] == "cell":  # negative control: linear interpolation between cell centres smooths
        assert (transfers(domain).inject(transfers(domain).prolong(u, large), small) - u).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_convolution_and_the_sampled_path_agree_on_nested_grids(kind):
    domain = box(kind)
    small, large = shape_of(domain, 8, 8), shape_of(domain, 16, 16)
    u = noise(2, 3, *small)
    sampled = u
    for dim, axis in enumerate(domain.axes, start=2):
        sampled = sample(sampled, axis, dim, large[dim - 2], extension_of(axis))
    torch.testing.assert_close(transfers(domain).prolong(u, large), sampled, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [2.0, 1.6])
def test_second_order_for_functions_that_obey_the_conditions(kind, ratio):
    domain = box(kind, 1)
    wave = {"periodic": lambda x: torch.sin(2 * math.pi * x + 0.3), "dirichlet": lambda x: torch.sin(math.pi * x),
            "neumann": lambda x: torch.cos(math.pi * x)}[kind[0]]  # fmt: skip
    errors = []
    for coarse in (20, 40, 80, 160):
        small, large = shape_of(domain, coarse), shape_of(domain, round(ratio * coarse))
        on_small, on_large = (wave(domain.coordinates(s, dtype=torch.float64))[None] for s in (small, large))
        there = (transfers(domain).prolong(on_small, large) - on_large).abs().max()
        back = (transfers(domain).restrict(on_large, small) - on_small).abs().max()
        errors.append(max(there, back).item())
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    # Restricting to Neumann walls from a grid that is not nested takes the wall's value as it is: no order is lost.
    assert orders[-1] == pytest.approx(2.0, abs=0.15), errors


def test_axes_may_differ_in_everything():
    domain = Domain.box((1.0,) * 3, boundary=("periodic", "dirichlet", "neumann"), nodes=("left", "interior", "cell"))
    small, large = (8, 7, 8), (16, 11, 8)  # doubled, sampled, unchanged
    moved = transfers(domain)
    assert moved.prolong(noise(1, 2, *small), large).shape == (1, 2, *large)
    assert moved.restrict(noise(1, 2, *large), small).shape == (1, 2, *small)
    u = noise(1, 2, *small)
    one_by_one = u
    for shape in ((16, 7, 8), large):
        one_by_one = moved.prolong(one_by_one, shape)
    torch.testing.assert_close(moved.prolong(u, large), one_by_one, rtol=0, atol=1e-14)


def test_grids_are_the_same_from_the_coarse_end():
    levels = Levels(Domain.box((1.0, 1.0), nodes="interior"), (2, 2))
    chain = levels.shapes((255, 255))
    assert chain == tuple((2**k - 1, 2**k - 1) for k in range(1, 9))
    for n in (31, 50, 100, 211):
        shapes = levels.shapes((n, n))
        assert shapes[:-1] == chain[: len(shapes) - 1]
        ratio = (n + 1) / (shapes[-2][0] + 1)
        assert 4 / 3 < ratio <= 8 / 3


def test_the_coarsest_grid_follows_the_sides():
    assert coarsest_intervals(Domain.periodic((3.0, 1.0, 2.0)), 4) == (12, 4, 8)
