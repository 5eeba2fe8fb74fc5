"""Experts: one is the global solve, a batch is a loop, interfaces do what they say, derivatives are exact."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from neuralop_kit import Domain
from neuralop_kit.constraints import (
    AtStart,
    AtStop,
    Coupled,
    EqualPoints,
    Equation,
    LeastSquaresConstraint,
    MixtureOfExperts,
    Overlap,
    Partition,
    ProportionalPoints,
    Raise,
    RandomAssignment,
    Separate,
)
from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError, NeuralopKitError
from neuralop_kit.solvers.optimization.coupled import CoupledProblem
from neuralop_kit.solvers.optimization.levenberg_marquardt import levenberg_marquardt
from neuralop_kit.solvers.optimization.pointwise import LinearRows, PointwiseProblem
from neuralop_kit.solvers.status import Status
from tests.constraints.problems import DOMAIN, arguments, constraint, functions

UNEVEN = Partition(DOMAIN, (2, (0.7,)))
INTERFACES = {
    "separate": Separate(),
    "overlap": Overlap((0.3, 0.3)),
    "coupled": Coupled(0.5),
}


def layer(interface="separate", partition=UNEVEN, **options) -> MixtureOfExperts:
    return MixtureOfExperts(constraint(), partition, interface=INTERFACES[interface], **options)


class TestOneExpert:
    @pytest.mark.parametrize("interface", INTERFACES)
    def test_is_the_global_solve(self, interface):
        basis = functions()
        expected, report = constraint()(basis, **arguments())
        u, info = layer(interface, Partition(DOMAIN, (1, 1)))(basis, **arguments())
        assert info.converged.all()
        assert report.converged.all()
        assert (u - expected).abs().max() < 1e-10
        assert info.jump.eq(0).all()

    def test_reports_what_the_conditions_miss(self):
        given, offset = arguments(), 0.1 * functions(1)
        solution = layer(partition=Partition(DOMAIN, (1, 1))).solve(functions(), offset=offset, **given)
        initial, left, right = solution.wall_residuals()
        u = solution.field()[:, 0]
        assert (u[:, 0] - given["targets"]["initial"] - initial).abs().max() < 1e-12
        assert (u[:, :, 0] - given["targets"]["left"][:, None] - left).abs().max() < 1e-12
        assert right.shape == (2, 13)

    def test_with_an_offset_and_a_start(self):
        basis = functions()
        offset, start = 0.1 * functions(1), torch.full((2, 6), 0.1, dtype=torch.float64)
        expected, _ = constraint()(basis, offset=offset, start=start, **arguments())
        u, _ = layer(partition=Partition(DOMAIN, (1, 1)))(basis, offset=offset, start=start, **arguments())
        assert (u - expected).abs().max() < 1e-10


class TestManyExperts:
    @pytest.mark.parametrize("interface", INTERFACES)
    def test_a_batch_is_a_loop(self, interface):
        basis, whole = functions(batch=3), arguments(batch=3)
        u, info = layer(interface)(basis, **whole)
        assert info.converged.all()
        assert info.status.shape == (3, 4)
        for i in range(3):
            part = {kind: {k: v[i : i + 1] for k, v in values.items()} for kind, values in whole.items()}
            alone, _ = layer(interface)(basis[i : i + 1], **part)
            assert (u[i : i + 1] - alone).abs().max() < 1e-10

    def test_every_part_is_a_solve_of_its_own(self):
        # The same parts, one constraint on each box's own points and walls.
        basis, given = functions(batch=1), arguments(batch=1)
        solution = layer().solve(basis, **given)
        single = constraint()
        terms = single.assemble_terms(basis)
        labels = UNEVEN.labels((13, 17))
        nu = given["coefficients"]["nu"]
        for k in range(4):
            own = (labels == k).flatten()
            blocks = []
            for rows in single.assemble_rows(basis, targets=given["targets"]):
                end = -1 if rows.condition.at_stop else 0
                here = labels.select(rows.condition.axis, end) == k
                if here.any():
                    scale = rows.condition.weight / here.sum() ** 0.5
                    blocks.append(LinearRows(scale * rows.matrix[:, here], scale * rows.target[:, here]))
            w, _ = single.solve_local(
                terms.flatten(3)[..., own].mT, data=[nu.expand(1, int(own.sum()))], rows=LinearRows.join(*blocks)
            )
            # Few points tell little about six functions: the coefficients differ where the field does not.
            difference = torch.einsum("bn,bntx->btx", w - solution.coefficients[:, k], basis)
            assert difference[:, labels == k].abs().max() < 1e-6

    def test_numbering_does_not_matter(self):
        u, _ = layer(partition=Partition(DOMAIN, (1, 2)))(functions(), **arguments())
        # The mirror image in x, with everything mirrored, gives the mirror image.
        mirrored = LeastSquaresConstraint(
            Equation(lambda u, u_t, u_xx, nu: u_t - nu * u_xx + u**3, DOMAIN),
            DOMAIN,
            conditions=[
                AtStart("initial", 0, weight=4.0),
                *(_mirror(c) for c in constraint().conditions[1:]),
            ],
            ridge=1e-8,
        )
        given = arguments()
        given["targets"]["initial"] = given["targets"]["initial"].flip(-1)
        v, _ = MixtureOfExperts(mirrored, Partition(DOMAIN, (1, ((1.0625,)))))(functions().flip(-1), **given)
        assert (u - v.flip(-1)).abs().max() < 1e-8

    def test_nan_in_one_expert_leaves_the_others_alone(self):
        basis, given = functions(), arguments()
        nu = (given["coefficients"]["nu"][:, None, None, None] * torch.ones(2, 1, 13, 17)).double()
        expected = layer().solve(basis, coefficients={"nu": nu}, targets=given["targets"])
        nu[1, 0, 0, 0] = math.nan
        spoiled = layer().solve(basis, coefficients={"nu": nu}, targets=given["targets"])
        healthy = torch.ones(2, 4, dtype=torch.bool)
        healthy[1, 0] = False
        assert torch.equal(spoiled.info.converged, healthy)
        assert spoiled.info.status[1, 0] == Status.INVALID_INPUT
        assert (spoiled.coefficients - expected.coefficients)[healthy].abs().max() < 1e-9
        with pytest.raises(ConvergenceError, match="item 4"):
            spoiled.info.raise_if_failed()

    def test_policies_pass_through(self):
        basis = functions()
        basis[0, 0, 0, 0] = math.inf
        with pytest.raises(NeuralopKitError):
            MixtureOfExperts(constraint(policy=Raise()), UNEVEN)(basis, **arguments())

    @pytest.mark.parametrize("interface", INTERFACES)
    def test_derivatives(self, interface):
        basis, given = functions(3, (7, 9)), arguments(num_x=9)
        partition = Partition(DOMAIN, (1, 2))
        mixture = MixtureOfExperts(
            constraint(ridge=1e-3), partition, interface=INTERFACES[interface], collocation=EqualPoints(12)
        )

        def value(weights, initial):
            solution = mixture.solve(
                torch.einsum("nk,bktx->bntx", weights, basis),
                coefficients=given["coefficients"],
                targets={**given["targets"], "initial": initial},
            )
            assert solution.info.converged.all()
            return solution.field()[:, 0, ::3, ::2], solution.residual()[:, 0, ::3, ::3]

        weights = torch.eye(3, dtype=torch.float64) + 0.1
        inputs = (weights.requires_grad_(), given["targets"]["initial"].requires_grad_())
        assert gradcheck(value, inputs, fast_mode=True)


def _mirror(condition):
    from neuralop_kit.constraints import AtStop

    coefficients = tuple(c * (-1) ** j for j, c in enumerate(condition.coefficients))
    kind = AtStart if condition.at_stop else AtStop
    return kind(condition.name, condition.axis, coefficients, condition.weight)


class TestCollocation:
    def test_all_points_however_they_are_listed(self):
        expected, _ = layer()(functions(), **arguments())
        for rule in (EqualPoints(10**6), ProportionalPoints(13 * 17)):
            u, _ = layer(collocation=rule)(functions(), **arguments())
            assert (u - expected).abs().max() < 1e-10

    def test_points_are_drawn_anew_and_repeatably(self):
        def draw(seed):
            mixture = layer(collocation=EqualPoints(15), global_conditions=True)
            return mixture(functions(4), generator=torch.Generator().manual_seed(seed), **arguments())[0]

        assert torch.equal(draw(0), draw(0))
        assert (draw(0) - draw(1)).abs().max() > 1e-6


class TestInterfaces:
    """Decay over a long time, by polynomials of degree three: too few for one expert, plenty for three."""

    domain = Domain.box((3.0,), boundary="dirichlet", nodes="vertex")

    def error_and_jump(self, interface, *, splits=3):
        initial = AtStart("initial", 0, target=1.0)
        decay = LeastSquaresConstraint(lambda u, u_x: u_x + u, self.domain, conditions=[initial])
        x = self.domain.coordinates((97,), dtype=torch.float64)
        mixture = MixtureOfExperts(decay, Partition(self.domain, (splits,)), interface=interface)
        u, info = mixture(torch.stack([x**k for k in range(4)], dim=1))
        return (u - torch.exp(-x)).abs().max().item(), info.jump.item()

    def test_coupled_experts_beat_one_and_separate_ones(self):
        alone, _ = self.error_and_jump(Separate(), splits=1)
        separate, free_jump = self.error_and_jump(Separate())
        coupled, jump = self.error_and_jump(Coupled(1.0))
        assert coupled < alone / 10
        # Only the first of them knows where the decay begins.
        assert separate > 10 * alone
        assert jump < free_jump / 100

    def test_an_equation_of_second_order_needs_slopes_as_well(self):
        # u_xx = 4 u between 1 and 0. A kink would be a source; values alone do not forbid it.
        line = Domain.box((3.0,), boundary="dirichlet", nodes="vertex")
        ends = [AtStart("left", 0, target=1.0), AtStop("right", 0)]
        equation = LeastSquaresConstraint(lambda u, u_xx: u_xx - 4 * u, line, conditions=ends)
        x = line.coordinates((301,), dtype=torch.float64)
        exact = torch.sinh(2 * (3 - x)) / math.sinh(6)
        errors = []
        for slope_weight in (0.0, 4.0):
            mixture = MixtureOfExperts(equation, Partition(line, (3,)), interface=Coupled(1.0, slope_weight))
            u, info = mixture(torch.stack([(x / 3) ** k for k in range(4)], dim=1))
            assert info.converged.all()
            errors.append((u - exact).abs().max())
        assert errors[1] < errors[0] / 5

    def test_a_stronger_pull_leaves_a_smaller_jump(self):
        jumps = [self.error_and_jump(Coupled(w))[1] for w in (1.0, 10.0, 100.0)]
        assert jumps[0] > jumps[1] > jumps[2]

    def test_a_very_strong_pull_makes_one_function_of_all(self):
        # They share four functions, and meet at more points than that.
        x_only, basis = Partition(DOMAIN, (1, 2)), functions(4)
        spread = []
        for weight in (1.0, 1e3):
            mixture = MixtureOfExperts(constraint(), x_only, interface=Coupled(weight))
            w = mixture.solve(basis, **arguments()).coefficients
            spread.append(torch.einsum("bn,bntx->btx", w[:, 0] - w[:, 1], basis).abs().max())
        assert spread[0] > 1e-2
        assert spread[1] < spread[0] / 1e3

    def test_overlaps_have_no_jump_and_the_right_slope(self):
        mixture = layer("overlap", Partition(DOMAIN, (1, 2)))
        shape = (9, 401)
        basis = functions(5, shape, batch=1)
        solution = mixture.solve(basis, **arguments(batch=1, num_x=401))
        u = solution.field()
        h = DOMAIN.spacing(shape)[1]
        assert u.diff(dim=-1).abs().max() < 5 * h
        # Terms by the product rule are those of the joined field, as far as differences can tell.
        names = solution.equation.terms.names
        for i, name in enumerate(names):
            direct = solution.equation.terms.term(name, u)[:, 0]
            error = (solution.term_values()[:, i] - direct)[..., 2:-2].abs().max()
            assert error < 0.05 * direct.abs().max()
        pieces = MixtureOfExperts(constraint(), Partition(DOMAIN, (1, 2))).solve(basis, **arguments(batch=1, num_x=401))
        assert pieces.field().diff(dim=-1).abs().max() > 20 * h

    def test_scattered_points_make_a_field_of_scattered_jumps(self):
        jumps = []
        for partition in (UNEVEN, RandomAssignment(DOMAIN, 4)):
            mixture = layer(partition=partition, collocation=EqualPoints(12), global_conditions=True)
            u, _ = mixture(functions(), generator=torch.Generator().manual_seed(0), **arguments())
            jumps.append(u.diff(dim=-1).diff(dim=-1).abs().mean())
        assert jumps[1] > 2 * jumps[0]

    def test_refusals(self):
        with pytest.raises(ArgumentError, match="Partition"):
            layer("overlap", RandomAssignment(DOMAIN, 2))(functions(), **arguments())
        with pytest.raises(ArgumentError, match="one domain"):
            MixtureOfExperts(constraint(), Partition(Domain.box((1.0, 1.0)), (1, 1)))
        with pytest.raises(ArgumentError, match="positive weight"):
            Coupled(0.0)
        with pytest.raises(ArgumentError, match="slope_weight"):
            Coupled(1.0, -1.0)


class TestCoupledProblem:
    def case(self, generator):
        terms = torch.randn(6, 2, 7, 3, generator=generator, dtype=torch.float64)
        data = torch.randn(6, 7, generator=generator, dtype=torch.float64)
        blocks = PointwiseProblem(lambda u, v, f: u + 0.3 * u * v - f, terms, coefficients=[data])
        matrix = torch.randn(2, 4, 9, generator=generator, dtype=torch.float64)
        target = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        return terms, data, matrix, target, CoupledProblem(blocks, 3, LinearRows(matrix, target))

    def test_equals_the_dense_problem(self, generator):
        terms, data, matrix, target, problem = self.case(generator)

        def residual(w):
            apart = w.view(-1, 3, 3)
            u, v = torch.einsum("ekpn,en->kep", terms, apart.flatten(0, 1)).unbind(0)
            equations = (u + 0.3 * u * v - data).view(w.shape[0], -1)
            return torch.cat([equations, torch.einsum("bqn,bn->bq", matrix, w) - target], dim=1)

        start = torch.zeros(2, 9, dtype=torch.float64)
        expected, _ = levenberg_marquardt(residual, start)
        w, info = levenberg_marquardt(problem, start)
        assert info.converged.all()
        assert (w - expected).abs().max() < 1e-9
        r, jacobian = problem.rows(w)
        assert (r - residual(w)).abs().max() < 1e-12
        cost, gradient, square = problem.normal_equations(w)
        assert (cost - 0.5 * r.square().sum(dim=1)).abs().max() < 1e-12
        assert (gradient - problem.gradient(w)).abs().max() < 1e-12
        assert (square - jacobian.mT @ jacobian).abs().max() < 1e-12
        for i in range(2):
            exact = torch.func.hessian(lambda x, i=i: 0.5 * residual(x.expand(2, -1))[i].square().sum())(w[i])
            assert (problem.hessian(w)[i] - exact).abs().max() < 1e-11

    def test_parts_of_the_batch(self, generator):
        *_, problem = self.case(generator)
        w = torch.randn(2, 9, generator=generator, dtype=torch.float64)
        part = problem.take(torch.tensor([1]))
        torch.testing.assert_close(part.gradient(w[1:]), problem.gradient(w)[1:])
