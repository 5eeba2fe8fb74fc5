"""LeastSquaresConstraint: exact solutions in the span, convergence, derivatives, conditions, failures."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from neuralop_kit import Domain
from neuralop_kit.constraints import (
    AtStart,
    AtStop,
    BoundaryLifting,
    Damp,
    Equation,
    Fallback,
    FiniteDifference,
    LeastSquaresConstraint,
    Mask,
    Raise,
    SpectralDerivative,
)
from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError, ShapeError
from neuralop_kit.solvers.optimization import ClosedFormAdjoint, LevenbergMarquardt, Reattachment
from neuralop_kit.solvers.status import Status
from tests.constraints.problems import arguments, constraint, functions

SPACE_TIME = Domain.box((1.0, 1.0), boundary=("dirichlet", "periodic"), nodes=("vertex", "left"))


def heat_modes(shape: tuple[int, int], *, nu: float = 0.1) -> Tensor:
    """Solutions of the heat equation, one per wavenumber, and functions that solve nothing."""
    t, x = SPACE_TIME.coordinates(shape, dtype=torch.float64)
    waves = [2 * math.pi * k for k in (1, 2, 3)]
    solutions = [torch.exp(-nu * k**2 * t) * torch.sin(k * x) for k in waves]
    others = [t * torch.sin(k * x + 0.3) for k in waves]
    return torch.stack(solutions + others)[None]


class TestSolution:
    def test_a_solution_in_the_span_is_found(self):
        basis = heat_modes((129, 16))
        layer = LeastSquaresConstraint(
            Equation(
                lambda u, u_t, u_xx, nu: u_t - nu * u_xx,
                SPACE_TIME,
                derivatives=(FiniteDifference(6), SpectralDerivative()),
            ),
            SPACE_TIME,
            conditions=[AtStart("initial", 0)],
            ridge=0.0,
        )
        expected = basis[:, :3].sum(dim=1, keepdim=True)
        u, info = layer(basis, coefficients={"nu": 0.1}, targets={"initial": expected[:, 0, 0]})
        assert info.converged.all()
        assert (u - expected).abs().max() < 1e-5, "sixth-order differences leave an error like this"

    def test_converges_to_the_solution_with_the_resolution(self):
        def error(num_t: int) -> float:
            basis = heat_modes((num_t, 16), nu=0.02)
            layer = LeastSquaresConstraint(
                lambda u, u_t, u_xx: u_t - 0.02 * u_xx, SPACE_TIME, conditions=[AtStart("initial", 0)], ridge=0.0
            )
            expected = basis[:, :3].sum(dim=1, keepdim=True)
            return (layer(basis, targets={"initial": expected[:, 0, 0]})[0] - expected).abs().max().item()

        assert math.log2(error(65) / error(129)) == pytest.approx(2.0, abs=0.3)

    def test_boundary_values_by_lifting_are_exact(self):
        domain = Domain.box((1.0,), nodes="vertex")
        (x,) = domain.coordinates((65,), dtype=torch.float64)
        lifting = BoundaryLifting(domain)
        walls = torch.linspace(1.0, 3.0, 65, dtype=torch.float64)
        basis, _ = lifting(torch.stack([x**k for k in range(2, 9)])[None], torch.zeros(65, dtype=torch.float64))
        offset = walls.expand(1, 1, -1)
        layer = LeastSquaresConstraint(lambda u, u_xx: u_xx - u, domain, ridge=0.0)
        u, info = layer(basis, offset=offset)
        assert info.converged.all()
        assert u[0, 0, 0] == 1.0
        assert u[0, 0, -1] == 3.0
        exact = (3 * torch.sinh(x) + torch.sinh(1 - x)) / math.sinh(1.0)
        assert (u[0, 0] - exact).abs().max() < 1e-4

    def test_rows_pull_as_their_weight_says(self):
        missed = []
        for weight in (0.1, 1.0, 10.0, 100.0):
            layer = LeastSquaresConstraint(
                lambda u, u_x: u_x + u**2,
                Domain.box((1.0,)),
                conditions=[AtStart("start", 0, weight=weight, target=2.0)],
            )
            (x,) = Domain.box((1.0,)).coordinates((33,), dtype=torch.float64)
            u, info = layer(torch.stack([torch.ones_like(x), x])[None])
            assert info.converged.all()
            missed.append((u[0, 0, 0] - 2).abs().item())
        assert missed == sorted(missed, reverse=True)
        assert missed[-1] < 1e-3 < missed[0]

    def test_a_flux_condition_on_the_far_wall(self):
        # u' = a has the solution u = a x + c; u + u'/2 = 1 at x = 2 fixes c.
        domain = Domain.box((2.0,), nodes="cell")
        (x,) = domain.coordinates((20,), dtype=torch.float64)
        layer = LeastSquaresConstraint(
            lambda u, u_x, a: u_x - a, domain, conditions=[AtStop("flux", 0, (1.0, 0.5), target=1.0)], ridge=0.0
        )
        u, _ = layer(
            torch.stack([torch.ones_like(x), x])[None].expand(2, -1, -1), coefficients={"a": torch.tensor([1.0, 3.0])}
        )
        expected = torch.stack([x - 1.5, 3 * x - 6.5])[:, None]
        torch.testing.assert_close(u, expected, rtol=0, atol=1e-12)

    def test_unit_of_the_basis_does_not_matter(self):
        basis = functions()
        u, _ = constraint()(basis, **arguments())
        scaled, _ = constraint()(1e6 * basis, **arguments())
        torch.testing.assert_close(scaled, u, rtol=1e-7, atol=1e-9)

    def test_the_number_of_points_hardly_matters(self):
        def middle(shape: tuple[int, int]) -> Tensor:
            u, _ = constraint()(functions(shape=shape), **arguments(num_x=shape[1]))
            return u[:, :, shape[0] // 2, shape[1] // 2]

        coarse, fine, finest = (middle((12 * k + 1, 16 * k + 1)) for k in (1, 2, 4))
        assert (fine - finest).abs().max() < 0.4 * (coarse - finest).abs().max() < 0.02

    def test_some_points_are_nearly_as_good_as_all(self, generator):
        basis = functions(shape=(25, 33))
        u, _ = constraint()(basis, **arguments(num_x=33))
        some, info = constraint(num_points=300)(basis, **arguments(num_x=33), generator=generator)
        assert info.converged.all()
        assert 0 < (u - some).abs().max() < 0.05 * u.abs().max()
        again, _ = constraint(num_points=300)(
            basis, **arguments(num_x=33), generator=torch.Generator().manual_seed(generator.initial_seed())
        )
        assert torch.equal(some, again)

    def test_batch_is_a_loop_over_its_items(self):
        basis, given = functions(), arguments()
        u, info = constraint()(basis, **given)
        for i in range(2):
            alone, info_alone = constraint()(
                basis[i : i + 1],
                coefficients={"nu": given["coefficients"]["nu"][i : i + 1]},
                targets={k: v[i : i + 1] for k, v in given["targets"].items()},
            )
            torch.testing.assert_close(u[i : i + 1], alone, rtol=1e-10, atol=1e-12)
            assert info.iterations[i] == info_alone.iterations[0]

    def test_functions_by_automatic_differentiation(self):
        # A network's own derivatives against those of its values on a fine grid.
        torch.manual_seed(0)
        domain = Domain.box((1.0, 1.0))
        network = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4)).double()
        layer = LeastSquaresConstraint(
            Equation(lambda u, u_t, u_x, nu: u_t + nu * u_x + u**3, domain, derivatives=[FiniteDifference(6)] * 2),
            domain,
            conditions=[AtStart("initial", 0, weight=2.0), AtStop("right", 1, (0.0, 1.0))],
        )
        shape = (49, 49)
        grid = domain.coordinates(shape, dtype=torch.float64)
        points = grid.flatten(1).mT
        line = torch.linspace(0, 1, 49, dtype=torch.float64)
        targets = {"initial": torch.cos(line)[None]}
        start_line = torch.stack([torch.zeros_like(line), line], dim=1)
        right_line = torch.stack([line, torch.ones_like(line)], dim=1)
        w, info = layer.solve_functions(
            lambda p: network(p)[None],
            points,
            walls={"initial": start_line, "right": right_line},
            coefficients={"nu": 0.5},
            targets=targets,
        )
        assert info.converged.all()
        ours = (network(points) @ w[0]).view(shape)
        basis = network(points).mT.view(1, 4, *shape)
        expected, _ = layer(basis, coefficients={"nu": 0.5}, targets=targets)
        torch.testing.assert_close(ours, expected[0, 0], rtol=0, atol=1e-4 * ours.abs().max().item())
        ours.square().mean().backward()
        assert all(p.grad.isfinite().all() and p.grad.ne(0).any() for p in network.parameters())


class TestDerivatives:
    @pytest.mark.parametrize("differentiation", [Reattachment(), ClosedFormAdjoint()], ids=["attached", "closed form"])
    def test_gradcheck_of_everything_given(self, differentiation):
        given = arguments(num_x=6)
        # The ridge is large, so that a scale of the columns that is not differentiated would be seen.
        layer = constraint(ridge=1e-2, differentiation=differentiation)
        inputs = [functions(3, (5, 6)), given["coefficients"]["nu"], *given["targets"].values()]
        inputs = tuple(z.detach().requires_grad_() for z in inputs)

        def solve(basis, nu, initial, left) -> Tensor:
            u, info = layer(basis, coefficients={"nu": nu}, targets={"initial": initial, "left": left})
            assert info.converged.all()
            return u

        assert gradcheck(solve, inputs, fast_mode=True)
        assert gradgradcheck(solve, inputs, fast_mode=True)

    def test_a_network_learns_through_the_layer(self):
        torch.manual_seed(0)
        basis = nn.Parameter(functions())
        target = torch.full((2, 1, 13, 17), 1.2, dtype=torch.float64)
        optimizer = torch.optim.Adam([basis], lr=1e-2)
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = (constraint()(basis, **arguments())[0] - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]

    def test_float32(self):
        given = {k: {n: v.float() for n, v in d.items()} for k, d in arguments().items()}
        expected, _ = constraint()(functions(), **arguments())
        u, info = constraint()(functions().float(), **given)
        assert u.dtype == torch.float32
        assert info.converged.all()
        torch.testing.assert_close(u.double(), expected, rtol=0, atol=5e-4)


def spoiled(kind: str) -> Tensor:
    """Basis functions of three items, the second of which has no good solution."""
    basis = functions(batch=3)
    if kind == "nan":
        basis[1, 0, 3, 3] = math.nan
    else:
        basis[1, 1] = basis[1, 0]
    return basis.requires_grad_()


class TestFailure:
    def solve(self, kind: str, policy, **options):
        layer = constraint(policy=policy, ridge=0.0, **options)
        basis = spoiled(kind)
        u, info = layer(basis, **arguments(3))
        return basis, u, info

    def test_mask_keeps_values_without_derivatives(self):
        for kind, status in (("singular", Status.SINGULAR), ("nan", Status.INVALID_INPUT)):
            basis, u, info = self.solve(kind, Mask())
            assert info.status.tolist() == [0, status, 0]
            expected, _ = constraint(ridge=0.0)(functions(batch=3), **arguments(3))
            torch.testing.assert_close(u[[0, 2]], expected[[0, 2]], rtol=1e-9, atol=1e-10)
        basis, u, _ = self.solve("singular", Mask())
        assert u.isfinite().all()
        # Coefficients of the failed item are constants: what is left is the derivative of a plain sum.
        (gradient,) = torch.autograd.grad(u[1].sum(), basis)
        per_function = gradient[1].flatten(1)
        torch.testing.assert_close(per_function, per_function[:, :1].expand_as(per_function), rtol=1e-12, atol=1e-12)

    def test_raise_names_the_item(self):
        with pytest.raises(ConvergenceError, match="item 1: SINGULAR"):
            self.solve("singular", Raise())
        u, _ = constraint(policy=Raise())(functions(), **arguments())
        assert u.isfinite().all()

    def test_damp_gives_finite_derivatives(self):
        basis, u, info = self.solve("singular", Damp())
        assert info.is_damped.tolist() == [False, True, False]
        (gradient,) = torch.autograd.grad(u[1].square().sum(), basis)
        assert gradient.isfinite().all()
        constant = gradient[1].flatten(1) - 2 * u[1].detach().flatten()
        assert constant.abs().max() > 1e-6, "the coefficients were constants"
        _, _, info = self.solve("nan", Damp())
        assert info.status.tolist() == [0, Status.INVALID_INPUT, 0]

    def test_fallback_takes_a_cautious_step(self):
        few = LevenbergMarquardt(max_iterations=1)
        basis, u, info = self.solve("singular", Fallback(0.1), solver=few)
        assert not info.converged.any()
        assert not torch.autograd.grad(u.sum(), basis)[0].isnan().any()
        # The start is u = 0; the step goes towards the data.
        initial = arguments(3)["targets"]["initial"]
        assert ((u[:, 0, 0] - initial).norm(dim=1) < initial.norm(dim=1)).all()
        with pytest.raises(ArgumentError, match="positive damping"):
            Fallback(0.0)

    def test_nan_is_not_spread_by_the_policies(self):
        for policy in (Mask(), Damp(), Fallback()):
            basis, u, info = self.solve("nan", policy)
            assert info.status[1] == Status.INVALID_INPUT
            (gradient,) = torch.autograd.grad(u[info.converged].sum(), basis)
            assert gradient[[0, 2]].isfinite().all()
            assert gradient[[0, 2]].ne(0).any()

    @pytest.mark.parametrize("policy", [Mask(), Damp(), Fallback()])
    def test_an_offset_with_nan_leaves_the_basis_alone(self, policy):
        # A network that makes the basis sees gradients of all items: one NaN would be in all of its weights.
        basis, offset = functions(batch=3).requires_grad_(), torch.zeros(3, 1, 13, 17, dtype=torch.float64)
        offset[1, 0, 3, 3] = math.nan
        u, info = constraint(policy=policy, ridge=1e-8)(basis, offset=offset, **arguments(3))
        assert info.status.tolist() == [0, Status.INVALID_INPUT, 0]
        (gradient,) = torch.autograd.grad(u[info.converged].square().sum(), basis)
        assert gradient.isfinite().all()
        alone, (others,) = basis[[0, 2]].detach().requires_grad_(), [[0, 2]]
        given = {kind: {key: value[others] for key, value in data.items()} for kind, data in arguments(3).items()}
        u, _ = constraint(ridge=1e-8)(alone, **given)
        (expected,) = torch.autograd.grad(u.square().sum(), alone)
        torch.testing.assert_close(gradient[others], expected, rtol=1e-8, atol=1e-10)

    def test_wrong_arguments_are_refused(self):
        line = Domain.box((1.0,))
        basis = torch.ones(1, 2, 9)
        cases = [
            (ArgumentError, lambda: LeastSquaresConstraint(lambda u: u, line, ridge=-1.0)),
            (ArgumentError, lambda: LeastSquaresConstraint(lambda u: u, line, num_points=0)),
            (ArgumentError, lambda: LeastSquaresConstraint(lambda u: u, line)(basis, targets={"a": basis})),
            (ArgumentError, lambda: LeastSquaresConstraint(lambda u, nu: nu * u, line)(basis)),
            (ArgumentError, lambda: AtStart("a", 0, weight=0.0)),
            (ArgumentError, lambda: AtStart("a", 0, (0.0, 0.0))),
            (ShapeError, lambda: LeastSquaresConstraint(lambda u: u, line)(basis[0])),
            (ShapeError, lambda: LeastSquaresConstraint(lambda u: u, line)(basis, start=torch.ones(2))),
            (
                ShapeError,
                lambda: LeastSquaresConstraint(lambda u: u, line, conditions=[AtStart("a", 0)])(
                    basis, targets={"a": torch.ones(3)}
                ),
            ),
        ]
        for error, make in cases:
            with pytest.raises(error, match=r"expected .*, got"):
                make()
