"""Levenberg-Marquardt against closed forms and independent solvers; failures stay in their items."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch

from neuralop_kit.solvers import levenberg_marquardt
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.optimization import (
    DenseProblem,
    ExactHessian,
    LinearRows,
    NormalEquations,
    OrthogonalFactors,
    PointwiseProblem,
)
from neuralop_kit.solvers.status import Status
from tests.solvers.optimization.least_squares_problems import dense, draw, problem, start


class TestProblems:
    def test_structure_is_that_of_the_rows_written_down(self, generator):
        data = draw(generator)
        structured, plain = problem(*data), DenseProblem(dense(*data), len(data[0]))
        w, s = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
        for name in ("rows", "gradient", "hessian", "normal_equations", "newton_equations"):
            ours, expected = getattr(structured, name)(w), getattr(plain, name)(w)
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
        expected = (plain.hessian(w) @ s[..., None])[..., 0]
        torch.testing.assert_close(structured.hessian_product(w, s), expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(plain.hessian_product(w, s), expected, rtol=1e-12, atol=1e-12)

    def test_hessian_is_the_derivative_of_the_gradient(self, generator):
        structured = problem(*draw(generator))
        w, s = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
        h = 1e-6
        difference = (structured.gradient(w + h * s) - structured.gradient(w - h * s)) / (2 * h)
        torch.testing.assert_close((structured.hessian(w) @ s[..., None])[..., 0], difference, rtol=1e-7, atol=1e-7)

    def test_systems_are_their_equations_below_each_other(self, generator):
        terms = torch.randn(2, 2, 9, 3, generator=generator, dtype=torch.float64)
        w = torch.randn(2, 3, generator=generator, dtype=torch.float64)
        system = PointwiseProblem(lambda u, v: (u * v - 1, u - v**2), terms)
        parts = PointwiseProblem(lambda u, v: u * v - 1, terms), PointwiseProblem(lambda u, v: u - v**2, terms)
        for name in ("gradient", "hessian"):
            expected = sum(getattr(part, name)(w) for part in parts)
            torch.testing.assert_close(getattr(system, name)(w), expected, rtol=1e-12, atol=1e-12)
        assert system.rows(w)[1].shape == (2, 18, 3)

    def test_shapes_that_do_not_fit_are_refused(self):
        terms = torch.ones(2, 1, 5, 3)
        wrong = [
            lambda: PointwiseProblem(torch.sin, terms[0]),
            lambda: PointwiseProblem(torch.sin, terms, offsets=torch.ones(2, 5)),
            lambda: PointwiseProblem(torch.sin, terms, weights=torch.ones(5)),
            lambda: PointwiseProblem(torch.sin, terms, linear=LinearRows(torch.ones(2, 1, 4), torch.ones(2, 1))),
            lambda: levenberg_marquardt(lambda w: w.sum(), torch.ones(2, 3)),
            lambda: levenberg_marquardt(lambda w: w, torch.ones(3)),
        ]
        for make in wrong:
            with pytest.raises(ShapeError, match=r"expected .*, got"):
                make()


class TestSolution:
    def test_linear_problem_is_a_linear_least_squares_problem(self, generator):
        terms, offsets, matrix, target, _, weights, ridge = draw(generator)
        linear = PointwiseProblem(
            lambda u, v, s: u - 2 * v + s - 0.7,
            terms,
            offsets=offsets,
            weights=weights,
            linear=LinearRows(matrix, target),
            ridge=ridge,
        )
        w, info = levenberg_marquardt(linear, start((terms,)))
        contracted = (terms * torch.tensor([1.0, -2.0, 1.0]).view(1, 3, 1, 1)).sum(1) * weights[..., None]
        right = weights * (0.7 - offsets[:, 0] + 2 * offsets[:, 1] - offsets[:, 2])
        root = ridge.sqrt()[:, None, None] * torch.eye(4, dtype=torch.float64)
        rows = torch.cat([contracted, matrix, root], dim=1)
        expected = torch.linalg.lstsq(rows, torch.cat([right, target, torch.zeros(3, 4)], dim=1)[..., None]).solution
        assert info.converged.all()
        torch.testing.assert_close(w, expected[..., 0], rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize(
        "steps", [None, (NormalEquations(),), (OrthogonalFactors(),), (ExactHessian(damping=1.0),)]
    )
    def test_same_minimum_as_minpack(self, generator, steps):
        data = draw(generator, batch=8)
        w, info = levenberg_marquardt(problem(*data), start(data), steps=steps, max_iterations=300)
        assert info.converged.all()
        assert info.slope.max() <= 1e-10
        assert info.residual_norm.min() > 0.1, "a residual of zero would hide the second-order part of the Hessian"
        for i in range(8):
            rows = dense(*(z[i : i + 1] for z in data))
            found = scipy.optimize.least_squares(
                lambda x, rows=rows: rows(torch.from_numpy(x)[None])[0].numpy(), np.zeros(4), method="lm",
                xtol=1e-15, ftol=1e-15, gtol=1e-15,
            )  # fmt: skip
            assert info.residual_norm[i].item() ** 2 / 2 == pytest.approx(found.cost, rel=1e-9)
            np.testing.assert_allclose(w[i].numpy(), found.x, rtol=1e-5, atol=1e-5)

    def test_rosenbrock_from_far_away(self):
        w0 = torch.tensor([[-1.2, 1.0], [50.0, -30.0], [0.0, 0.0]], dtype=torch.float64)
        w, info = levenberg_marquardt(
            lambda w: torch.stack([10 * (w[:, 1] - w[:, 0] ** 2), 1 - w[:, 0]], dim=1), w0, max_iterations=1000
        )
        assert info.converged.all()
        torch.testing.assert_close(w, torch.ones_like(w), rtol=0, atol=1e-9)

    def test_batch_is_a_loop_over_its_items(self, generator):
        data = draw(generator, batch=6)
        w, info = levenberg_marquardt(problem(*data), start(data))
        for i in range(6):
            item = tuple(z[i : i + 1] for z in data)
            alone, info_alone = levenberg_marquardt(problem(*item), start(item))
            torch.testing.assert_close(w[i : i + 1], alone, rtol=1e-10, atol=1e-12)
            assert info.iterations[i] == info_alone.iterations[0]

    def test_points_with_zero_weight_do_not_count(self, generator):
        data = list(draw(generator))
        data[5][1, 12:] = 0.0
        w, _ = levenberg_marquardt(problem(*data), start(data))
        fewer = [z[1:2] for z in data]
        fewer[0], fewer[1], fewer[5] = fewer[0][:, :, :12], fewer[1][:, :, :12], fewer[5][:, :12]
        expected, _ = levenberg_marquardt(problem(*fewer), start(fewer))
        torch.testing.assert_close(w[1:2], expected, rtol=1e-12, atol=1e-12)

    def test_unit_of_the_columns_does_not_matter(self, generator):
        data = list(draw(generator))
        scale = torch.tensor([1e-8, 1.0, 1e4, 1e8], dtype=torch.float64)
        data[6] = torch.zeros_like(data[6])
        expected, _ = levenberg_marquardt(problem(*data), start(data))
        data[0], data[2] = data[0] * scale, data[2] * scale
        w, info = levenberg_marquardt(problem(*data), start(data))
        assert info.converged.all()
        torch.testing.assert_close(w * scale, expected, rtol=1e-9, atol=1e-10)

    def test_residual_of_zero_is_reached_and_recognised(self, generator):
        terms = torch.randn(4, 1, 30, 3, generator=generator, dtype=torch.float64)
        exact = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        values = (terms[:, 0] @ exact[..., None])[..., 0]
        zero = PointwiseProblem(lambda u, f: torch.sinh(u) - f, terms, coefficients=[torch.sinh(values)])
        w, info = levenberg_marquardt(zero, torch.zeros_like(exact))
        assert info.converged.all()
        torch.testing.assert_close(w, exact, rtol=1e-10, atol=1e-10)

    def test_ill_conditioned_basis_needs_orthogonal_factors(self, generator):
        # cond(J) = 1e9: the normal equations have no digit left, QR has seven. No damping, which would hide it.
        q, _ = torch.linalg.qr(torch.randn(2, 40, 4, generator=generator, dtype=torch.float64))
        v, _ = torch.linalg.qr(torch.randn(2, 4, 4, generator=generator, dtype=torch.float64))
        basis = q * torch.logspace(0, -9, 4, dtype=torch.float64) @ v.mT
        exact = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        target = (basis @ exact[..., None])[..., 0]
        linear = PointwiseProblem(lambda u, f: u - f, basis[:, None], coefficients=[target])
        w, _ = levenberg_marquardt(linear, torch.zeros_like(exact), steps=(OrthogonalFactors(damping=1e-30),), polish=0)
        assert (w - exact).abs().max() < 1e-5
        squared = basis.mT @ basis
        naive = torch.linalg.solve(squared, (basis.mT @ target[..., None]))[..., 0]
        assert (naive - exact).abs().max() > 1e-3

    def test_float32_keeps_its_dtype_and_its_digits(self, generator):
        data = draw(generator)
        expected, _ = levenberg_marquardt(problem(*data), start(data))
        single = tuple(z.float() for z in data)
        w, info = levenberg_marquardt(problem(*single), start(single))
        assert w.dtype == info.residual_norm.dtype == torch.float32
        assert info.converged.all()
        torch.testing.assert_close(w.double(), expected, rtol=1e-4, atol=1e-5)

    def test_result_does_not_depend_on_how_often_the_mask_is_looked_at(self, generator):
        data = draw(generator)
        w, info = levenberg_marquardt(problem(*data), start(data))
        rarely, info_rarely = levenberg_marquardt(problem(*data), start(data), check_every=7)
        torch.testing.assert_close(w, rarely, rtol=1e-12, atol=1e-13)
        assert torch.equal(info.iterations, info_rarely.iterations)


class TestFailure:
    def test_nan_stays_in_its_item(self, generator):
        data = draw(generator, batch=4)
        expected, _ = levenberg_marquardt(problem(*data), start(data))
        for position in (0, 1, 3, 4):
            spoiled = [z.clone() for z in data]
            spoiled[position][1].flatten()[0] = math.nan
            w, info = levenberg_marquardt(problem(*spoiled), start(data))
            assert info.status.tolist() == [0, Status.INVALID_INPUT, 0, 0]
            torch.testing.assert_close(w[[0, 2, 3]], expected[[0, 2, 3]], rtol=1e-10, atol=1e-12)

    def test_nan_in_an_item_does_not_reach_the_gradients_of_others(self, generator):
        data = draw(generator, batch=3)
        data[3][1, 0] = math.nan
        shared = torch.ones((), dtype=torch.float64, requires_grad=True)
        w, info = levenberg_marquardt(problem(shared * data[0], *data[1:]), start(data))
        w[info.converged].sum().backward()
        assert shared.grad.isfinite()
        assert shared.grad != 0

    def test_valleys_whose_decrease_drowns_in_rounding_converge(self, generator):
        # Columns parallel to 1e-4: cost and residual are known to fewer digits than eps, the gradient decides. With a
        # threshold of a few eps for the cost, 1 to 3 of 64 such items stall with a slope above 1e-10.
        base, rest = torch.randn(64, 1, 30, 5, generator=generator, dtype=torch.float64).split((1, 4), dim=-1)
        u = torch.cat([base, base + 1e-4 * rest[..., :3]], dim=-1)
        v = torch.randn(u.shape, generator=generator, dtype=torch.float64)
        target = rest[:, 0, :, 3].contiguous()
        valley = PointwiseProblem(lambda u, v, t: u + 1e-4 * u * v - t, torch.cat([u, v], 1), coefficients=[target])
        _, info = levenberg_marquardt(valley, torch.zeros(64, 4, dtype=torch.float64))
        assert info.condition.median() > 1e7
        assert info.converged.all()

    def test_what_is_kept_for_later_points_follows_the_items_and_the_ridge(self, generator):
        data = draw(generator)
        whole, w = problem(*data), start(data)
        before = whole.normal_equations(w)[2]
        index = torch.tensor([2, 0])
        torch.testing.assert_close(
            whole.take(index).normal_equations(w[index])[2], before[index], rtol=1e-13, atol=1e-13
        )
        more = whole.with_ridge(whole.ridge + 1.0).normal_equations(w)[2]
        torch.testing.assert_close(more, before + torch.eye(4, dtype=torch.float64), rtol=1e-13, atol=1e-13)

    def test_limit_is_reported_and_the_best_iterate_kept(self, generator):
        data = draw(generator)
        w, info = levenberg_marquardt(problem(*data), start(data), max_iterations=2, steps=(NormalEquations(),))
        assert (info.status == Status.MAX_ITERATIONS).all()
        assert (info.iterations == 2).all()
        assert (problem(*data).normal_equations(w)[0] < problem(*data).normal_equations(start(data))[0]).all()
        assert not w.requires_grad

    def test_two_solutions_are_no_solution(self, generator):
        # Two equal columns: every combination of their coefficients is a minimum.
        data = list(draw(generator))
        data[0][1, ..., 1], data[2][1, ..., 1] = data[0][1, ..., 0], data[2][1, ..., 0]
        data[6] = torch.zeros(3, dtype=torch.float64)
        w, info = levenberg_marquardt(problem(*data), start(data))
        assert info.status.tolist() == [0, Status.SINGULAR, 0]
        assert info.condition[1] == math.inf
        assert info.is_damped.tolist() == [False, True, False]
        assert w.isfinite().all()

    def test_saddle_is_not_called_a_minimum(self):
        # F = 1/2 (w^2 - 1)^2 has a maximum at 0, where the gradient vanishes.
        _, info = levenberg_marquardt(lambda w: w**2 - 1, torch.zeros(1, 1, dtype=torch.float64))
        assert info.status.item() == Status.SINGULAR

    def test_wrong_numbers_are_refused(self):
        w0 = torch.ones(1, 1)
        for wrong in ({"max_iterations": 0}, {"gtol": 0.0}, {"polish": -1}):
            with pytest.raises(ArgumentError, match=r"expected .*, got .*; correct"):
                levenberg_marquardt(lambda w: w - 1, w0, **wrong)
