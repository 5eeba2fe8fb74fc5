"""The FNO generator's discretization, against a plain transcription of its steps with loops."""

import numpy as np
import pytest
import torch
from scipy.interpolate import make_interp_spline

from neuralop_kit import Domain
from neuralop_kit.solvers.pde import Darcy, MultigridCG, SparseDirect, SplineNodal, TwoPhase
from neuralop_kit.solvers.status import Status

SQUARE = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")


def spline(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Bicubic spline, extrapolated: interpolating B-splines without boundary conditions are not-a-knot."""
    for axis in (0, 1):
        values = np.moveaxis(make_interp_spline(source, np.moveaxis(values, axis, 0), k=3)(target), 0, axis)
    return values


def generator_of_the_paper(a: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Steps 1 to 3 of the docstring, point by point."""
    size = len(a)
    cells, nodes = (np.arange(size) + 0.5) / size, np.linspace(0, 1, size)
    a, f = spline(a, cells, nodes), spline(f, cells, nodes)
    inner = [(i, j) for i in range(1, size - 1) for j in range(1, size - 1)]
    number = {node: row for row, node in enumerate(inner)}
    matrix, load = np.zeros((len(inner), len(inner))), np.zeros(len(inner))
    for row, (i, j) in enumerate(inner):
        load[row] = f[i, j] / (size - 1) ** 2
        for neighbour in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            mean = (a[i, j] + a[neighbour]) / 2
            matrix[row, row] += mean
            if neighbour in number:
                matrix[row, number[neighbour]] -= mean
    u = np.zeros((size, size))
    u[1:-1, 1:-1] = np.linalg.solve(matrix, load).reshape(size - 2, size - 2)
    return spline(u, nodes, cells)


def test_equals_the_transcription():
    a = TwoPhase.fno(SQUARE).sample(3, (20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = 1 + torch.rand(3, 1, 20, 20, dtype=torch.float64)
    u, info = Darcy(SQUARE, style="fno").solve(a, f)
    assert info.converged.all()
    for i in range(3):
        exact = torch.from_numpy(generator_of_the_paper(a[i, 0].numpy(), f[i, 0].numpy()))
        torch.testing.assert_close(u[i, 0], exact, rtol=0, atol=1e-12 * exact.abs().max().item())


def test_solution_approaches_that_of_finite_volumes():
    distances = []
    for n in (32, 64, 128):
        a = TwoPhase.fno(SQUARE).sample(6, (n, n), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        theirs, ours = (Darcy(SQUARE, style=style).solve(a, 1.0)[0] for style in ("fno", "finite_volumes"))
        distances.append(((theirs - ours).norm() / ours.norm()).item())
    assert distances[0] < 0.1
    assert distances[1] < 0.7 * distances[0]
    assert distances[2] < 0.7 * distances[1]


def test_extrapolation_makes_many_matrices_indefinite():
    # Why this style needs a direct solver: conjugate gradients refuse such items by name.
    a = TwoPhase.fno(SQUARE).sample(64, (32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network, _ = SplineNodal(SQUARE).system(a[:, 0], torch.ones_like(a[:, 0]), None)
    share = network.is_positive().double().mean().item()
    assert 0.25 < share < 0.75
    u, info = Darcy(SQUARE, style="fno", linear_solver=MultigridCG()).solve(a, 1.0)
    assert torch.equal(info.converged, network.is_positive())
    assert (info.status[~info.converged] == Status.INVALID_INPUT).all()
    direct, _ = Darcy(SQUARE, style="fno").solve(a, 1.0)
    torch.testing.assert_close(u[info.converged], direct[info.converged], rtol=1e-9, atol=1e-12)
    assert direct.max() < 0.03, "tame all the same"


def test_smooth_media_are_second_order():
    errors = []
    for n in (16, 32, 64):
        x, y = SQUARE.coordinates((n, n), dtype=torch.float64)
        u = torch.sin(torch.pi * x) * torch.sin(torch.pi * y)
        a = 1 + x + y
        slopes = torch.cos(torch.pi * x) * torch.sin(torch.pi * y) + torch.sin(torch.pi * x) * torch.cos(torch.pi * y)
        f = 2 * torch.pi**2 * a * u - torch.pi * slopes
        computed, _ = Darcy(SQUARE, style="fno").solve(a[None, None], f[None, None])
        errors.append(((computed[0, 0] - u).norm() / u.norm()).item())
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert orders[-1] == pytest.approx(2.0, abs=0.15), errors


def test_gradients_pass_through_the_splines():
    a = (1 + torch.rand(1, 1, 5, 4, dtype=torch.float64)).requires_grad_()
    solver = Darcy(SQUARE, style="fno", linear_solver=SparseDirect())
    assert torch.autograd.gradcheck(lambda a: solver.solve(a, 1.0)[0], (a,))
