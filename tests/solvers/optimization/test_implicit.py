"""Derivatives of minimisers: finite differences, an unrolled solver, each other; and that wrong ones are seen."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jacfwd, jacrev, jvp, vmap

from neuralop_kit.solvers import levenberg_marquardt
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.optimization import (
    ClosedFormAdjoint,
    DenseProblem,
    GaussNewtonReattachment,
    LevenbergMarquardt,
    PointwiseProblem,
    Reattachment,
)
from neuralop_kit.solvers.optimization.hessian import HessianFactor
from neuralop_kit.solvers.optimization.levenberg_marquardt import LeastSquaresInfo
from tests.solvers.optimization.least_squares_problems import dense, draw, objective, problem, residual, solution, start

EXACT = [Reattachment(1), Reattachment(2), ClosedFormAdjoint()]


def drawn(generator, **sizes) -> tuple[Tensor, ...]:
    return tuple(z.requires_grad_() for z in draw(generator, **sizes))


def gradients(differentiation, data) -> tuple[Tensor, ...]:
    return torch.autograd.grad(objective(solution(differentiation)(*data)), data)


def relative(ours, expected) -> float:
    """Largest difference of two lists of tensors, each relative to its size."""
    pairs = zip(ours, expected, strict=True)
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


class TestFirstDerivatives:
    @pytest.mark.parametrize("differentiation", EXACT, ids=["order 1", "order 2", "closed form"])
    def test_gradcheck(self, generator, differentiation):
        data = drawn(generator, batch=2, num_points=7)
        assert gradcheck(solution(differentiation), data, fast_mode=True)

    @pytest.mark.parametrize("differentiation", EXACT, ids=["order 1", "order 2", "closed form"])
    def test_central_differences_along_a_direction(self, generator, differentiation):
        data = drawn(generator)
        direction = [torch.randn(z.shape, generator=generator, dtype=z.dtype) for z in data]
        h = 1e-5
        with torch.no_grad():
            ahead, behind = ([z + s * h * d for z, d in zip(data, direction, strict=True)] for s in (1, -1))
            expected = (objective(solution(None)(*ahead)) - objective(solution(None)(*behind))) / (2 * h)
        ours = sum((g * d).sum() for g, d in zip(gradients(differentiation, data), direction, strict=True))
        assert ours.item() == pytest.approx(expected.item(), rel=1e-6)

    def test_an_unrolled_solver_has_the_same_gradient(self, generator):
        data = drawn(generator)
        # Newton's method, written out, from a point that is not the minimum; every step stays in the graph.
        w = solution(None)(*data) + 0.02
        plain = DenseProblem(dense(*data), 3)
        for _ in range(5):
            w = w - torch.linalg.solve(plain.hessian(w), plain.gradient(w))
        unrolled = torch.autograd.grad(objective(w), data)
        for differentiation in EXACT:
            assert relative(gradients(differentiation, data), unrolled) < 1e-6

    def test_gauss_newton_is_wrong_where_the_residual_is_not_zero(self, generator):
        data = drawn(generator)
        exact, inexact = gradients(Reattachment(1), data), gradients(GaussNewtonReattachment(), data)
        assert relative(inexact, exact) > 0.01

    def test_gauss_newton_is_right_where_it_is(self, generator):
        terms = torch.randn(2, 1, 9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        exact = torch.ones(2, 3, dtype=torch.float64)
        values = torch.sinh((terms.detach()[:, 0] @ exact[..., None])[..., 0])

        def gradient(differentiation) -> Tensor:
            consistent = PointwiseProblem(lambda u, f: torch.sinh(u) - f, terms, coefficients=[values])
            w, _ = levenberg_marquardt(consistent, torch.zeros_like(exact), differentiation=differentiation)
            return torch.autograd.grad(objective(w), terms)[0]

        torch.testing.assert_close(gradient(GaussNewtonReattachment()), gradient(Reattachment(1)), rtol=1e-8, atol=1e-9)

    def test_closed_form_is_the_derivative_of_the_gradient_times_the_adjoint(self, generator):
        data = drawn(generator)
        ours = gradients(ClosedFormAdjoint(), data)
        w = solution(None)(*data).detach().requires_grad_()
        (w_bar,) = torch.autograd.grad(objective(w), w)
        s = torch.linalg.solve(problem(*data).hessian(w), w_bar).detach()
        plain = DenseProblem(dense(*data), 3)
        expected = torch.autograd.grad(-(s * plain.gradient(w.detach())).sum(), data)
        assert relative(ours, expected) < 1e-12

    def test_dense_problems_are_differentiated_too(self, generator):
        data = drawn(generator)
        w, _ = levenberg_marquardt(dense(*data), start(data))
        assert relative(torch.autograd.grad(objective(w), data), gradients(Reattachment(1), data)) < 1e-10

    def test_values_do_not_move(self, generator):
        data = drawn(generator)
        expected = solution(None)(*data)
        for differentiation in EXACT:
            assert torch.equal(solution(differentiation)(*data), expected)

    def test_what_the_residual_closes_over_is_seen_or_refused(self, generator):
        terms, offsets, *_ = draw(generator)
        nu = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        closing = PointwiseProblem(lambda u, v, s: residual(u, v, s, nu), terms, offsets=offsets)
        w, _ = levenberg_marquardt(closing, start((terms,)))
        given = PointwiseProblem(residual, terms, offsets=offsets, coefficients=[nu.reshape(1, 1)])
        expected, _ = levenberg_marquardt(given, start((terms,)))
        (ours,) = torch.autograd.grad(objective(w), nu)
        assert ours.item() == pytest.approx(torch.autograd.grad(objective(expected), nu)[0].item(), rel=1e-12)
        with pytest.raises(ArgumentError, match="closes over"):
            levenberg_marquardt(closing, start((terms,)), differentiation=ClosedFormAdjoint())
        with pytest.raises(ArgumentError, match="PointwiseProblem"):
            levenberg_marquardt(lambda w: w - 1, start((terms,)), differentiation=ClosedFormAdjoint())

    def test_closed_form_keeps_the_data_and_little_else(self, generator):
        data = drawn(generator, num_points=400)
        assert kept_beside_data(Reattachment(2), data) > 1.0
        assert kept_beside_data(ClosedFormAdjoint(), data) < 0.05


def kept_beside_data(differentiation, data) -> float:
    """Bytes that the graph keeps for the backward pass and that are not the data's own, relative to the terms."""
    known = {z.untyped_storage().data_ptr() for z in data}
    kept, seen, nodes = {}, set(), [solution(differentiation)(*data).grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for tensor in (*saved, *getattr(node, "saved_tensors", ())):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(kept.values()) / data[0].untyped_storage().nbytes()


class TestSecondDerivatives:
    @pytest.mark.parametrize("differentiation", [Reattachment(2), ClosedFormAdjoint()], ids=["order 2", "closed form"])
    def test_gradgradcheck(self, generator, differentiation):
        assert gradgradcheck(solution(differentiation), drawn(generator, batch=1, num_points=7), fast_mode=True)

    def test_one_step_is_not_enough(self):
        # sqrt: second derivative -1/4 at one.
        def second(order: int) -> float:
            t = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
            w, _ = levenberg_marquardt(
                lambda w: w**2 - t, 1.2 * torch.ones_like(t), differentiation=Reattachment(order)
            )
            (slope,) = torch.autograd.grad(w, t, create_graph=True)
            return torch.autograd.grad(slope, t)[0].item()

        assert second(2) == pytest.approx(-0.25, rel=1e-9)
        assert second(1) != pytest.approx(-0.25, rel=0.1)

    def test_third_derivative_takes_three_steps(self):
        t = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        w, _ = levenberg_marquardt(lambda w: w**2 - t, 1.2 * torch.ones_like(t), differentiation=Reattachment(3))
        for _ in range(3):
            (w,) = torch.autograd.grad(w, t, create_graph=True)
        assert w.item() == pytest.approx(3 / 8, rel=1e-9)


class TestTransforms:
    def test_forward_mode_is_reverse_mode(self, generator):
        data = drawn(generator)

        def solve(nu: Tensor) -> Tensor:
            return solution()(*data[:4], nu, *data[5:])

        assert torch.allclose(
            jacfwd_by_jvp(solve, data[4].detach()), torch.autograd.functional.jacobian(solve, data[4])
        )

    def test_vmap_over_data_of_the_attached_problem(self, generator):
        data = draw(generator)
        minimum = LevenbergMarquardt().minimize(problem(*data), start(data))

        def attached(target: Tensor) -> Tensor:
            changed = problem(*data[:3], target, *data[4:])
            return Reattachment(1).attach(changed, minimum.w, minimum.factor)

        by_vmap = vmap(jacrev(attached))(data[3].expand(2, -1, -1))
        torch.testing.assert_close(by_vmap[0], jacfwd(attached)(data[3]), rtol=1e-10, atol=1e-12)

    def test_one_graph_for_attaching(self, generator):
        data = drawn(generator)
        minimum = LevenbergMarquardt().minimize(problem(*data), start(data))

        def attached(*data: Tensor) -> Tensor:
            return Reattachment().attach(problem(*data), minimum.w, minimum.factor)

        # The graph is what is tested; no compiler is needed for that.
        compiled = torch.compile(attached, backend="aot_eager", fullgraph=True)
        ours = torch.autograd.grad(objective(compiled(*data)), data)
        assert relative(ours, torch.autograd.grad(objective(attached(*data)), data)) < 1e-12


def jacfwd_by_jvp(function, x: Tensor) -> Tensor:
    """Columns one by one: the solver's loop looks at values, which vmap forbids."""
    units = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    return torch.stack([jvp(function, (x,), (e,))[1] for e in units], dim=-1).unflatten(-1, x.shape)


class TestDamping:
    def test_condition_is_that_of_the_equilibrated_matrix(self, generator):
        root = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
        hessian = root.mT @ root
        scale = torch.tensor([1e-6, 1.0, 1e3, 1e9], dtype=torch.float64)
        factor = HessianFactor.of(scale[:, None] * hessian * scale)
        inverse = hessian.diagonal(dim1=1, dim2=2).rsqrt()
        expected = torch.linalg.cond(inverse[:, :, None] * hessian * inverse[:, None])
        torch.testing.assert_close(factor.condition, expected, rtol=1e-9, atol=0)
        x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        solved = torch.linalg.solve(hessian, x / scale) / scale
        torch.testing.assert_close(factor.solve(x), solved, rtol=1e-9, atol=0)

    def test_nearly_singular_items_are_damped_and_counted(self, generator):
        terms = draw(generator)[0]
        terms[1, ..., 1] = terms[1, ..., 0] + 1e-5 * terms[1, ..., 1]
        terms.requires_grad_()

        def solve(terms: Tensor) -> tuple[Tensor, LeastSquaresInfo]:
            return levenberg_marquardt(PointwiseProblem(lambda u, v, s: u + v - s - 1, terms), start((terms,)))

        w, info = solve(terms)
        assert info.converged.all()
        assert info.is_damped.tolist() == [False, True, False]
        assert (info.condition[1] > 1e9).item()
        (ours,) = torch.autograd.grad(objective(w), terms)
        assert ours.isfinite().all()
        # The others are not damped: their gradients are those they have alone.
        alone = terms.detach()[::2].requires_grad_()
        (expected,) = torch.autograd.grad(objective(solve(alone)[0]), alone)
        torch.testing.assert_close(ours[::2], expected, rtol=1e-10, atol=1e-12)
