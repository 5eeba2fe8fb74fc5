"""Helmholtz: manufactured waves, MgNO's problem against its exact series, scikit-fem, absorbing walls."""

import math
import warnings

import numpy as np
import pytest
import scipy.sparse
import skfem
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.pde import (
    AbsorbingLayer,
    BlockFactors,
    Helmholtz,
    HuangSpeed,
    Impedance,
    SparseFactors,
    top_source,
)
from neuralop_kit.solvers.pde.bilinear_elements import BilinearElements
from neuralop_kit.solvers.pde.nine_point import OFFSETS, NinePointMatrix
from neuralop_kit.solvers.pde.wave_media import modes
from tests.contracts.solver import SolverContract

SQUARE = Domain.box((1.0, 1.0), boundary="neumann")
RECTANGLE = Domain.box((1.0, 1.5), boundary="neumann", origin=(-0.5, 0.25))


def smooth_speed(x: Tensor, item: int = 0) -> Tensor:
    return 1 + 0.2 * torch.sin(2 * x[0] + item) * torch.cos(x[1])


def standing_wave(x: Tensor) -> Tensor:
    """No flux through the walls of RECTANGLE."""
    return torch.cos(math.pi * (x[0] + 0.5)) * torch.cos(2 * math.pi * (x[1] - 0.25) / 1.5)


class TestHelmholtz(SolverContract):
    domain = RECTANGLE
    shapes = ((12, 14), (9, 13))
    tiny_shape = (6, 8)
    reference_shape = (9, 13)
    omega = 3.0

    def make(self):
        return Helmholtz(self.domain, omega=self.omega)

    def solve(self, solver, *inputs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return solver.solve(*inputs)

    def inputs(self, shape, *, batch=3):
        x = self.domain.coordinates(shape, dtype=torch.float64)
        speed = torch.stack([smooth_speed(x, i) for i in range(batch)]).unsqueeze(1)
        source = torch.stack([torch.exp(-(4 + i) * (x**2).sum(dim=0)) for i in range(batch)]).unsqueeze(1)
        return speed, source

    def exact(self, shape):
        x = self.domain.coordinates(shape, dtype=torch.float64)
        speed, u = smooth_speed(x), standing_wave(x)
        source = (math.pi**2 + (2 * math.pi / 1.5) ** 2 - (self.omega / speed) ** 2) * u
        return (speed[None, None], source[None, None]), u[None, None]

    def test_second_derivatives_are_right(self):
        speed, source = (u.requires_grad_() for u in self.inputs(self.tiny_shape, batch=1))
        assert gradgradcheck(lambda *u: self.solve(self.make(), *u)[0], (speed, source), fast_mode=True)

    def test_elimination_agrees_with_sparse_lu(self):
        inputs = self.inputs((30, 41))
        oracle = Helmholtz(self.domain, omega=20.0, factorize=SparseFactors)
        fast = Helmholtz(self.domain, omega=20.0)
        self.assert_same(self.solve(fast, *inputs)[0], self.solve(oracle, *inputs)[0], factor=100)

    def test_resonance_stays_in_its_own_item(self):
        # Half waves fit exactly between the walls of the discrete problem: (9 nodes, h = 1/8) for the mode (1, 0).
        domain, n = SQUARE, 9
        h = 1 / (n - 1)
        eigenvalue = 6 / h**2 * (1 - math.cos(math.pi * h)) / (2 + math.cos(math.pi * h))
        speed = torch.tensor([1.0, 1.3], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 1, n, n)
        source = torch.cos(math.pi * domain.coordinates((n, n), dtype=torch.float64)[:1]).expand(2, 1, n, n)
        solver = Helmholtz(domain, omega=math.sqrt(eigenvalue))
        u, info = self.solve(solver, speed, source)
        assert not u[0].abs().max() < 1e10
        assert info.converged[1]
        self.assert_same(u[1:], self.solve(solver, speed[1:], source[1:])[0])


# ---- MgNO's problem


def exact_series(num_points: int, k: float = 50.0, num_terms: int = 2000) -> np.ndarray:
    """u for c = 20: a cosine series in x, with cosines and hyperbolic cosines in y."""
    x = np.linspace(0, 1, num_points)
    u = np.zeros((num_points, num_points))
    for m in range(num_terms):
        a = m * np.pi
        corners = np.cos(0.35 * a) - np.cos(0.36 * a) - np.cos(0.64 * a) + np.cos(0.65 * a)
        flux = 0.29 if m == 0 else -200 / a**2 * corners
        square = k**2 - a**2
        root = abs(square) ** 0.5
        if square > 0:
            along_y = np.cos(root * x) / (-root * np.sin(root))
        else:
            along_y = (np.exp(root * (x - 1)) + np.exp(-root * (x + 1))) / (root * (1 - np.exp(-2 * root)))
        u += flux * np.cos(a * x)[:, None] * along_y
    return u


@pytest.fixture(scope="module")
def media() -> HuangSpeed:
    return HuangSpeed.draw(2, generator=torch.Generator().manual_seed(0))


def test_modes_are_the_published_ones():
    beginning = [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2), (0, 3), (3, 0), (1, 3), (3, 1)]
    assert modes()[:12] == beginning
    assert modes()[-3:] == [(7, 8), (8, 7), (4, 10)]
    assert len(set(modes())) == 100


def test_speeds_have_the_published_spread():
    x = SQUARE.coordinates((21, 21), dtype=torch.float64)
    c = HuangSpeed.draw(200, generator=torch.Generator().manual_seed(0))(x)
    assert c.std().item() == pytest.approx(0.1, abs=0.01)
    assert c.min() > 19.4
    assert c.max() < 20.6


@pytest.mark.parametrize(("num_points", "distance"), [(101, 0.593), (201, 0.286)])
def test_distance_from_the_exact_series(num_points, distance):
    calm = HuangSpeed(torch.zeros(1, 100, dtype=torch.float64))
    u, info = Helmholtz.mgno().solve_function(calm, (num_points, num_points), flux=top_source)
    exact = exact_series(num_points)
    assert info.converged.all()
    assert np.linalg.norm(u[0, 0].numpy() - exact) / np.linalg.norm(exact) == pytest.approx(distance, rel=0.01)


def test_matrix_is_the_tensor_product_for_constant_speed():
    n, k, elements = 101, 50.0, BilinearElements(SQUARE, (101, 101))
    h = 1 / (n - 1)
    ends = np.ones(n)
    ends[[0, -1]] = 0.5
    off = np.ones(n - 1)
    stiff = scipy.sparse.diags_array([-off / h, 2 * ends / h, -off / h], offsets=[-1, 0, 1])
    mass = scipy.sparse.diags_array([h / 6 * off, 4 * h / 6 * ends, h / 6 * off], offsets=[-1, 0, 1])
    kron = scipy.sparse.kron
    expected = kron(mass, stiff) + kron(stiff, mass) - k**2 * kron(mass, mass)
    one = torch.ones(1, 300, 300, dtype=torch.float64)
    ours = elements.matrix(one, one, -(k**2) * one).to_scipy(0)
    assert abs(ours - expected).max() < 1e-11 * abs(expected).max()


def test_agrees_with_scikit_fem(media):
    n = 101
    u, info = Helmholtz.mgno().solve_function(media, (n, n), flux=top_source)
    assert info.residual_norm.max() < 1e-10
    line = np.linspace(0, 1, n)
    basis = skfem.Basis(skfem.MeshQuad.init_tensor(line, line), skfem.ElementQuad1(), intorder=5)

    @skfem.BilinearForm
    def form(u, v, w):
        speed = media(torch.from_numpy(np.ascontiguousarray(w.x)))[1].numpy()
        return u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1] - (1000 / speed) ** 2 * u * v

    x, y = basis.doflocs
    top = basis.boundary(lambda p: np.isclose(p[1], 1.0))
    flux = np.clip((0.15 - np.abs(x - 0.5)) * 100, 0, 1) * np.isclose(y, 1)
    load = skfem.LinearForm(lambda v, w: w["g"] * v).assemble(top, g=top.interpolate(flux))
    reference = skfem.solve(form.assemble(basis), load)
    ix, iy = np.rint(x * (n - 1)).astype(int), np.rint(y * (n - 1)).astype(int)
    ours = u[1, 0].numpy()[ix, iy]
    assert np.abs(ours - reference).max() < 1e-8 * np.abs(reference).max()


def test_total_flux_and_energy_identity(media):
    problem, n = Helmholtz.mgno(), 101
    elements = BilinearElements(problem.domain, (n, n))
    u, _ = problem.solve_function(media, (n, n), flux=top_source)
    load = problem._flux_load(elements, top_source, torch.float64)
    assert load.sum().item() == pytest.approx(0.29, abs=1e-12)
    speed = media(elements.quadrature_points())
    one = torch.ones_like(speed)
    energy = (u[:, 0] * elements.matrix(one, one, -((1000 / speed) ** 2)).apply(u[:, 0])).sum(dim=(1, 2))
    torch.testing.assert_close(energy, (load * u[:, 0]).sum(dim=(1, 2)), rtol=1e-10, atol=0)


# ---- absorbing walls


def test_impedance_lets_plane_waves_pass_with_second_order():
    direction, omega = torch.tensor([0.8, 0.6], dtype=torch.float64), 10.0

    def wave(x: Tensor) -> Tensor:
        return torch.exp(1j * omega * (direction[:, None] * x.flatten(1)).sum(dim=0)).reshape(x.shape[1:])

    def flux(x: Tensor, normal: Tensor) -> Tensor:
        return 1j * omega * ((normal * direction).sum() - 1) * wave(x)

    errors = []
    for n in (41, 81):
        problem = Helmholtz(SQUARE, omega=omega, boundary=Impedance())
        u, info = problem.solve(torch.ones(1, 1, n, n, dtype=torch.float64), flux=flux)
        exact = torch.view_as_real(wave(SQUARE.coordinates((n, n), dtype=torch.float64))).movedim(-1, 0)
        assert info.converged.all()
        errors.append(((u[0] - exact).norm() / exact.norm()).item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)
    assert errors[1] < 5e-3


def middle_of(side: float, boundary: AbsorbingLayer | Impedance) -> Tensor:
    """A point source in the middle of a square, on the same spacing; the field around it, outside of any layer."""
    domain = Domain.box((side, side), boundary="neumann", origin=(-side / 2, -side / 2))
    n = round(side * 32) + 1
    x = domain.coordinates((n, n), dtype=torch.float64)
    source = torch.exp(-200 * (x**2).sum(dim=0))[None, None]
    u, info = Helmholtz(domain, omega=15.0, boundary=boundary).solve(torch.ones_like(source), source)
    assert info.converged.all()
    margin = (n - 33) // 2
    return u[0, :, margin : n - margin, margin : n - margin]


def test_layer_absorbs_what_impedance_reflects():
    # The same waves in a square so large that the walls are twice as far away and the layer twice as thick.
    open_space = middle_of(4.0, AbsorbingLayer(1.0))
    error = (middle_of(2.0, AbsorbingLayer(0.5)) - open_space).norm() / open_space.norm()
    control = (middle_of(2.0, Impedance()) - open_space).norm() / open_space.norm()
    assert error < 5e-3
    assert control > 5 * error


def test_gradients_of_complex_fields():
    n = 6
    speed = smooth_speed(SQUARE.coordinates((n, n), dtype=torch.float64))[None, None].requires_grad_()
    source = torch.ones_like(speed).requires_grad_()
    for boundary in (Impedance(), AbsorbingLayer(0.3)):
        problem = Helmholtz(SQUARE, omega=2.0, boundary=boundary)
        assert gradcheck(lambda *u: problem.solve(*u)[0], (speed, source), check_forward_ad=True, fast_mode=True)  # noqa: B023


# ---- the rest


def test_nine_point_matrix_agrees_with_scipy():
    entries = torch.rand(2, 9, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix, u = NinePointMatrix(entries), torch.rand(2, 4, 5, dtype=torch.float64)
    for i in range(2):
        expected = matrix.to_scipy(i) @ u[i].flatten().numpy()
        np.testing.assert_allclose(matrix.apply(u)[i].flatten().numpy(), expected, rtol=1e-14)
        entries[:, OFFSETS.index((0, 0))] += 10
    rhs = matrix.apply(u)
    for factors in (BlockFactors(matrix), SparseFactors(matrix)):
        torch.testing.assert_close(factors.solve(rhs), u, rtol=1e-12, atol=1e-13)


def test_coarse_grids_are_warned_about():
    with pytest.warns(UserWarning, match="points per wavelength, got 5"):
        Helmholtz(SQUARE, omega=20 * math.pi).solve(torch.ones(1, 1, 51, 51))


def test_wrong_problems_are_refused():
    with pytest.raises(DomainError, match="Neumann"):
        Helmholtz(Domain.periodic((1.0, 1.0)), omega=1.0)
    with pytest.raises(ArgumentError, match="omega > 0"):
        Helmholtz(SQUARE, omega=0.0)
