"""Layers in closed form: what they promise holds to rounding, at any resolution, and differentiates exactly."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from neuralop_kit import Domain
from neuralop_kit.constraints import (
    BoundaryLifting,
    ConservationConstraint,
    DivergenceFree,
    FluxForm,
    LinearConstraint,
    SimplexConstraint,
)
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from neuralop_kit.solvers.pde.sorption import FreundlichSorption
from neuralop_kit.solvers.status import Status

TORUS, BOX = Domain.periodic((1.0, 2.0)), Domain.box((1.0, 2.0), boundary=("periodic", "dirichlet"))
CELLS = Domain.box((1.0, 0.5), nodes="cell")


def field(generator, *shape, dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=dtype)


class TestConservation:
    @pytest.mark.parametrize("domain", [TORUS, BOX, Domain.sphere()], ids=["torus", "box", "sphere"])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.float32, 1e-6)])
    def test_integrals_hold_on_every_grid(self, generator, domain, dtype, tolerance):
        layer = ConservationConstraint(domain)
        for shape in ((12, 24), (33, 65)):
            u, totals = field(generator, 3, 2, *shape, dtype=dtype), field(generator, 3, 2, dtype=dtype) * 100
            v, info = layer(u, totals)
            assert v.dtype == dtype
            assert info.residual_norm.max() < tolerance
            again, _ = layer(v, totals)
            assert (again - v).abs().max() <= 10 * tolerance * v.abs().max()

    def test_equals_the_general_projection(self, generator):
        u, totals = field(generator, 2, 1, 9, 7), field(generator, 2, 1)
        general = LinearConstraint(lambda x: torch.ones_like(x[:1])[:, None], domain=BOX)
        torch.testing.assert_close(
            ConservationConstraint(BOX)(u, totals)[0], general(u, totals)[0], rtol=1e-13, atol=1e-13
        )

    def test_a_mean_without_quadrature_would_miss(self, generator):
        u, totals = field(generator, 2, 1, 9, 7) + 1, torch.ones(2, 1, dtype=torch.float64)
        naive = u - u.mean(dim=(2, 3), keepdim=True) + totals[..., None, None] / BOX.measure
        assert (ConservationConstraint(BOX).integral(naive) - totals).abs().max() > 1e-3

    def test_derivatives_and_nan(self, generator):
        layer = ConservationConstraint(BOX)
        inputs = (field(generator, 2, 1, 4, 3).requires_grad_(), field(generator, 2, 1).requires_grad_())
        assert gradcheck(lambda *x: layer(*x)[0], inputs)
        u = field(generator, 2, 1, 4, 3)
        u[0, 0, 0, 0] = math.nan
        assert layer(u, torch.zeros(2, 1))[1].status.tolist() == [Status.INVALID_INPUT, Status.CONVERGED]

    def test_wrong_shapes(self):
        with pytest.raises(ShapeError, match="totals"):
            ConservationConstraint(BOX)(torch.zeros(2, 1, 4, 4), torch.zeros(2))
        with pytest.raises(ShapeError, match="field"):
            ConservationConstraint(BOX).integral(torch.zeros(2, 4, 4))


class TestLinear:
    def moments(self, x: Tensor) -> Tensor:
        one = torch.ones_like(x[0])
        return torch.stack([torch.stack([one, 0 * one]), torch.stack([x[0], x[1]]), torch.stack([0 * one, x[1] ** 2])])

    def test_moments_hold_and_the_correction_converges(self, generator):
        layer = LinearConstraint(self.moments, domain=CELLS)
        values = field(generator, 2, 3)
        corrections = []
        for shape in ((9, 9), (27, 27), (81, 81)):
            x = CELLS.coordinates(shape, dtype=torch.float64)
            u = torch.sin(3 * x[0] + x[1]).expand(2, 2, *shape)
            v, info = layer(u, values)
            assert info.converged.all()
            assert info.residual_norm.max() < 1e-14
            corrections.append((v - u)[(..., *CELLS.common_nodes((9, 9), shape))])
        errors = [(c - corrections[-1]).abs().max() for c in corrections[:2]]
        assert errors[0] / errors[1] > 8  # h^2 under factor 3

    def test_dependent_functionals_are_flagged(self, generator):
        layer = LinearConstraint(lambda x: torch.stack([x[:1], 2 * x[:1]]), domain=CELLS)
        _, info = layer(field(generator, 2, 1, 8, 8), torch.zeros(2, 2, dtype=torch.float64))
        assert info.status.tolist() == [Status.BREAKDOWN] * 2

    def test_derivatives(self, generator):
        layer = LinearConstraint(self.moments, domain=CELLS)
        inputs = (field(generator, 1, 2, 4, 3).requires_grad_(), field(generator, 1, 3).requires_grad_())
        assert gradcheck(lambda *x: layer(*x)[0], inputs)

    def test_wrong_channels(self):
        with pytest.raises(ShapeError, match="channel"):
            LinearConstraint(self.moments, domain=CELLS)(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3))


class TestSimplex:
    @pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.5, 0.5), (0.0, math.nan)])
    def test_bounds_in_the_wrong_order_are_an_error(self, bounds):
        with pytest.raises(ArgumentError, match="lower < upper"):
            SimplexConstraint(TORUS, lower=bounds[0], upper=bounds[1])

    def test_positivity_and_mass(self, generator):
        layer, integral = SimplexConstraint(BOX), ConservationConstraint(BOX).integral
        totals = torch.rand(3, 2, generator=generator, dtype=torch.float64)
        v, info = layer(field(generator, 3, 2, 16, 9), totals)
        assert info.converged.all()
        assert v.shape == (3, 2, 16, 9)
        assert (v >= 0).all()
        assert (integral(v) - totals).abs().max() < 1e-14

    def test_clipping_and_rescaling_goes_further(self, generator):
        u, totals = field(generator, 2, 1, 16, 16) + 0.5, torch.ones(2, 1, dtype=torch.float64)
        integral = ConservationConstraint(TORUS).integral
        v, _ = SimplexConstraint(TORUS)(u, totals)
        naive = u.clamp_min(0)
        naive = naive * (totals / integral(naive))[..., None, None]
        assert (integral((v - u) ** 2) < integral((naive - u) ** 2)).all()

    def test_infeasible_channels_flag_their_item(self, generator):
        totals = torch.tensor([[1.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
        _, info = SimplexConstraint(TORUS, upper=1.0)(field(generator, 2, 2, 8, 8), totals)
        assert info.status.tolist() == [Status.CONVERGED, Status.INFEASIBLE]

    def test_derivatives(self, generator):
        layer = SimplexConstraint(BOX, upper=1.5)
        inputs = (field(generator, 1, 2, 3, 4).requires_grad_(), torch.tensor([[1.0, 0.4]], dtype=torch.float64))
        inputs[1].requires_grad_()
        assert gradcheck(lambda *x: layer(*x)[0], inputs)
        assert gradgradcheck(lambda *x: layer(*x)[0], inputs)


class TestFluxForm:
    def fluxes(self, generator, domain, shape, batch=2):
        sizes = [
            [n + (i == index and not axis.is_periodic) for i, n in enumerate(shape)]
            for index, axis in enumerate(domain.axes)
        ]
        return [field(generator, batch, 1, *size) for size in sizes]

    @pytest.mark.parametrize("domain", [Domain.periodic((1.0,)), CELLS, TORUS], ids=["circle", "box", "torus"])
    def test_totals_change_by_what_passes_the_walls(self, generator, domain):
        shape = (64, 48)[: domain.num_dims]
        u = field(generator, 2, 1, *shape)
        v, info = FluxForm(domain)(u, self.fluxes(generator, domain, shape), dt=0.3)
        assert info.converged.all()
        assert info.residual_norm.max() < 1e-13
        assert (v - u).abs().max() > 1

    def test_two_numbers_on_one_face_would_lose_mass(self, generator):
        # What happens when neighbours evaluate the flux at their common face by themselves.
        domain = Domain.periodic((1.0,))
        u, left = field(generator, 1, 1, 64), field(generator, 1, 1, 64)
        right = left.roll(-1, 2) + 1e-6 * field(generator, 1, 1, 64)
        naive = u - 0.3 * (right - left) * 64
        shared, _ = FluxForm(domain)(u, [left], dt=0.3)
        assert (shared - u).sum().abs() < 1e-11
        assert (naive - u).sum().abs() > 1e-5

    def test_divergence_of_exact_fluxes_is_second_order(self):
        domain, errors = Domain.periodic((1.0,)), []
        for n in (16, 32, 64):
            h = 1 / n
            faces = torch.arange(n, dtype=torch.float64) * h
            flux = torch.sin(2 * math.pi * faces)[None, None]
            exact = 2 * math.pi * torch.cos(2 * math.pi * (faces + h / 2))
            errors.append((FluxForm(domain).divergence([flux], (1, 1, n)) - exact).abs().max())
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
        assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)

    def test_what_soil_stores_is_conserved(self, generator):
        domain, soil = Domain.box((1.0,), nodes="cell"), FreundlichSorption()
        u = torch.rand(3, 1, 50, generator=generator, dtype=torch.float64)
        fluxes = 1e-2 * field(generator, 3, 1, 51)
        v, info = FluxForm(domain, stored=soil.stored)(u, [fluxes], dt=1.0)
        assert info.converged.all()
        assert info.residual_norm.max() < 1e-14
        change = (soil.stored(v) - soil.stored(u)).sum(dim=2) / 50
        through = fluxes[..., 0] - fluxes[..., -1]
        assert (change - through).abs().max() < 1e-14
        # The concentration itself is not what is conserved.
        assert ((v - u).sum(dim=2) / 50 - through).abs().max() > 1e-4

    def test_derivatives(self, generator):
        domain, soil = Domain.box((1.0,), nodes="cell"), FreundlichSorption()
        u = torch.rand(1, 1, 4, generator=generator, dtype=torch.float64) + 0.2
        inputs = (u.requires_grad_(), (0.01 * field(generator, 1, 1, 5)).requires_grad_())
        layer = FluxForm(domain, stored=soil.stored)
        assert gradcheck(lambda u, flux: layer(u, [flux], dt=1.0)[0], inputs)
        assert gradgradcheck(lambda u, flux: layer(u, [flux], dt=1.0)[0], inputs)

    def test_refusals(self):
        with pytest.raises(DomainError, match="cells"):
            FluxForm(Domain.box((1.0,)))
        with pytest.raises(ShapeError, match="fluxes"):
            FluxForm(CELLS)(torch.zeros(1, 1, 4, 4), [torch.zeros(1, 1, 4, 4)] * 2, dt=0.1)


class TestDivergenceFree:
    @pytest.mark.parametrize("shape", [(16, 12), (9, 15), (6, 5, 8)])
    def test_no_divergence_energy_or_mean_is_made(self, generator, shape):
        domain = Domain.periodic((1.0, 2.0, 0.7)[: len(shape)])
        layer, u = DivergenceFree(domain), field(generator, 2, len(shape), *shape) + 1
        v, info = layer(u)
        assert info.converged.all()
        assert info.residual_norm.max() < 1e-14
        again, _ = layer(v)
        assert (again - v).abs().max() < 1e-13
        assert (v**2).sum() < (u**2).sum()
        dims = tuple(range(2, u.ndim))
        torch.testing.assert_close(v.mean(dim=dims), u.mean(dim=dims))

    def test_curls_stay_and_gradients_go(self):
        x = TORUS.coordinates((16, 16), dtype=torch.float64)
        a, b = 2 * math.pi * x[0], math.pi * x[1]
        curl = torch.stack([torch.sin(a) * math.pi * torch.cos(b), -2 * math.pi * torch.cos(a) * torch.sin(b)])
        gradient = torch.stack([2 * math.pi * torch.cos(a) * torch.sin(b), torch.sin(a) * math.pi * torch.cos(b)])
        v, _ = DivergenceFree(TORUS)((curl + gradient)[None])
        assert (v[0] - curl).abs().max() < 1e-13

    def test_derivatives_and_refusals(self, generator):
        layer = DivergenceFree(TORUS)
        assert gradcheck(lambda u: layer(u)[0], (field(generator, 1, 2, 4, 3).requires_grad_(),))
        with pytest.raises(DomainError, match="torus"):
            DivergenceFree(BOX)
        with pytest.raises(ShapeError, match="expected"):
            layer(torch.zeros(1, 1, 4, 4))


class TestBoundaryLifting:
    def test_walls_hold_bit_for_bit(self, generator):
        domain = Domain.box((1.0, 2.0, 1.0))
        u, g = field(generator, 2, 3, 5, 6, 7), field(generator, 2, 3, 5, 6, 7)
        v, info = BoundaryLifting(domain)(u, g)
        assert info.residual_norm.eq(0).all()
        for dim in (2, 3, 4):
            assert torch.equal(v.select(dim, 0), g.select(dim, 0))
            assert torch.equal(v.select(dim, -1), g.select(dim, -1))

    def test_only_the_walls_matter(self, generator):
        domain = Domain.box((1.0, 1.0))
        u, g = field(generator, 1, 1, 8, 9), field(generator, 1, 1, 8, 9)
        other = g.clone()
        other[..., 1:-1, 1:-1] += field(generator, 6, 7)
        layer = BoundaryLifting(domain)
        torch.testing.assert_close(layer(u, g)[0], layer(u, other)[0], rtol=1e-13, atol=1e-13)
        v, _ = layer(u, g)
        torch.testing.assert_close(layer(v, g)[0], v, rtol=1e-13, atol=1e-13)

    def test_an_initial_condition_and_walls(self, generator):
        domain = Domain.box((1.0, 1.0), boundary=("dirichlet", "dirichlet"))
        u, g = field(generator, 1, 1, 6, 9), field(generator, 1, 1, 6, 9)
        v, _ = BoundaryLifting(domain, sides=("start", "both"))(u, g)
        assert torch.equal(v[..., 0, :], g[..., 0, :])
        assert torch.equal(v[..., -1], g[..., -1])
        assert (v[..., -1, 1:-1] - g[..., -1, 1:-1]).abs().max() > 0.1

    def test_second_order_for_smooth_fields_between_walls(self):
        # With the exact wall values of a bilinear function, whatever u is there, nothing else is added.
        domain = Domain.box((1.0, 1.0))
        x = domain.coordinates((7, 5), dtype=torch.float64)
        bilinear = (1 + x[0] - 2 * x[1] + 3 * x[0] * x[1])[None, None]
        v, _ = BoundaryLifting(domain)(torch.zeros(1, 1, 7, 5, dtype=torch.float64), bilinear)
        torch.testing.assert_close(v, bilinear, rtol=1e-13, atol=1e-13)

    def test_derivatives_and_refusals(self, generator):
        layer = BoundaryLifting(BOX)
        inputs = (field(generator, 1, 2, 4, 3).requires_grad_(), field(generator, 1, 2, 4, 3).requires_grad_())
        assert gradcheck(lambda *x: layer(*x)[0], inputs)
        with pytest.raises(DomainError, match="vertex"):
            BoundaryLifting(CELLS)
        with pytest.raises(DomainError, match="wall"):
            BoundaryLifting(TORUS)
        with pytest.raises(ShapeError, match="broadcast"):
            layer(torch.zeros(1, 1, 4, 4), torch.zeros(3, 4))
