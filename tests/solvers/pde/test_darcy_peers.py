"""Darcy flow against programs of others: pyamg on a matrix assembled apart, scikit-fem's quadratic elements."""

import numpy as np
import pyamg
import skfem
import torch
from skfem.helpers import dot, grad

from benchmarks.entries.darcy import matrix
from neuralop_kit import Domain
from neuralop_kit.solvers.pde import Darcy, TwoPhase

SQUARE = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")


def test_agrees_with_algebraic_multigrid():
    a = TwoPhase.fno(SQUARE).sample(2, (48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, info = Darcy(SQUARE).solve(a, 1.0)
    assert info.converged.all()
    for medium, pressure in zip(a[:, 0].numpy(), u[:, 0].numpy(), strict=True):
        solver = pyamg.ruge_stuben_solver(matrix(medium).tocsr())
        peer = solver.solve(np.full(medium.size, 1 / medium.size), tol=1e-13, accel="cg").reshape(medium.shape)
        assert np.abs(pressure - peer).max() < 1e-9 * np.abs(peer).max()


def test_converges_to_finite_elements():
    def medium(x):
        return np.exp(np.sin(3 * x[0]) * np.cos(2 * x[1]))

    mesh = skfem.MeshQuad.init_tensor(np.linspace(0, 1, 25), np.linspace(0, 1, 25))
    basis = skfem.Basis(mesh, skfem.ElementQuad2(), intorder=6)
    stiffness = skfem.BilinearForm(lambda u, v, w: medium(w.x) * dot(grad(u), grad(v))).assemble(basis)
    load = skfem.LinearForm(lambda v, w: 1.0 * v).assemble(basis)
    solution = skfem.solve(*skfem.condense(stiffness, load, D=basis.get_dofs()))

    def distance(n: int) -> float:
        x = SQUARE.coordinates((n, n), dtype=torch.float64)
        u, _ = Darcy(SQUARE).solve(torch.from_numpy(medium(x.numpy()))[None, None], 1.0)
        peer = basis.interpolator(solution)(x.flatten(1).numpy()).reshape(n, n)
        return float(np.abs(u[0, 0].numpy() - peer).max() / np.abs(peer).max())

    # Finite volumes are of second order; elements of third order on 24 x 24 are the better ones.
    assert distance(32) < 4e-3
    assert 3.5 < distance(16) / distance(32) < 4.5
