"""Helmholtz against scikit-fem: the same bilinear elements, put together and solved by somebody else, to 1e-8.

Every term of the weak form takes part: stiffness, mass with a speed that varies, the source inside, fluxes through all
four walls, impedance, and the stretched coordinates of an absorbing layer. Elements of order four on a fine mesh then
say how far both are from the differential equation.
"""

import math
import warnings

import numpy as np
import pytest
import skfem
import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.pde import AbsorbingLayer, Helmholtz, Impedance

START, LENGTHS, SHAPE, OMEGA = np.array([-0.5, 0.25]), np.array([1.0, 1.5]), (27, 34), 14.0
DOMAIN = Domain.box(tuple(LENGTHS), boundary="neumann", origin=tuple(START))
THICKNESS, STRENGTH = 0.2, 3.0
CASES = {
    "reflecting": (None, 0, False),
    "impedance": (Impedance(), -1j, False),
    "layer": (AbsorbingLayer(THICKNESS, STRENGTH), 0, True),
}


def speed(x):
    return 1.2 + 0.3 * np.sin(4 * x[0]) * np.cos(3 * x[1])


def source(x):
    return 5 * np.exp(-20 * ((x[0] - 0.1) ** 2 + (x[1] - 0.9) ** 2))


def flux(x, normal):
    """Another one through every wall."""
    return (1 + 2 * normal[0] - normal[1]) * np.cos(2 * x[0] + x[1])


def stretching(x, axis: int):
    low, high = START[axis] + THICKNESS, START[axis] + LENGTHS[axis] - THICKNESS
    depth = np.clip(np.maximum(low - x, x - high), 0, None)
    return 1 + 1j * STRENGTH * (depth / THICKNESS) ** 2


def solve_with_scikit_fem(shape, coefficient: complex, layer: bool, *, element=None, nodal: bool = True):
    """The solution at the vertices, on a grid ``shape``; data interpolated between nodes, or exact everywhere."""
    lines = [np.linspace(a, a + length, n) for a, length, n in zip(START, LENGTHS, shape, strict=True)]
    mesh = skfem.MeshQuad.init_tensor(*lines)
    order = 5 if nodal else 10
    basis = skfem.Basis(mesh, element or skfem.ElementQuad1(), intorder=order)

    def at(points, function, w_x):
        return points.interpolate(function(basis.doflocs)) if nodal else function(w_x)

    @skfem.BilinearForm(dtype=np.complex128)
    def inside(u, v, w):
        s = [stretching(w.x[i], i) if layer else 1.0 for i in (0, 1)]
        square = (OMEGA / at(basis, speed, w.x)) ** 2
        gradients = s[1] / s[0] * u.grad[0] * v.grad[0] + s[0] / s[1] * u.grad[1] * v.grad[1]
        return gradients - square * s[0] * s[1] * u * v

    matrix = inside.assemble(basis)
    load = skfem.LinearForm(lambda v, w: at(basis, source, w.x) * v, dtype=np.complex128).assemble(basis)
    for axis in (0, 1):
        for end, sign in ((START[axis], -1), (START[axis] + LENGTHS[axis], 1)):
            normal = np.eye(2)[axis] * sign
            facets = mesh.facets_satisfying(lambda p, axis=axis, end=end: np.isclose(p[axis], end))
            wall = skfem.FacetBasis(mesh, basis.elem, facets=facets, intorder=order)
            load = load + skfem.LinearForm(
                lambda v, w, wall=wall, normal=normal: at(wall, lambda x: flux(x, normal), w.x) * v, dtype=np.complex128
            ).assemble(wall)
            matrix = matrix + coefficient * skfem.BilinearForm(
                lambda u, v, w, wall=wall: at(wall, lambda x: OMEGA / speed(x), w.x) * u * v, dtype=np.complex128
            ).assemble(wall)
    u = skfem.solve(matrix.tocsc(), load)
    dofs = basis.nodal_dofs[0]
    grid = np.empty(shape, dtype=np.complex128)
    places = [np.rint((mesh.p[i] - START[i]) / LENGTHS[i] * (shape[i] - 1)).astype(int) for i in (0, 1)]
    grid[places[0], places[1]] = u[dofs]
    return grid


def solve(shape, boundary):
    points = DOMAIN.coordinates(shape, dtype=torch.float64)
    c, f = (torch.from_numpy(function(points.numpy()))[None, None] for function in (speed, source))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        u, info = Helmholtz(DOMAIN, omega=OMEGA, boundary=boundary).solve(
            c, f, flux=lambda x, normal: torch.from_numpy(flux(x.numpy(), normal.numpy()))
        )
    assert info.converged.all()
    return (u[0, 0] + 1j * u[0, 1] if len(u[0]) == 2 else u[0, 0]).numpy()


def distance(u, v) -> float:
    return np.abs(u - v).max() / np.abs(v).max()


@pytest.mark.parametrize("case", CASES)
def test_agrees_to_eight_digits(case):
    boundary, coefficient, layer = CASES[case]
    ours = solve(SHAPE, boundary)
    assert distance(ours, solve_with_scikit_fem(SHAPE, coefficient, layer)) < 1e-8
    # Controls: data that are exact between the nodes, and another condition at the walls, are told apart.
    assert distance(ours, solve_with_scikit_fem(SHAPE, coefficient, layer, nodal=False)) > 1e-5
    assert distance(ours, solve_with_scikit_fem(SHAPE, coefficient + 1e-3, layer)) > 1e-5


def test_converges_to_elements_of_higher_order():
    # Quadratic elements on a mesh four times as fine: their error is far below that of either grid of ours. Waves
    # leave through these walls; between hard ones they stay, and on such coarse grids the order does not show yet.
    boundary, coefficient, layer = CASES["impedance"]
    coarse = (21, 31)
    fine, finest = (tuple(factor * (n - 1) + 1 for n in coarse) for factor in (2, 4))
    truth = solve_with_scikit_fem(finest, coefficient, layer, element=skfem.ElementQuad2(), nodal=False)
    errors = [distance(solve(coarse, boundary), truth[::4, ::4]), distance(solve(fine, boundary), truth[::2, ::2])]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)
