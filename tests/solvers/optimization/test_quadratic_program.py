"""Quadratic programs against independent solvers and closed forms; derivatives; every way to fail."""

import math

import cvxpy
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralop_kit.solvers import solve_qp
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.optimization import project_onto_simplex
from neuralop_kit.solvers.status import Status

Program = dict[str, Tensor]


def draw(generator, *, batch=6, n=8, p=2, q=12, rank=None) -> Program:
    """A feasible program; ``Q`` of full rank, unless a rank is given."""

    def normal(*shape) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    root, inside = normal(batch, n, rank or 2 * n), normal(batch, n, 1)
    a, g = normal(batch, p, n), normal(batch, q, n)
    slack = torch.rand(batch, q, generator=generator, dtype=torch.float64)
    return {
        "Q": root @ root.mT / n, "f": 3 * normal(batch, n), "A": a, "b": (a @ inside)[..., 0],
        "G": g, "h": (g @ inside)[..., 0] + slack,
    }  # fmt: skip


def kkt(program: Program, x: Tensor, y: Tensor, z: Tensor) -> float:
    """Largest violation of the optimality conditions, written down once more."""
    q, f, a, b, g, h = (program[k] for k in "QfAbGh")

    def times(m: Tensor, v: Tensor) -> Tensor:
        return torch.einsum("bij,bj->bi", m, v)

    slack = h - times(g, x)
    violations = (
        times(q, x) + f + times(a.mT, y) + times(g.mT, z),
        times(a, x) - b,
        slack.clamp_max(0),
        z.clamp_max(0),
    )
    return torch.cat([*violations, slack * z], dim=1).abs().max().item()


def by_clarabel(program: Program, i: int) -> np.ndarray:
    q, f, a, b, g, h = (program[k][i].numpy() for k in "QfAbGh")
    x = cvxpy.Variable(len(f))
    objective = cvxpy.Minimize(0.5 * cvxpy.quad_form(x, cvxpy.psd_wrap(q)) + f @ x)
    settings = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
    cvxpy.Problem(objective, [a @ x == b, g @ x <= h]).solve(solver="CLARABEL", **settings)
    return x.value


class TestSolution:
    @pytest.mark.parametrize("sizes", [{}, {"rank": 3, "q": 20}, {"p": 0}, {"q": 1, "p": 5}])
    def test_optimality_conditions_hold(self, generator, sizes):
        program = draw(generator, **sizes)
        x, info = solve_qp(**program)
        assert info.converged.all()
        assert info.residual_norm.max() <= 1e-8
        assert kkt(program, x, info.y, info.z) < 1e-8

    def test_agrees_with_clarabel(self, generator):
        program = draw(generator)
        x, info = solve_qp(**program)
        assert ((info.z > 0).sum(dim=1) > 0).all(), "no inequality matters; the test would say little"
        for i in range(6):
            np.testing.assert_allclose(x[i].numpy(), by_clarabel(program, i), rtol=0, atol=1e-6)

    def test_an_item_at_the_limit_of_rounding_does_not_hold_up_the_batch(self, generator):
        # Among these is one whose error stays just above the tolerance, however many iterations it gets.
        program = draw(generator, batch=256, n=32, p=4, q=32)
        x, info = solve_qp(**program)
        assert info.converged.all()
        assert info.iterations.max() < 30
        assert kkt(program, x, info.y, info.z) < 1e-8

    def test_projection_onto_a_simplex(self, generator):
        # The closed form; here with one constraint of each kind.
        z = torch.randn(64, 16, generator=generator, dtype=torch.float64)
        ones, identity = torch.ones(1, 16, dtype=torch.float64), torch.eye(16, dtype=torch.float64)
        one, none = torch.ones(1, dtype=torch.float64), torch.zeros(16, dtype=torch.float64)
        x, info = solve_qp(identity, -z, A=ones, b=one, G=-identity, h=none)
        expected, _ = project_onto_simplex(z, torch.ones(64, dtype=torch.float64))
        assert info.converged.all()
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)

    def test_linear_program(self):
        # min -x - 2 y on a triangle: the corner (0, 1).
        g = torch.tensor([[-1.0, 0.0], [0.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
        h = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        f = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
        x, info = solve_qp(torch.zeros(2, 2, dtype=torch.float64), f, G=g, h=h)
        assert info.converged.all()
        torch.testing.assert_close(x, torch.tensor([[0.0, 1.0]], dtype=torch.float64), rtol=0, atol=1e-12)

    def test_without_constraints_it_is_a_linear_system(self, generator):
        program = draw(generator)
        x, info = solve_qp(program["Q"], program["f"])
        assert info.converged.all()
        torch.testing.assert_close(x, -torch.linalg.solve(program["Q"], program["f"]), rtol=1e-9, atol=1e-9)

    def test_redundant_equalities_are_welcome(self, generator):
        program = draw(generator, p=1)
        expected, _ = solve_qp(**program)
        program["A"], program["b"] = program["A"].repeat(1, 2, 1), program["b"].repeat(1, 2)
        x, info = solve_qp(**program)
        assert info.converged.all()
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)

    def test_units_of_rows_and_objective_do_not_matter(self, generator):
        program = draw(generator)
        expected, reference = solve_qp(**program)
        factor = 10.0 ** torch.arange(-6, 6, dtype=torch.float64)
        scaled = program | {"G": program["G"] * factor[:, None], "h": program["h"] * factor}
        scaled |= {"Q": 1e7 * program["Q"], "f": 1e7 * program["f"]}
        x, info = solve_qp(**scaled)
        assert info.converged.all()
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(info.z * factor / 1e7, reference.z, rtol=1e-7, atol=1e-9)

    def test_batch_is_a_loop_over_its_items(self, generator):
        program = draw(generator)
        x, info = solve_qp(**program)
        for i in range(6):
            alone, info_alone = solve_qp(**{k: v[i : i + 1] for k, v in program.items()})
            torch.testing.assert_close(alone, x[i : i + 1], rtol=1e-10, atol=1e-10)
            assert info_alone.iterations[0] == info.iterations[i]

    def test_a_good_start_needs_no_iterations(self, generator):
        program = draw(generator)
        _, first = solve_qp(**program)
        program["f"] = program["f"] + 1e-4
        x, info = solve_qp(**program, start=first)
        expected, cold = solve_qp(**program)
        assert (info.iterations == 0).all()
        assert (cold.iterations > 0).all()
        assert info.converged.all()
        torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)
        # A bad one costs nothing but a try.
        program["f"] = -program["f"]
        x, info = solve_qp(**program, start=first)
        torch.testing.assert_close(x, solve_qp(**program)[0], rtol=1e-9, atol=1e-9)

    def test_float32_in_float32_out(self, generator):
        program = draw(generator)
        expected, _ = solve_qp(**program)
        x, info = solve_qp(**{k: v.float() for k, v in program.items()})
        assert x.dtype == info.z.dtype == torch.float32
        assert info.converged.all()
        torch.testing.assert_close(x.double(), expected, rtol=1e-4, atol=1e-4)


class TestDerivatives:
    def test_gradcheck_of_all_data(self, generator):
        program = draw(generator, batch=2, n=4, p=1, q=5)
        names = list(program)
        data = tuple(v.requires_grad_() for v in program.values())

        def solve(*data: Tensor) -> Tensor:
            symmetric = 0.5 * (data[0] + data[0].mT)
            x, info = solve_qp(**dict(zip(names, (symmetric, *data[1:]), strict=True)))
            assert info.converged.all()
            assert (info.z > 0).any()
            return x

        assert gradcheck(solve, data, fast_mode=True)
        assert gradgradcheck(solve, data, fast_mode=True)

    def test_one_step_is_not_enough_for_second_derivatives(self):
        # min 1/2 q x^2 - x: x = 1/q, second derivative 2 at q = 1.
        def second(order: int) -> float:
            q = torch.ones(1, 1, 1, dtype=torch.float64, requires_grad=True)
            x, _ = solve_qp(q, -torch.ones(1, 1, dtype=torch.float64), order=order)
            (slope,) = torch.autograd.grad(x, q, create_graph=True)
            return torch.autograd.grad(slope, q)[0].item()

        assert second(2) == pytest.approx(2.0, rel=1e-8)
        assert second(1) != pytest.approx(2.0, rel=0.1)

    def test_ties_are_flagged(self):
        # The constraint x >= 0 touches the minimum of 1/2 x^2 + f x at f = 0 only.
        f = torch.tensor([[0.0], [1.0], [-1.0]], dtype=torch.float64)
        one, none = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        _, info = solve_qp(one, f, G=-one, h=none)
        assert info.converged.all()
        assert info.is_degenerate.tolist() == [True, False, False]


class TestFailure:
    def test_every_way_to_fail_stays_in_its_item(self, generator):
        program = draw(generator)
        expected, _ = solve_qp(**program)
        spoiled = {k: v.clone() for k, v in program.items()}
        spoiled["G"][1, 1], spoiled["h"][1, :2] = -spoiled["G"][1, 0], -1.0
        spoiled["Q"][2], spoiled["G"][2], spoiled["h"][2] = 0.0, 0.0, 1.0
        spoiled["f"][3, 0] = math.nan
        spoiled["Q"][4] = -spoiled["Q"][4]
        spoiled["f"].requires_grad_()
        x, info = solve_qp(**spoiled)
        statuses = [0, Status.INFEASIBLE, Status.UNBOUNDED, Status.INVALID_INPUT, Status.INVALID_INPUT, 0]
        assert info.status.tolist() == statuses
        assert x[1:5].isnan().all()
        torch.testing.assert_close(x[[0, 5]], expected[[0, 5]], rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(x[info.converged].sum(), spoiled["f"])
        assert gradient.isfinite().all()
        assert (gradient[1:5] == 0).all()

    @pytest.mark.parametrize("gap", [1.0, 1e-2, 1e-5])
    def test_contradictions_are_seen(self, generator, gap):
        program = draw(generator, batch=16, p=0, q=30)
        program["G"][:, 1], program["h"][:, 1] = -program["G"][:, 0], -program["h"][:, 0] - gap
        x, info = solve_qp(**program)
        assert x.isnan().all()
        # Very small ones are not always proved, but never called a solution.
        assert (info.status == Status.INFEASIBLE).all() if gap > 1e-3 else not info.converged.any()

    def test_a_batch_that_fails_as_a_whole_still_has_a_backward_pass(self, generator):
        program = draw(generator, p=0)
        program["G"][:, 1], program["h"][:, 1] = -program["G"][:, 0], -program["h"][:, 0] - 1.0
        x, info = solve_qp(**(program | {"f": program["f"].requires_grad_()}))
        assert not info.converged.any()
        x[info.converged].sum().backward()
        assert (program["f"].grad == 0).all()

    def test_contradicting_equalities(self, generator):
        program = draw(generator, p=1)
        program["A"], b = program["A"].repeat(1, 2, 1), program["b"]
        program["b"] = torch.cat([b, b + 0.1], dim=1)
        _, info = solve_qp(**program)
        assert (info.status == Status.INFEASIBLE).all()

    def test_limit_is_reported(self, generator):
        _, info = solve_qp(**draw(generator), max_iterations=1)
        assert set(info.status.tolist()) <= {Status.MAX_ITERATIONS, Status.CONVERGED}
        assert (info.status == Status.MAX_ITERATIONS).any()

    def test_wrong_arguments_are_refused(self):
        q, f = torch.eye(2), torch.ones(3, 2)
        for wrong in ({"A": q}, {"A": torch.ones(4, 3), "b": torch.ones(4)}, {"G": torch.ones(2, 4, 2), "h": f}):
            with pytest.raises(ShapeError, match=r"expected .*, got .*"):
                solve_qp(q, f, **wrong)
        for wrong in ({"tolerance": 0.0}, {"max_iterations": 0}, {"order": -1}):
            with pytest.raises(ArgumentError, match=r"expected .*, got .*; correct"):
                solve_qp(q, f, **wrong)
