"""Projections against independent solvers, theory (optimality, idempotent, non-expansive), and finite differences."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jacfwd, jacrev, vmap

from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.optimization import project_onto_budget, project_onto_equalities, project_onto_simplex
from neuralop_kit.solvers.status import Status


def normal(generator, *shape, dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=dtype)


def by_sorting(z: Tensor, total: Tensor) -> Tensor:
    """The classical algorithm for the simplex: another way to the same point."""
    ordered = z.sort(dim=-1, descending=True).values
    count = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)
    shifts = (ordered.cumsum(dim=-1) - total[:, None]) / count
    last = (ordered > shifts).sum(dim=-1, keepdim=True) - 1
    return (z - shifts.gather(1, last)).clamp_min(0)


class TestEqualities:
    def case(self, generator, *, batch=64, n=512, p=3):
        weights = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
        return normal(generator, batch, n), normal(generator, batch, p, n), normal(generator, batch, p), weights

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.float32, 1e-6)])
    def test_holds_to_rounding_whatever_the_scale_of_the_rows(self, generator, dtype, tolerance):
        z, matrix, target, weights = self.case(generator)
        scale = torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)
        arguments = (z, matrix * scale[:, None], target * scale)
        y, info = project_onto_equalities(*(x.to(dtype) for x in arguments), weights=weights.to(dtype))
        assert y.dtype == dtype
        assert info.converged.all()
        assert info.residual_norm.max() < tolerance

    def test_solves_the_kkt_equations(self, generator):
        z, matrix, target, weights = self.case(generator, batch=3, n=7)
        y, _ = project_onto_equalities(z, matrix, target, weights=weights)
        kkt = torch.zeros(3, 10, 10, dtype=torch.float64)
        kkt[:, :7, :7] = torch.diag(weights)
        kkt[:, :7, 7:] = matrix.mT
        kkt[:, 7:, :7] = matrix
        expected = torch.linalg.solve(kkt, torch.cat([weights * z, target], dim=1))[:, :7]
        torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-12)

    def test_idempotent_and_never_expansive(self, generator):
        z, matrix, target, weights = self.case(generator, batch=8)
        other = normal(generator, 8, 512)
        y, _ = project_onto_equalities(z, matrix, target, weights=weights)
        x, _ = project_onto_equalities(other, matrix, target, weights=weights)
        again, _ = project_onto_equalities(y, matrix, target, weights=weights)
        assert (again - y).abs().max() < 1e-13
        before, after = ((weights * d**2).sum(dim=1) for d in (z - other, y - x))
        assert (after <= before).all()

    def test_derivatives(self, generator):
        z, matrix, target, weights = self.case(generator, batch=2, n=5, p=2)
        inputs = tuple(x.requires_grad_() for x in (z, matrix, target, weights))

        def value(z, matrix, target, weights):
            return project_onto_equalities(z, matrix, target, weights=weights)[0]

        assert gradcheck(value, inputs)
        assert gradgradcheck(value, inputs)

    def test_gradient_is_the_adjoint_of_theory(self, generator):
        z, matrix, target, weights = self.case(generator, batch=2, n=6, p=2)
        z.requires_grad_()
        target.requires_grad_()
        y, _ = project_onto_equalities(z, matrix, target, weights=weights)
        cotangent = normal(generator, 2, 6)
        got = torch.autograd.grad(y, (z, target), cotangent)
        spread = matrix.mT / weights[:, None]
        zeta = torch.linalg.solve(matrix @ spread, (spread.mT @ cotangent[..., None])).squeeze(-1)
        torch.testing.assert_close(got[1], zeta, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(
            got[0], cotangent - (matrix.mT @ zeta[..., None]).squeeze(-1), rtol=1e-11, atol=1e-12
        )

    def test_dependent_rows_are_flagged_and_harm_nobody(self, generator):
        z, matrix, target, weights = self.case(generator, batch=3, n=9)
        expected, _ = project_onto_equalities(z, matrix, target, weights=weights)
        matrix[1, 2] = matrix[1, 0] - 2 * matrix[1, 1]
        z[1].requires_grad_()
        leaf = z.clone().requires_grad_()
        y, info = project_onto_equalities(leaf, matrix, target, weights=weights)
        assert info.status.tolist() == [Status.CONVERGED, Status.BREAKDOWN, Status.CONVERGED]
        torch.testing.assert_close(y[::2], expected[::2])
        y.sum().backward()
        assert leaf.grad.isfinite().all()

    def test_nan_is_flagged_in_its_own_item(self, generator):
        z, matrix, target, weights = self.case(generator, batch=2, n=5)
        z[0, 0] = math.nan
        _, info = project_onto_equalities(z, matrix, target, weights=weights)
        assert info.status.tolist() == [Status.INVALID_INPUT, Status.CONVERGED]

    def test_wrong_shapes(self):
        with pytest.raises(ShapeError, match="flatten"):
            project_onto_equalities(torch.zeros(2, 3), torch.zeros(1, 4), torch.zeros(2, 1))
        with pytest.raises(ShapeError, match="target"):
            project_onto_equalities(torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(2, 2))


class TestBudget:
    def case(self, generator, batch=6, n=20):
        z = normal(generator, batch, n)
        weights = torch.rand(n, generator=generator, dtype=torch.float64) + 0.2
        lower = -torch.rand(batch, n, generator=generator, dtype=torch.float64)
        upper = torch.rand(batch, n, generator=generator, dtype=torch.float64)
        share = torch.linspace(0.05, 0.95, batch, dtype=torch.float64)
        total = ((1 - share) * (weights * lower).sum(dim=1) + share * (weights * upper).sum(dim=1)).detach()
        return z, total, weights, lower, upper

    def test_simplex_by_sorting(self, generator):
        z = normal(generator, 64, 32)
        total = torch.rand(64, generator=generator, dtype=torch.float64) * 4
        y, info = project_onto_simplex(z, total)
        assert info.converged.all()
        assert info.iterations.max() <= 10
        assert (y >= 0).all()
        assert (y - by_sorting(z, total)).abs().max() < 1e-14
        assert (y.sum(dim=1) - total).abs().max() < 1e-14

    def test_bounds_against_a_root_finder(self, generator):
        z, total, weights, lower, upper = self.case(generator)
        y, info = project_onto_budget(z, total, weights=weights, lower=lower, upper=upper)
        assert info.converged.all()
        for i in range(len(z)):
            w, c = weights.numpy(), total[i].item()
            point, low, high = z[i].numpy(), lower[i].numpy(), upper[i].numpy()

            def excess(shift, w=w, c=c, point=point, low=low, high=high):
                return float(w @ np.clip(point + shift, low, high) - c)

            root = scipy.optimize.brentq(excess, -10, 10, xtol=1e-15, rtol=1e-14)
            assert np.abs(y[i].numpy() - np.clip(point + root, low, high)).max() < 1e-12

    def test_optimality_conditions(self, generator):
        # y - z is one number between the bounds, larger where the lower bound pushes up, smaller at the upper one.
        z, total, weights, lower, upper = self.case(generator)
        y, _ = project_onto_budget(z, total, weights=weights, lower=lower, upper=upper)
        assert ((y * weights).sum(dim=1) - total).abs().max() < 1e-13
        for moved, at_low, at_high in zip(y - z, y == lower, y == upper, strict=True):
            free = moved[~(at_low | at_high)]
            assert len(free) > 0
            assert free.max() - free.min() < 1e-13
            assert (moved[at_low] >= free.min() - 1e-13).all()
            assert (moved[at_high] <= free.max() + 1e-13).all()

    @pytest.mark.parametrize("bounded", [False, True], ids=["simplex", "box"])
    def test_derivatives(self, generator, bounded):
        z, total, weights, lower, upper = self.case(generator, batch=3, n=6)

        def value(z, total, weights, lower, upper):
            bounds = {"lower": lower, "upper": upper} if bounded else {}
            return project_onto_budget(z, total if bounded else total.exp(), weights=weights, **bounds)[0]

        inputs = tuple(x.clone().requires_grad_() for x in (z, total, weights, lower, upper))
        assert gradcheck(value, inputs)
        assert gradgradcheck(value, inputs)

    def test_gradient_is_the_adjoint_of_theory(self, generator):
        # z_bar = s (y_bar - mean of y_bar over the free entries): with the whole mean it would be wrong.
        z = normal(generator, 4, 9).requires_grad_()
        y, _ = project_onto_simplex(z)
        cotangent = normal(generator, 4, 9)
        (got,) = torch.autograd.grad(y, z, cotangent)
        free = (y > 0).double()
        mean = (free * cotangent).sum(dim=1, keepdim=True) / free.sum(dim=1, keepdim=True)
        assert (got - free * (cotangent - mean)).abs().max() < 1e-14
        assert (got - (cotangent - cotangent.mean(dim=1, keepdim=True))).abs().max() > 0.1

    def test_transforms(self, generator):
        z, total = normal(generator, 2, 5), torch.tensor([1.0, 2.0], dtype=torch.float64)
        many = normal(generator, 3, 2, 5)
        mapped = vmap(lambda z: project_onto_budget(z, total)[0])(many)
        torch.testing.assert_close(mapped, torch.stack([project_onto_budget(z, total)[0] for z in many]))

        def function(z):
            return project_onto_budget(z, total)[0]

        torch.testing.assert_close(jacfwd(function)(z), jacrev(function)(z))
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(z), function(z))

    def test_large_fields_of_float32(self, generator):
        z = normal(generator, 3, 4096, dtype=torch.float32)
        y, info = project_onto_simplex(z, torch.full((3,), 10.0))
        assert y.dtype == torch.float32
        assert info.converged.all()
        assert (y >= 0).all()
        assert (y.double().sum(dim=1) - 10).abs().max() < 1e-4

    def test_hostile_points_keep_the_bounds(self, generator):
        # Equal entries, entries many orders apart, entries next to their bounds.
        spread = normal(generator, 8, 40) * 10.0 ** torch.linspace(-12, 3, 40, dtype=torch.float64)
        for z in (torch.zeros(8, 40, dtype=torch.float64), spread, spread.round()):
            total = torch.linspace(0, 40, 8, dtype=torch.float64)
            y, info = project_onto_budget(z, total, upper=1.0)
            assert info.converged.all(), info
            assert (y >= 0).all()
            assert (y <= 1).all()
            assert (y.sum(dim=1) - total).abs().max() < 1e-12

    def test_infeasible_and_invalid_items(self, generator):
        z = normal(generator, 5, 6)
        z[3, 0], z[4, 2] = math.nan, math.inf
        leaf = z.clone().requires_grad_()
        total = torch.tensor([1.0, -1.0, 7.0, 1.0, 1.0], dtype=torch.float64)
        y, info = project_onto_budget(leaf, total, upper=1.0)
        names = [Status(s).name for s in info.status.tolist()]
        assert names[:4] == ["CONVERGED", "INFEASIBLE", "INFEASIBLE", "INVALID_INPUT"]
        assert y[1].eq(0).all()
        assert y[2].eq(1).all()
        assert y[3].isnan().all()
        assert torch.equal(y[:1], project_onto_budget(z[:1], total[:1], upper=1.0)[0])
        (gradient,) = torch.autograd.grad(y[:3].sum(), leaf)
        assert gradient[:3].isfinite().all()
        # A total that the bounds just meet is feasible.
        _, info = project_onto_budget(z[:2], torch.tensor([0.0, 6.0], dtype=torch.float64), upper=1.0)
        assert info.converged.all()

    def test_without_bounds_it_is_a_shift(self, generator):
        z = normal(generator, 2, 5)
        y, info = project_onto_budget(z, torch.ones(2, dtype=torch.float64), lower=-math.inf)
        assert info.converged.all()
        torch.testing.assert_close(y, z + (1 - z.sum(dim=1, keepdim=True)) / 5)

    def test_wrong_shapes(self):
        with pytest.raises(ShapeError, match="total"):
            project_onto_budget(torch.zeros(2, 3), torch.zeros(3))
