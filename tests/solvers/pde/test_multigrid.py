"""Multigrid on conductance networks: exact coarse networks, a symmetric positive cycle, iterations that do not grow."""

import math

import pytest
import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.solvers import GaussianRandomField
from neuralop_kit.solvers.conjugate_gradients import conjugate_gradients
from neuralop_kit.solvers.pde import FiniteVolumes, LogNormal, MultigridCG, RandomCheckerboard, SparseDirect, TwoPhase
from neuralop_kit.solvers.pde.linear_solvers import sparse_matrix
from neuralop_kit.solvers.pde.multigrid import MultigridCycle
from neuralop_kit.solvers.pde.network import ConductanceNetwork, sum_of_fluxes
from neuralop_kit.solvers.pde.pairing import pair_nodes

SHAPES = [(7,), (8,), (6, 5), (5, 8), (3, 4, 5)]


def cells(num_dims: int) -> Domain:
    return Domain.box((1.0,) * num_dims, boundary="dirichlet", nodes="cell")


def random_network(shape: tuple[int, ...], *, batch: int = 2) -> ConductanceNetwork:
    """Log-normal white noise: as rough as a coefficient can be."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(batch, *shape, generator=generator, dtype=torch.float64).exp()
    return FiniteVolumes(cells(len(shape))).network(a)


def as_matrix(linear_map, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a map that acts on each item of a batch alike."""
    unit = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    return linear_map(unit).flatten(1).mT


def alone(network: ConductanceNetwork) -> ConductanceNetwork:
    """Its first item, ready to act on a batch of unit vectors."""
    size = math.prod(network.shape)
    return ConductanceNetwork(
        [c[:1].expand(size, *c.shape[1:]).contiguous() for c in network.conductances], network.spacing
    )


# ---- the network


@pytest.mark.parametrize("shape", SHAPES)
def test_three_ways_to_write_the_matrix_agree(shape):
    network = random_network(shape)
    matrix = as_matrix(alone(network).apply, shape)
    torch.testing.assert_close(torch.from_numpy(sparse_matrix(network, 0).toarray()), matrix)
    u = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(sum_of_fluxes(network.fluxes(u)), network.apply(u))
    torch.testing.assert_close(matrix, matrix.mT)
    assert torch.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bound_of_the_smoother_holds(shape):
    network = random_network(shape)
    root = network.diagonal[0].flatten().rsqrt()
    scaled = root[:, None] * as_matrix(alone(network).apply, shape) * root
    assert torch.linalg.eigvalsh(scaled).max() <= 2 + 1e-12


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_smoother_is_chebyshevs_polynomial_of_the_fourth_kind(degree):
    # What is left of an eigenvector with eigenvalue 1 - cos(t): sin((k + 1/2) t) / ((2k + 1) sin(t / 2)).
    network = alone(random_network((5, 6)))
    cycle = MultigridCycle(network, degree=degree, dense_nodes=29)
    root = network.diagonal[0].flatten().rsqrt()
    matrix = as_matrix(network.apply, (5, 6))
    eigenvalues, vectors = torch.linalg.eigh(root[:, None] * matrix * root)
    angle = torch.acos(1 - eigenvalues)
    expected = torch.sin((degree + 0.5) * angle) / ((2 * degree + 1) * torch.sin(angle / 2))
    smoother = as_matrix(lambda r: cycle._smooth(cycle.levels[0], r), (5, 6))
    left = torch.eye(30, dtype=torch.float64) - (smoother @ matrix)
    in_eigenvectors = vectors.mT @ (left / root[:, None] * root) @ vectors
    torch.testing.assert_close(in_eigenvectors, torch.diag(expected), rtol=0, atol=1e-11)


# ---- coarsening


@pytest.mark.parametrize("shape", SHAPES)
def test_restriction_is_the_transpose_of_prolongation(shape):
    for axis in range(len(shape)):
        _, pairing = pair_nodes(alone(random_network(shape)), axis)
        coarse_shape = tuple((n + 1) // 2 if i == axis else n for i, n in enumerate(shape))
        size = math.prod(coarse_shape)
        _, smaller = pair_nodes(
            ConductanceNetwork([c[:1].expand(size, *c.shape[1:]) for c in random_network(shape).conductances], shape),
            axis,
        )
        prolong = as_matrix(smaller.prolong, coarse_shape)
        torch.testing.assert_close(as_matrix(pairing.restrict, shape), prolong.mT)


@pytest.mark.parametrize("shape", [(16,), (8, 12), (4, 6, 8)])
def test_coarse_network_of_a_constant_is_the_scheme_of_the_coarse_grid(shape):
    scheme = FiniteVolumes(cells(len(shape)))
    coarse = scheme.network(torch.full((1, *shape), 3.0, dtype=torch.float64))
    for axis in range(len(shape)):
        coarse, _ = pair_nodes(coarse, axis)
    exact = scheme.network(torch.full((1, *[n // 2 for n in shape]), 3.0, dtype=torch.float64))
    assert coarse.spacing == pytest.approx(exact.spacing)
    for ours, theirs in zip(coarse.conductances, exact.conductances, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("axis", [0, 1])
def test_coarse_network_of_layers_conducts_as_the_fine_one(axis):
    # Layers across and along the flow: total conductance from wall to wall, in series and in parallel.
    layers = torch.tensor([1.0, 100.0, 3.0, 0.01, 7.0, 2.0, 2.0], dtype=torch.float64)
    a = layers.view(1, 7, 1).expand(1, 7, 6).contiguous()
    domain = Domain.box(
        (1.0, 1.0), boundary=("dirichlet", "neumann") if axis == 0 else ("neumann", "dirichlet"), nodes="cell"
    )
    network = FiniteVolumes(domain).network(a)
    exact = 1 / (1 / layers).mean() if axis == 0 else layers.mean()
    while max(network.shape) > 1:
        network, _ = pair_nodes(network, 0 if network.shape[0] > 1 else 1)
    lower, upper = network.conductances[axis].flatten()
    assert (1 / (1 / lower + 1 / upper)).item() == pytest.approx(exact.item(), rel=1e-12)


@pytest.mark.parametrize("num_points", [8, 9])
def test_prolongation_keeps_constants_and_the_flux(num_points):
    domain = Domain.box((1.0, 1.0), boundary=("neumann", "dirichlet"), nodes="cell")
    a = torch.randn(1, num_points, 4, dtype=torch.float64).exp()
    network = FiniteVolumes(domain).network(a)
    coarse, pairing = pair_nodes(network, 0)
    ones = torch.ones(1, *coarse.shape, dtype=torch.float64)
    torch.testing.assert_close(pairing.prolong(ones), torch.ones_like(a))
    # One coarse node away from the rest: between the two, the fine values carry one and the same flux.
    step = torch.zeros_like(ones)
    step[:, 2:] = 1
    flux = network.fluxes(pairing.prolong(step))[0]
    between = coarse.fluxes(step)[0][:, 2]
    torch.testing.assert_close(flux[:, 4], between)


# ---- the cycle


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_cycle_is_symmetric_and_positive_definite(shape, degree):
    network = alone(random_network(shape))
    inverse = as_matrix(MultigridCycle(network, degree=degree, dense_nodes=1), shape)
    torch.testing.assert_close(inverse, inverse.mT, rtol=0, atol=1e-12 * inverse.abs().max().item())
    spectrum = torch.linalg.eigvalsh(inverse)
    assert spectrum.min() > 0
    if max(shape) > 5:
        # And it is close to the inverse, for white noise on every scale.
        condition = torch.linalg.eigvals(inverse @ as_matrix(network.apply, shape)).real
        assert condition.max() / condition.min() < 6


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (4, 4, 4), (64,)])
def test_few_nodes_are_solved_exactly(shape):
    network = random_network(shape)
    rhs = torch.rand(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(network.apply(MultigridCycle(network)(rhs)), rhs)
    if max(shape) > 1:
        coarsened = MultigridCycle(network, dense_nodes=1)
        assert not torch.allclose(network.apply(coarsened(rhs)), rhs)


def test_where_dense_solution_begins_hardly_matters():
    a = log_normal(cells(2)).sample(1, (96, 80), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = FiniteVolumes(cells(2)).network(a[:, 0])
    rhs = torch.ones(1, 96, 80, dtype=torch.float64)
    steps = []
    for dense_nodes in (1, 64, 500):
        cycle = MultigridCycle(network, dense_nodes=dense_nodes)
        steps.append(conjugate_gradients(network.apply, rhs, preconditioner=cycle)[1].iterations.item())
    assert max(steps) - min(steps) <= 1, steps


def iterations(a: Tensor, domain: Domain | None = None, **options) -> int:
    """Iterations to 1e-10 for a unit source."""
    scheme = FiniteVolumes(domain or cells(a.ndim - 2))
    network, load = scheme.system(a[:, 0], torch.ones_like(a[:, 0]), None)
    _, info = MultigridCG(rtol=1e-10, **options).solve(network, load)
    assert info.converged.all()
    return int(info.iterations.max())


def two_phase(domain: Domain) -> TwoPhase:
    return TwoPhase.fno(domain)


def log_normal(domain: Domain) -> LogNormal:
    """Contrast of a few thousand."""
    return LogNormal(GaussianRandomField(domain, alpha=2.0, tau=3.0, sigma=15.0, boundary="neumann"))


@pytest.mark.parametrize("distribution", [two_phase, TwoPhase.rough, log_normal])
def test_iterations_do_not_grow_with_the_resolution(distribution):
    counts = []
    for n in (32, 64, 128, 256):
        a = distribution(cells(2)).sample(2, (n, n), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        counts.append(iterations(a))
    assert max(counts) <= 12, counts
    assert counts[-1] - counts[0] <= 1, counts


@pytest.mark.parametrize(
    "shape", [(1000,), (255,), (65, 65), (193, 101), (31, 160), (128, 8), (2, 200), (24, 24, 24), (17, 30, 23)]
)
def test_iterations_are_few_on_grids_of_any_shape(shape):
    a = two_phase(cells(len(shape))).sample(1, shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert iterations(a) <= 14


@pytest.mark.parametrize("aspect", [0.01, 100.0])
def test_stretched_cells_are_coarsened_along_the_strong_axis_first(aspect):
    domain = Domain.box((1.0, aspect), boundary="dirichlet", nodes="cell")
    a = torch.ones(1, 1, 64, 64, dtype=torch.float64)
    assert iterations(a, domain) <= 12
    cycle = MultigridCycle(FiniteVolumes(domain).network(a[:, 0]))
    assert sorted(cycle.levels[1].network.shape) == [32, 64]


def test_plain_smoothing_without_coarse_grids_would_need_many_iterations():
    # Negative control: the counts above come from the coarse networks.
    a = two_phase(cells(2)).sample(1, (64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network, load = FiniteVolumes(cells(2)).system(a[:, 0], torch.ones_like(a[:, 0]), None)
    cycle = MultigridCycle(network)
    smoother = cycle.levels[0]
    _, info = conjugate_gradients(network.apply, load, preconditioner=lambda r: cycle._smooth(smoother, r))
    assert info.iterations.item() > 50


def test_high_contrast_converges():
    board = RandomCheckerboard(cells(2), tiles=(8, 8), high=1e4)
    a = board.sample(2, (64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert iterations(a) <= 60


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_units_do_not_matter(scale):
    network = random_network((20, 17))
    load = torch.ones(2, 20, 17, dtype=torch.float64)
    expected, info = MultigridCG().solve(network, load)
    scaled = ConductanceNetwork([c * scale for c in network.conductances], network.spacing)
    u, report = MultigridCG().solve(scaled, load * scale**2)
    torch.testing.assert_close(u, expected * scale, rtol=1e-10, atol=0)
    assert torch.equal(report.iterations, info.iterations)


def test_single_precision_cycles_lose_nothing():
    network = random_network((40, 40))
    load = torch.ones(2, 40, 40, dtype=torch.float64)
    mixed, info = MultigridCG().solve(network, load)
    double, report = MultigridCG(cycle_dtype=torch.float64).solve(network, load)
    exact, _ = SparseDirect().solve(network, load)
    for u in (mixed, double):
        assert ((u - exact).norm() / exact.norm()).item() < 1e-11
    assert (info.iterations - report.iterations).abs().max() <= 2
