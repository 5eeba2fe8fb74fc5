"""Darcy flow: order, conservation, symmetries, agreement with a direct solver, gradients."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

from neuralop_kit import Domain
from neuralop_kit.solvers import GaussianRandomField
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from neuralop_kit.solvers.pde import (
    Darcy,
    FiniteVolumes,
    LinearSolver,
    LogNormal,
    MultigridCG,
    MultiscaleTrigonometric,
    RandomCheckerboard,
    SparseDirect,
    TwoPhase,
    arithmetic_mean,
    harmonic_mean,
)
from neuralop_kit.solvers.status import Status
from tests.contracts.solver import SolverContract

SQUARE = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
PRECISE = MultigridCG(rtol=1e-14)


def relative_error(u: Tensor, exact: Tensor) -> float:
    return ((u - exact).norm() / exact.norm()).item()


def outward_fluxes(solver: Darcy, a: Tensor, u: Tensor, **options) -> Tensor:
    """What leaves the box through each face of its walls, shape (batch, faces)."""
    walls = []
    for dim, flux in enumerate(solver.fluxes(a, u, **options), start=2):
        walls += [flux.select(dim, -1).flatten(1), -flux.select(dim, 0).flatten(1)]
    return torch.cat(walls, dim=1)


# ---- the contract, on every kind of grid


class DarcyContract(SolverContract):
    """u = exp(x/2) * product of functions that satisfy the boundary conditions; a = 1 + (sum of x)^2 / 4."""

    order = 2.0

    def make(self) -> Darcy:
        return Darcy(self.domain)

    def make_precise(self) -> Darcy:
        return Darcy(self.domain, linear_solver=PRECISE)

    def solve(self, solver, *inputs):
        return solver.solve(*inputs)

    def inputs(self, shape, *, batch=3):
        x = self.domain.coordinates(shape, dtype=torch.float64)
        rows = [(1.5 + torch.sin(2 * x.sum(0) + i), torch.cos(x[0] - i) + x[-1]) for i in range(batch)]
        a, f = (torch.stack(fields).unsqueeze(1) for fields in zip(*rows, strict=True))
        return a, f

    def exact(self, shape):
        x = self.domain.coordinates(shape, dtype=torch.float64).requires_grad_()
        u = torch.exp(x[0] / 2)
        for axis, line in zip(self.domain.axes, x, strict=True):
            scaled = math.pi * (line - axis.start) / axis.length
            u = u * (torch.sin(scaled) if axis.boundary == "dirichlet" else torch.cos(scaled))
        a = 1 + x.sum(0).square() / 4
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        f = torch.zeros_like(u)
        for k in range(len(x)):
            f = f - torch.autograd.grad((a * slope[k]).sum(), x, create_graph=True)[0][k]
        a, f, u = (field.detach()[None, None] for field in (a, f, u))
        return (a, f), u


class TestCells(DarcyContract):
    domain = Domain.box((1.0, 1.5), boundary="dirichlet", nodes="cell", origin=(0.3, -0.2))


class TestVertices(DarcyContract):
    domain = Domain.box((1.0, 1.5), boundary="dirichlet", nodes="vertex")
    shapes = ((13, 9), (9, 8))
    tiny_shape = (5, 5)


class TestInteriorNodes(DarcyContract):
    domain = Domain.box((1.0, 1.5), boundary="dirichlet", nodes="interior")
    reference_shape = (31, 31)
    num_refinements = 3


class TestLine(DarcyContract):
    domain = Domain.box((2.0,), boundary="dirichlet", nodes="cell")
    shapes = ((12,), (9,))
    tiny_shape = (5,)
    reference_shape = (20,)


class TestCube(DarcyContract):
    domain = Domain.box((1.0, 0.8, 1.2), boundary="dirichlet", nodes="cell")
    shapes = ((6, 5, 4), (3, 7, 5))
    tiny_shape = (3, 2, 2)
    reference_shape = (8, 8, 8)
    num_refinements = 3


class TestChannelOfCells(DarcyContract):
    domain = Domain.box((1.0, 1.5), boundary=("dirichlet", "neumann"), nodes=("vertex", "cell"))
    shapes = ((13, 8), (9, 7))
    tiny_shape = (5, 3)

    def exact(self, shape):
        # The factor exp(x/2) acts along the Dirichlet axis only, so the slope at the Neumann walls is zero.
        return super().exact(shape)


class TestChannelOfVertices(DarcyContract):
    domain = Domain.box((1.0, 1.5), boundary=("dirichlet", "neumann"), nodes=("cell", "vertex"))
    shapes = ((12, 9), (9, 8))
    tiny_shape = (3, 3)
    reference_shape = (16, 17)


class TestDirectSolver(DarcyContract):
    domain = SQUARE

    def make(self) -> Darcy:
        return Darcy(self.domain, linear_solver=SparseDirect())

    make_precise = make


# ---- boundary values and layers


def smooth(x: Tensor) -> Tensor:
    return torch.exp(x.sum(0) / 3) * torch.cos(2 * x[0])


@pytest.mark.parametrize("nodes", ["cell", "vertex", "interior"])
def test_boundary_values_keep_the_order(nodes):
    domain = Domain.box((1.0, 1.0), nodes=nodes)
    errors = []
    for k in range(3):
        shape = domain.refine((17, 17), 2**k)
        x = domain.coordinates(shape, dtype=torch.float64).requires_grad_()
        u = smooth(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        f = -sum(torch.autograd.grad(slope[k].sum(), x, create_graph=True)[0][k] for k in range(2))
        computed, _ = Darcy(domain).solve(
            torch.ones(1, 1, *shape, dtype=torch.float64), f.detach()[None, None], boundary=smooth
        )
        errors.append(relative_error(computed[0, 0], u.detach()))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(2.0, abs=0.1), errors


@pytest.mark.parametrize("nodes", ["cell", "vertex", "interior"])
def test_linear_pressure_is_exact(nodes):
    domain = Domain.box((1.0, 2.0), nodes=nodes)
    x = domain.coordinates((9, 12), dtype=torch.float64)

    def plane(points: Tensor) -> Tensor:
        return 1 + 2 * points[0] - 3 * points[1]

    a = torch.full((2, 1, 9, 12), 5.0, dtype=torch.float64)
    u, _ = Darcy(domain, linear_solver=PRECISE).solve(a, 0.0, boundary=plane)
    torch.testing.assert_close(u, plane(x).expand_as(u), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mean", "is_exact"), [(harmonic_mean, True), (arithmetic_mean, False)])
def test_harmonic_means_are_exact_for_layers_and_arithmetic_means_are_not(mean, is_exact):
    # Flow through two layers, interface on a face: piecewise linear pressure, one and the same flux everywhere.
    domain = Domain.box((1.0,), nodes="cell")
    errors = []
    for n in (16, 32, 64, 128):
        x = domain.coordinates((n,), dtype=torch.float64)
        a = torch.where(x < 0.5, 12.0, 3.0).double()[None]
        flux = 1 / (0.5 / 12 + 0.5 / 3)
        exact = torch.where(x < 0.5, flux * x / 12, 1 - flux * (1 - x) / 3)
        solver = Darcy(domain, style=FiniteVolumes(domain, mean=mean), linear_solver=PRECISE)
        u, _ = solver.solve(a, 0.0, boundary=lambda points: points[0])
        errors.append(relative_error(u[0], exact))
    if is_exact:
        assert max(errors) < 1e-12
    else:
        # Negative control: an error at one face spoils the whole flux; one order is lost.
        order = math.log2(errors[-2] / errors[-1])
        assert order == pytest.approx(1.0, abs=0.1), errors
        assert errors[0] > 1e-2


# ---- physics


@pytest.mark.parametrize("linear_solver", [MultigridCG(), SparseDirect()], ids=["multigrid", "direct"])
@pytest.mark.parametrize("nodes", ["cell", "interior", "vertex"])
def test_what_flows_out_is_what_the_source_brings(linear_solver, nodes):
    domain = Domain.box((1.0, 1.0), nodes=nodes)
    a = TwoPhase.fno(domain).sample(3, (65, 48), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = GaussianRandomField(domain, alpha=2.0, tau=3.0, boundary="neumann", zero_mean=False)
    f = 1 + f.sample(3, (65, 48), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    solver = Darcy(domain, linear_solver=linear_solver)
    u, _ = solver.solve(a, f)
    inside = solver.scheme.unknowns((65, 48))
    supply = (f[:, 0][(slice(None), *inside)] * solver.scheme.volumes(f[:, 0])).flatten(1).sum(1)
    assert ((outward_fluxes(solver, a, u).sum(1) - supply) / supply).abs().max() < 1e-12
    if nodes == "cell":
        # All of the box belongs to some cell: this is the integral of f.
        integral = (domain.weights((65, 48), dtype=torch.float64) * f).flatten(1).sum(1)
        torch.testing.assert_close(supply, integral, rtol=1e-13, atol=0)


def test_outflow_with_boundary_values():
    a = TwoPhase.fno(SQUARE).sample(2, (20, 30), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solver = Darcy(SQUARE)
    u, _ = solver.solve(a, 1.0, boundary=smooth)
    outward = outward_fluxes(solver, a, u, boundary=smooth)
    assert ((outward.sum(1) - 1) / outward.abs().sum(1)).abs().max() < 1e-12
    assert solver.residual(u, a, 1.0, boundary=smooth).abs().max() < 1e-8
    assert solver.residual(u, a, 1.0).abs().max() > 1, "negative control: other boundary values, other residual"


def test_pressure_is_linear_in_the_source():
    a = TwoPhase.fno(SQUARE).sample(4, (48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = torch.randn(4, 1, 48, 48, dtype=torch.float64)
    solver = Darcy(SQUARE)
    for factor in (1e-2, 100.0, -3.7):
        assert relative_error(solver.solve(a, factor * f)[0], factor * solver.solve(a, f)[0]) < 1e-12
    g = torch.randn_like(f)
    assert relative_error(solver.solve(a, f + g)[0], solver.solve(a, f)[0] + solver.solve(a, g)[0]) < 1e-11


def test_pressure_is_inverse_to_the_coefficient():
    a = TwoPhase.fno(SQUARE).sample(2, (32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert relative_error(Darcy(SQUARE).solve(7.3 * a, 7.3)[0], Darcy(SQUARE).solve(a, 1.0)[0]) < 1e-12


@pytest.mark.parametrize("shape", [(40, 40), (31, 31), (24, 40)])
def test_turning_and_reflecting_the_medium_turns_the_pressure(shape):
    a = TwoPhase.fno(SQUARE).sample(2, shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solver = Darcy(SQUARE, linear_solver=PRECISE)
    u, _ = solver.solve(a, 1.0)
    for move in (lambda v: torch.rot90(v, 1, (2, 3)), lambda v: v.flip(2), lambda v: v.mT):
        assert relative_error(solver.solve(move(a), 1.0)[0], move(u)) < 1e-12


def test_pressure_of_the_fno_distribution():
    a = TwoPhase.fno(SQUARE).sample(50, (64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert set(a.unique().tolist()) == {3.0, 12.0}
    u, info = Darcy(SQUARE).solve(a, 1.0)
    assert info.converged.all()
    assert u.min() > 0
    largest = u.amax(dim=(1, 2, 3))
    assert 0.005 < largest.mean() < 0.02
    # Dirichlet's principle: the mean pressure lies between those of the two pure materials; a = 1 has 0.035144.
    mean = u.mean(dim=(1, 2, 3))
    assert (mean > 0.99 * 0.035144 / 12).all()
    assert (mean < 1.01 * 0.035144 / 3).all()


def test_constant_medium_has_the_pressure_of_the_series():
    # u(1/2, 1/2) for -Lap u = 1 on the unit square, by its Fourier series.
    odd = torch.arange(1, 400, 2, dtype=torch.float64)
    signs = torch.where((odd // 2).long() % 2 == 0, 1.0, -1.0)
    terms = signs[:, None] * signs / (odd[:, None] * odd * (odd[:, None] ** 2 + odd**2))
    exact = 16 / math.pi**4 * terms.sum().item()
    u, _ = Darcy(Domain.box((1.0, 1.0), nodes="vertex")).solve(torch.ones(1, 1, 129, 129, dtype=torch.float64), 1.0)
    assert u[0, 0, 64, 64].item() == pytest.approx(exact, rel=1e-4)


# ---- against the direct solver


def log_normal(domain: Domain) -> LogNormal:
    return LogNormal(GaussianRandomField(domain, alpha=2.0, tau=3.0, sigma=15.0, boundary="neumann"))


def rough_log_normal(domain: Domain) -> LogNormal:
    return LogNormal(GaussianRandomField(domain, alpha=1.2, tau=9.0, sigma=3.0, boundary="neumann"), median=0.1)


def checkerboard(domain: Domain) -> RandomCheckerboard:
    return RandomCheckerboard(domain, tiles=(8,) * domain.num_dims, high=1000.0)


@pytest.mark.parametrize(
    "distribution", [TwoPhase.fno, TwoPhase.rough, log_normal, rough_log_normal, checkerboard, MultiscaleTrigonometric]
)
@pytest.mark.parametrize("shape", [(64, 64), (63, 63), (33, 80)])
def test_agreement_with_the_sparse_direct_solver(distribution, shape):
    a = distribution(SQUARE).sample(2, shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, info = Darcy(SQUARE).solve(a, 1.0)
    exact, report = Darcy(SQUARE, linear_solver=SparseDirect()).solve(a, 1.0)
    assert info.converged.all()
    assert report.converged.all()
    assert ((u - exact).abs().max() / exact.abs().max()).item() < 1e-9


@pytest.mark.parametrize("shape", [(200,), (101,), (14, 15, 13)])
def test_agreement_with_the_sparse_direct_solver_in_other_dimensions(shape):
    domain = Domain.box((1.0,) * len(shape), nodes="cell")
    a = TwoPhase.fno(domain).sample(2, shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _ = Darcy(domain).solve(a, 1.0)
    exact, _ = Darcy(domain, linear_solver=SparseDirect()).solve(a, 1.0)
    assert ((u - exact).abs().max() / exact.abs().max()).item() < 1e-9


# ---- items for themselves


def test_batch_is_a_loop_bit_for_bit():
    a = TwoPhase.fno(SQUARE).sample(4, (64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together, _ = Darcy(SQUARE).solve(a, 1.0)
    assert torch.equal(together, torch.cat([Darcy(SQUARE).solve(a[i : i + 1], 1.0)[0] for i in range(4)]))


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -3.0])
@pytest.mark.parametrize("linear_solver", [MultigridCG(), SparseDirect()], ids=["multigrid", "direct"])
def test_bad_coefficients_are_flagged_and_spare_the_neighbours(value, linear_solver):
    a = TwoPhase.fno(SQUARE).sample(4, (20, 21), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solver = Darcy(SQUARE, linear_solver=linear_solver)
    expected, _ = solver.solve(a, 1.0)
    a[2, 0, 7, 7] = value
    a.requires_grad_()
    u, info = solver.solve(a, 1.0)
    assert info.status.tolist() == [0, 0, Status.INVALID_INPUT, 0]
    assert u[2].isnan().all()
    assert info.residual_norm[2].isnan()
    assert torch.equal(u[[0, 1, 3]], expected[[0, 1, 3]])
    (gradient,) = torch.autograd.grad(u[[0, 1, 3]].sum(), a)
    assert gradient[[0, 1, 3]].isfinite().all()


def test_too_few_iterations_are_flagged():
    a = TwoPhase.fno(SQUARE).sample(2, (32, 32), dtype=torch.float64)
    u, info = Darcy(SQUARE, linear_solver=MultigridCG(max_iterations=3)).solve(a, 1.0)
    assert (info.status == Status.MAX_ITERATIONS).all()
    assert (info.residual_norm > 1e-9).all()
    assert u.isfinite().all()


def test_nothing_flows_without_a_source():
    u, info = Darcy(SQUARE).solve(torch.rand(2, 1, 8, 9) + 1, 0.0)
    assert u.abs().max() == 0
    assert info.converged.all()


@pytest.mark.parametrize("linear_solver", [MultigridCG(), SparseDirect()], ids=["multigrid", "direct"])
def test_empty_batches_pass(linear_solver):
    u, info = Darcy(SQUARE, linear_solver=linear_solver).solve(torch.ones(0, 1, 12, 12), 1.0)
    assert u.shape == (0, 1, 12, 12)
    assert info.status.shape == (0,)


# ---- gradients


def test_gradient_is_that_of_a_dense_solve():
    domain = Domain.box((1.0,), nodes="vertex")
    a = (1 + torch.rand(2, 1, 9, dtype=torch.float64)).requires_grad_()
    f = torch.randn(2, 1, 9, dtype=torch.float64).requires_grad_()
    u, _ = Darcy(domain, linear_solver=PRECISE).solve(a, f)
    face = 2 * a[:, 0, 1:] * a[:, 0, :-1] / (a[:, 0, 1:] + a[:, 0, :-1]) * 8
    matrix = torch.diag_embed(face[:, 1:] + face[:, :-1])
    matrix = matrix - torch.diag_embed(face[:, 1:-1], 1) - torch.diag_embed(face[:, 1:-1], -1)
    dense = torch.linalg.solve(matrix, f[:, 0, 1:-1] / 8)
    torch.testing.assert_close(u[:, 0, 1:-1], dense, rtol=1e-12, atol=1e-14)
    ours = torch.autograd.grad(u.square().sum(), (a, f))
    theirs = torch.autograd.grad(dense.square().sum(), (a, f))
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)


def test_second_derivatives_are_right():
    a, f = (u.requires_grad_() for u in TestCells().inputs((3, 3), batch=1))
    solver = Darcy(SQUARE, linear_solver=PRECISE)
    assert torch.autograd.gradgradcheck(lambda a, f: solver.solve(a, f)[0], (a, f))


def test_boundary_values_and_the_medium_can_be_learned():
    a, f = (u.requires_grad_() for u in TestCells().inputs((4, 3), batch=2))
    solver = Darcy(SQUARE, linear_solver=PRECISE)
    level = torch.rand(2, 1, 1, dtype=torch.float64, requires_grad=True)

    def function(a: Tensor, f: Tensor, level: Tensor) -> Tensor:
        return solver.solve(a, f, boundary=lambda x: level * x[0])[0]

    assert torch.autograd.gradcheck(function, (a, f, level))


@dataclass(frozen=True)
class Counting(LinearSolver):
    """A direct solver that remembers how often it was called."""

    calls: list[int]

    def can_solve(self, network):
        return SparseDirect().can_solve(network)

    def solve(self, network, rhs):
        self.calls.append(len(rhs))
        return SparseDirect().solve(network, rhs)


def test_a_gradient_costs_one_adjoint_solve():
    counting = Counting([])
    a, f = (u.requires_grad_() for u in TestCells().inputs((8, 8)))
    u, _ = Darcy(SQUARE, linear_solver=counting).solve(a, f)
    torch.autograd.grad(u.square().sum(), (a, f))
    assert counting.calls == [3, 3]


def test_a_failed_adjoint_solve_is_not_silent():
    a, f = (u.requires_grad_() for u in TestCells().inputs((16, 16)))
    u, info = Darcy(SQUARE, linear_solver=MultigridCG(max_iterations=1)).solve(a, f)
    assert not info.converged.any()
    assert torch.autograd.grad(u.sum(), f)[0].isnan().all()


def test_function_transforms():
    a, f = TestCells().inputs((4, 3), batch=2)
    solver = Darcy(SQUARE, linear_solver=PRECISE)
    torch.testing.assert_close(
        jacrev(lambda a: solver.solve(a, f)[0])(a), jacfwd(lambda a: solver.solve(a, f)[0])(a), rtol=0, atol=1e-12
    )
    many = torch.stack([a, 2 * a, a + 1])
    mapped = vmap(lambda a: solver.solve(a, f)[0])(many)
    torch.testing.assert_close(mapped, torch.stack([solver.solve(a, f)[0] for a in many]))


# ---- refusals


@pytest.mark.parametrize(
    ("error", "attempt"),
    [
        (DomainError, lambda: Darcy(Domain.periodic((1.0, 1.0)))),
        (DomainError, lambda: Darcy(Domain.box((1.0, 1.0), boundary="neumann"))),
        (DomainError, lambda: Darcy(Domain.sphere())),
        (DomainError, lambda: Darcy(Domain.box((1.0,))).solve(torch.ones(1, 1, 2), 1.0)),
        (DomainError, lambda: Darcy(Domain.box((1.0, 1.0)), style="fno")),
        (ArgumentError, lambda: Darcy(SQUARE, style="finite_elements")),
        (ArgumentError, lambda: Darcy(SQUARE).solve(torch.ones(1, 1, 4, 4, dtype=torch.int64), 1.0)),
        (ArgumentError, lambda: Darcy(SQUARE).solve(3.0, 1.0)),
        (ArgumentError, lambda: Darcy(SQUARE, style="fno").residual(*[torch.ones(1, 1, 4, 4)] * 3)),
        (ArgumentError, lambda: MultigridCG(rtol=-1.0)),
        (ArgumentError, lambda: MultigridCG(degree=0)),
        (ShapeError, lambda: Darcy(SQUARE).solve(torch.ones(4, 4), 1.0)),
        (ShapeError, lambda: Darcy(SQUARE).solve(torch.ones(1, 1, 4, 4), torch.ones(2, 1, 4, 4))),
    ],
)
def test_bad_arguments_are_refused(error, attempt):
    with pytest.raises(error, match=r"expected .*, got .*; "):
        attempt()
