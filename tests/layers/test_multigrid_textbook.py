"""With textbook stencils the layer is textbook multigrid: dense matrices, contraction, symmetry, conditioning."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.layers import MultigridOperator
from neuralop_kit.layers.multigrid import (
    Chebyshev,
    EllipticKernels,
    Jacobi,
    RedBlack,
    Smoother,
    condition_number,
    contraction_factor,
    symmetry_defect,
)
from neuralop_kit.solvers.errors import ArgumentError

VERTEX_KINDS = [("dirichlet", "interior"), ("neumann", "vertex"), ("periodic", "left")]
CELL_KINDS = [("dirichlet", "cell"), ("neumann", "cell"), ("periodic", "cell")]
DIRICHLET = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="interior")


def solver(domain: Domain = DIRICHLET, *, levels: int = 9, smoother: Smoother | None = None, **options):
    """Multigrid for the Laplacian down to two intervals."""
    options = {"coarsest": 2, **options}
    initialization = options.pop("initialization", EllipticKernels())
    layer = MultigridOperator(
        1, 1, levels, domain=domain, smoother=smoother, initialization=initialization, **options
    ).double()
    layer.reset_parameters()  # 4/5 in double precision
    return layer


def num_points(domain: Domain, intervals: int) -> int:
    return domain.axes[0].placement.num_points(intervals)


# ---- an independent implementation: every map a dense matrix


def laplacian_1d(kind: tuple[str, str], n: int, h: float) -> np.ndarray:
    a = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    if kind[0] == "periodic":
        a[0, -1] -= 1
        a[-1, 0] -= 1
    elif kind == ("neumann", "vertex"):
        a[0, 1] = a[-1, -2] = -2
    elif kind[1] == "cell":
        a[0, 0] = a[-1, -1] = 3 if kind[0] == "dirichlet" else 1
    return a / h**2


def prolongation_1d(kind: tuple[str, str], n: int) -> np.ndarray:
    """From ``n`` coarse points."""
    boundary, nodes = kind
    intervals = {"interior": n + 1, "vertex": n - 1}.get(nodes, n)
    fine = {"interior": 2 * intervals - 1, "vertex": 2 * intervals + 1}.get(nodes, 2 * intervals)
    offset = {"interior": 1.0, "cell": 0.5}.get(nodes, 0.0)
    p = np.zeros((fine, n))
    for i in range(fine):
        x = (i + offset) / 2 - offset  # in coarse spacings from the first coarse point
        for j, weight in ((math.floor(x), 1 - x % 1), (math.floor(x) + 1, x % 1)):
            if boundary == "periodic":
                p[i, j % n] += weight
            elif 0 <= j < n:
                p[i, j] += weight
            elif nodes == "cell":  # a ghost cell mirrors its neighbour, odd or even
                p[i, min(max(j, 0), n - 1)] += weight * (-1 if boundary == "dirichlet" else 1)
    return p


def restriction_1d(kind: tuple[str, str], n: int) -> np.ndarray:
    """To ``n`` coarse points: the transposed interpolation with rows that sum to one; the mean of two cells."""
    if kind[1] == "cell":
        return np.kron(np.eye(n), [[0.5, 0.5]])
    p = prolongation_1d(kind, n)
    r = p.T / 2
    if kind == ("neumann", "vertex"):  # adjoint with trapezoid weights 1/2 at the walls
        fine, coarse = np.ones(p.shape[0]), np.ones(n)
        fine[[0, -1]] = coarse[[0, -1]] = 0.5
        r = (p.T * fine) / coarse[:, None] / 2
    return r


def dense_cycle(
    kind: tuple[str, str], domain: Domain, level: int, f: np.ndarray, u: np.ndarray, shape: str
) -> np.ndarray:
    n = num_points(domain, 2 ** (level + 1))
    line, one = laplacian_1d(kind, n, 2.0 ** -(level + 1)), np.eye(n)
    a = np.kron(line, one) + np.kron(one, line)
    # The smoother is a stencil: 0.8 times the inverse of the inner diagonal, also next to walls.
    sweep = 0.8 * 2.0 ** (-2 * level - 2) / 4
    if level == 0:
        for _ in range(2):
            u = u + sweep * (f - a @ u)
        return u
    coarse = num_points(domain, 2**level)
    r, p = restriction_1d(kind, coarse), prolongation_1d(kind, coarse)
    r, p = np.kron(r, r), np.kron(p, p)
    u = u + sweep * (f - a @ u)
    rest, correction = r @ (f - a @ u), np.zeros((coarse**2, f.shape[1]))
    for _ in range({"V": 1, "W": 2}[shape]):
        correction = dense_cycle(kind, domain, level - 1, rest, correction, shape)
    u = u + p @ correction
    return u + sweep * (f - a @ u)


def as_matrix(layer: MultigridOperator, n: int, *, system: bool = False) -> Tensor:
    columns = torch.eye(n * n, dtype=torch.float64).view(n * n, 1, n, n)
    with torch.no_grad():
        return (layer.system if system else layer)(columns).flatten(1).T


@pytest.mark.parametrize("shape", ["V", "W"])
@pytest.mark.parametrize("kind", VERTEX_KINDS + CELL_KINDS)
def test_equals_dense_matrices(kind, shape):
    domain = Domain.box((1.0, 1.0), boundary=kind[0], nodes=kind[1])
    layer = solver(domain, cycle=shape)
    for level in (1, 2, 3):  # two grids, and the cycles on top of them: 7 and 15 interior points
        n = num_points(domain, 2 ** (level + 1))
        identity = np.eye(n * n)
        expected = torch.from_numpy(dense_cycle(kind, domain, level, identity, np.zeros_like(identity), shape))
        assert (as_matrix(layer, n) - expected).abs().max() <= 1e-12 * expected.abs().max()


# ---- contraction


@pytest.mark.parametrize("kind", VERTEX_KINDS)
@pytest.mark.parametrize(
    ("smoother", "low", "high"), [(Jacobi(), 0.34, 0.38), (Chebyshev(), 0.20, 0.24), (RedBlack(), 0.10, 0.13)]
)
def test_contraction_of_v11_does_not_depend_on_the_size(kind, smoother, low, high):
    domain = Domain.box((1.0, 1.0), boundary=kind[0], nodes=kind[1])
    layer = solver(domain, smoother=smoother)
    for intervals in (32, 64, 128):
        n = num_points(domain, intervals)
        assert low <= contraction_factor(layer, (n, n), rtol=1e-2) <= high


def test_contraction_holds_up_to_511_points():
    assert 0.34 <= contraction_factor(solver(), (511, 511), rtol=3e-2) <= 0.38


@pytest.mark.parametrize("kind", CELL_KINDS)
@pytest.mark.parametrize(("smoother", "low", "high"), [(Jacobi(), 0.34, 0.38), (Chebyshev(), 0.20, 0.24)])
def test_contraction_on_cells(kind, smoother, low, high):
    domain = Domain.box((1.0, 1.0), boundary=kind[0], nodes=kind[1])
    for n in (32, 64):
        assert low <= contraction_factor(solver(domain, smoother=smoother), (n, n), rtol=1e-2) <= high


@pytest.mark.parametrize(
    ("cycle", "sweeps", "two_grid_factor"),
    # Local Fourier analysis of two grids with damped Jacobi 4/5; W and F cycles come close to it.
    [("W", (1, 1), 0.360), ("F", (1, 1), 0.360), ("W", (2, 1), 0.216), ("W", (2, 2), 0.137), ("W", (1, 0), 0.600)],
)
def test_w_and_f_cycles_contract_like_two_grids(cycle, sweeps, two_grid_factor):
    layer = solver(cycle=cycle, pre_smoothing=sweeps[0], post_smoothing=sweeps[1])
    assert contraction_factor(layer, (63, 63)) == pytest.approx(two_grid_factor, rel=0.02)


@pytest.mark.parametrize(("num_dims", "two_grid_factor"), [(1, 0.111), (3, 0.51)])
def test_one_and_three_dimensions(num_dims, two_grid_factor):
    domain = Domain.periodic((1.0,) * num_dims)
    layer = solver(domain, cycle="W")
    assert contraction_factor(layer, (32,) * num_dims) == pytest.approx(two_grid_factor, rel=0.06)


def test_a_rectangle_with_square_cells():
    domain = Domain.box((2.0, 1.0), boundary="dirichlet", nodes="interior")
    assert 0.34 <= contraction_factor(solver(domain), (63, 31), rtol=1e-2) <= 0.38


@pytest.mark.parametrize("n", [41, 60, 84, 85, 100, 129])
def test_sizes_that_do_not_halve_still_contract(n):
    assert contraction_factor(solver(), (n, n), rtol=1e-2) < 0.6


def test_depth_must_grow_with_the_resolution():
    # Five levels are enough at 31 points and hopeless at 255.
    shallow = solver(levels=5, coarsest=16, coarsest_sweeps=2)
    assert contraction_factor(shallow, (255, 255), rtol=1e-2) > 0.9
    assert contraction_factor(solver(levels=8), (255, 255), rtol=3e-2) < 0.38


def test_repeated_stencils_solve_on_finer_grids_too():
    assert contraction_factor(solver(levels=4, fine_levels="repeat"), (63, 63), rtol=1e-2) < 0.38
    # Negative control: what converges for any stencils is no solver.
    assert contraction_factor(solver(levels=4, fine_levels="interpolate"), (63, 63), rtol=1e-2) > 0.38


def test_one_sweep_damps_a_mode_as_it_must():
    n, p, q = 31, 5, 12
    layer = solver(levels=1, coarsest=n + 1)  # two sweeps, nothing else
    x = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
    mode = (torch.sin(p * math.pi * x)[:, None] * torch.sin(q * math.pi * x))[None, None]
    factor = 1 - 0.8 * (math.sin(p * math.pi / (2 * n + 2)) ** 2 + math.sin(q * math.pi / (2 * n + 2)) ** 2)
    assert (mode - layer(layer.system(mode)) - factor**2 * mode).abs().max() < 1e-13


def test_reaction_and_diffusivity():
    # For -3 Laplace + 40 the system has the stencil's own eigenvalue on a sine, and the cycle still inverts it.
    layer = solver(initialization=EllipticKernels(diffusivity=3.0, reaction=40.0))
    x = torch.arange(1, 32, dtype=torch.float64) / 32
    mode = (torch.sin(math.pi * x)[:, None] * torch.sin(2 * math.pi * x))[None, None]
    symbol = 3.0 * 4 * 32**2 * (math.sin(math.pi / 64) ** 2 + math.sin(math.pi / 32) ** 2) + 40.0
    torch.testing.assert_close(layer.system(mode), symbol * mode, rtol=1e-10, atol=1e-9)
    assert contraction_factor(layer, (31, 31), rtol=1e-2) < 0.38


def test_other_channel_counts_get_the_solver_times_a_channel_map():
    scalar, u = solver(), torch.randn(1, 1, 31, 31, dtype=torch.float64)
    wide = MultigridOperator(1, 5, 9, domain=DIRICHLET, coarsest=2, initialization=EllipticKernels()).double()
    out = wide(u)
    torch.testing.assert_close(out.norm(), scalar(u).norm())
    assert torch.linalg.matrix_rank(out.flatten(2)[0], rtol=1e-10) == 1


# ---- symmetry and conditioning


@pytest.mark.parametrize("kind", VERTEX_KINDS)
@pytest.mark.parametrize(("cycle", "sweeps"), [("V", 1), ("V", 2), ("W", 1)])
def test_equal_sweeps_give_a_symmetric_operator(kind, cycle, sweeps):
    domain = Domain.box((1.0, 1.0), boundary=kind[0], nodes=kind[1])
    layer = solver(domain, cycle=cycle, pre_smoothing=sweeps, post_smoothing=sweeps)
    n = num_points(domain, 16)
    assert symmetry_defect(layer, (n, n)) < 1e-12


def test_a_symmetric_cycle_is_positive_definite():
    eigenvalues = torch.linalg.eigvalsh(as_matrix(solver(), 15))
    assert eigenvalues[0] > 0


def test_unequal_sweeps_are_not_symmetric():
    assert symmetry_defect(solver(pre_smoothing=1, post_smoothing=0), (31, 31)) > 1e-2
    assert symmetry_defect(solver(pre_smoothing=2, post_smoothing=1), (31, 31)) > 1e-3
    assert symmetry_defect(solver(cycle="backslash"), (31, 31)) > 1e-2


def test_condition_number_is_that_of_the_dense_matrices():
    layer = solver()
    b, a = as_matrix(layer, 15), as_matrix(layer, 15, system=True)
    eigenvalues = torch.linalg.eigvals(b @ a).real
    dense = (eigenvalues.max() / eigenvalues.min()).item()
    assert condition_number(layer, (15, 15), num_steps=60) == pytest.approx(dense, rel=5e-3)
    # The published structure comparison of our reference note: 1.57 at 31 points.
    assert condition_number(layer, (31, 31)) == pytest.approx(1.57, abs=0.01)


def test_contraction_factor_is_the_spectral_radius():
    layer = solver(pre_smoothing=2, post_smoothing=1, initialization=EllipticKernels(noise=0.05))
    b, a = as_matrix(layer, 15), as_matrix(layer, 15, system=True)
    radius = torch.linalg.eigvals(torch.eye(225) - b @ a).abs().max().item()
    assert contraction_factor(layer, (15, 15)) == pytest.approx(radius, rel=2e-3)


def test_diagnostics_refuse_what_is_no_solver():
    with pytest.raises(ArgumentError, match="as many input"):
        contraction_factor(MultigridOperator(1, 2, 3, domain=DIRICHLET), (15, 15))
    with pytest.raises(ArgumentError, match="positive definite"):
        condition_number(MultigridOperator(2, 2, 3, domain=DIRICHLET), (15, 15))
