"""Relative errors: analytic values, independence of resolution and batch, gradients, the residual behind them."""

import math

import pytest
import torch
from torch import Tensor

from neuralop_kit.solvers import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from neuralop_kit.training import RelativeH1, RelativeL2, relative_h1, relative_l2
from neuralop_kit.training.losses import derivative

PERIODIC = Domain.periodic((2.0,))
WALLS = Domain.box((2.0,), boundary="neumann")


def observed_order(spacings: list[float], errors: list[float]) -> float:
    """Least-squares slope of log(error) against log(h)."""
    h, e = (torch.tensor(values, dtype=torch.float64).log() for values in (spacings, errors))
    return (((h - h.mean()) * (e - e.mean())).sum() / (h - h.mean()).square().sum()).item()


def pair(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)


class TestRelativeL2:
    def test_is_the_mean_of_ratios_over_all_channels_and_points(self):
        p, t = pair(4, 3, 5, 6)
        expected = sum((p[i] - t[i]).norm() / t[i].norm() for i in range(4)) / 4
        assert relative_l2(p, t).item() == pytest.approx(expected.item(), rel=1e-14)

    @pytest.mark.parametrize("nodes", ["vertex", "cell", "interior"])
    def test_tends_to_the_ratio_of_integrals_with_order_two(self, nodes):
        # |x^2 (2-x)| / |1 + x| on [0, 2] in L2: sqrt(2^7/105) over sqrt(26/3).
        domain = Domain.box((2.0,), nodes=nodes)
        exact = math.sqrt(2**7 / 105 / (26 / 3))
        errors, spacings = [], []
        for n in (129, 257, 513, 1025):
            x = domain.coordinates((n,), dtype=torch.float64)[None]
            errors.append(abs(relative_l2(1 + x + x**2 * (2 - x), 1 + x, domain=domain).item() - exact))
            spacings.append(domain.spacing((n,))[0])
        assert observed_order(spacings, errors) == pytest.approx(2, abs=0.2)

    def test_without_weights_the_walls_count_double(self):
        # Error at the two walls only: half a cell each of 8, where plain norms see 2 of 9 points.
        t = torch.ones(1, 1, 9, dtype=torch.float64)
        p = t.clone()
        p[..., [0, -1]] += 1
        assert relative_l2(p, t, domain=WALLS).item() == pytest.approx(math.sqrt(1 / 8), rel=1e-14)
        assert relative_l2(p, t).item() == pytest.approx(math.sqrt(2 / 9), rel=1e-14)

    def test_sphere_weights(self):
        sphere = Domain.sphere()
        t = torch.ones(1, 1, 17, 32, dtype=torch.float64)
        p = t + torch.cos(sphere.coordinates((17, 32), dtype=torch.float64)[:1])
        # The mean of cos^2 over the sphere is 1/3.
        assert relative_l2(p, t, domain=sphere).item() == pytest.approx(math.sqrt(1 / 3), rel=1e-12)

    def test_trajectory_is_one_ratio(self):
        p, t = pair(2, 5, 3, 8)
        assert relative_l2(p, t, domain=PERIODIC).item() == pytest.approx(relative_l2(p, t).item(), rel=1e-14)

    def test_half_precision_is_computed_in_single(self):
        p, t = pair(2, 1, 4096, dtype=torch.float32)
        p, t = p.bfloat16() * 300, t.bfloat16() * 300
        value = relative_l2(p, t)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), relative_l2(p.double(), t.double()), rtol=1e-6, atol=0)

    def test_complex_fields(self):
        p, t = pair(2, 3, 8, dtype=torch.complex128)
        split = relative_l2(torch.view_as_real(p).movedim(-1, 1), torch.view_as_real(t).movedim(-1, 1))
        assert relative_l2(p, t).item() == pytest.approx(split.item(), rel=1e-14)


class TestRelativeH1:
    def test_sines_have_the_analytic_value(self):
        # |a sin(m w x)|^2 + its slope = a^2 (1 + (m w)^2) / 2 times the length, w = 2 pi / L = pi here.
        x = PERIODIC.coordinates((32,), dtype=torch.float64)[None]
        t, e = torch.sin(math.pi * x), 0.1 * torch.sin(3 * math.pi * x)
        expected = 0.1 * math.sqrt((1 + 9 * math.pi**2) / (1 + math.pi**2))
        assert relative_h1(t + e, t, domain=PERIODIC).item() == pytest.approx(expected, rel=1e-12)

    def test_punishes_oscillation_where_l2_does_not(self):
        x = PERIODIC.coordinates((64,), dtype=torch.float64)[None]
        t, slow, fast = torch.sin(math.pi * x), 0.1 * torch.sin(math.pi * x), 0.1 * torch.sin(20 * math.pi * x)
        assert relative_l2(t + fast, t, domain=PERIODIC) == pytest.approx(relative_l2(t + slow, t, domain=PERIODIC))
        assert relative_h1(t + fast, t, domain=PERIODIC) > 15 * relative_h1(t + slow, t, domain=PERIODIC)

    @pytest.mark.parametrize("nodes", ["vertex", "cell", "interior"])
    def test_differences_at_walls_have_order_two_up_to_the_wall(self, nodes):
        domain = Domain.box((2.0, 1.0), boundary=("dirichlet", "periodic"), nodes=(nodes, "left"))
        errors, spacings = [], []
        for n in (17, 33, 65, 129):
            x, y = domain.coordinates((n, 8), dtype=torch.float64)
            u = (torch.exp(x) * torch.sin(2 * math.pi * y))[None, None]
            errors.append((derivative(u, domain, 0) - u).abs().max().item())
            spacings.append(domain.spacing((n, 8))[0])
        assert observed_order(spacings, errors) == pytest.approx(2, abs=0.2)
        exact = 2 * math.pi * torch.exp(x) * torch.cos(2 * math.pi * y)
        assert (derivative(u, domain, 1)[0, 0] - exact).abs().max() < 1e-11

    @pytest.mark.parametrize("n", [15, 16])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
    def test_spectral_slope_is_exact_below_nyquist_and_zero_at_it(self, n, dtype):
        x = PERIODIC.coordinates((n,), dtype=torch.float64)
        u = sum(torch.sin(math.pi * k * x + k) for k in range(1, 8))
        slope = sum(math.pi * k * torch.cos(math.pi * k * x + k) for k in range(1, 8))
        sawtooth = torch.tensor([1.0, -1.0]).repeat(8)[:n] if n % 2 == 0 else torch.zeros(n)
        result = derivative((u + sawtooth)[None].to(dtype), PERIODIC, 0)
        assert (result - slope).abs().max() < 1e-12

    def test_sphere_is_refused(self):
        with pytest.raises(DomainError, match="relative_l2"):
            relative_h1(torch.ones(1, 1, 5, 8), torch.ones(1, 1, 5, 8), domain=Domain.sphere())


LOSSES = [
    pytest.param(lambda p, t, **k: relative_l2(p, t, domain=WALLS, **k), RelativeL2(WALLS), id="l2"),
    pytest.param(lambda p, t, **k: relative_h1(p, t, domain=WALLS, **k), RelativeH1(WALLS), id="h1-walls"),
    pytest.param(lambda p, t, **k: relative_h1(p, t, domain=PERIODIC, **k), RelativeH1(PERIODIC), id="h1-periodic"),
]


@pytest.mark.parametrize(("function", "loss"), LOSSES)
class TestEveryLoss:
    def test_zero_for_equal_fields_with_a_gradient_that_is_finite(self, function, loss):
        t = torch.randn(3, 1, 9)
        p = t.clone().requires_grad_()
        function(p, t).backward()
        assert loss(t, t) == 0
        assert p.grad.isfinite().all()

    def test_the_naive_square_root_has_no_gradient_there(self, function, loss):
        p = torch.randn(3, 1, 9, requires_grad=True)
        (p - p.detach()).square().sum().sqrt().backward()
        assert p.grad.isnan().all()

    def test_one_for_a_prediction_of_zero(self, function, loss):
        _, t = pair(3, 2, 9)
        assert function(torch.zeros_like(t), t).item() == pytest.approx(1, rel=1e-14)

    def test_gradient(self, function, loss):
        p, t = pair(2, 1, 7)
        assert torch.autograd.gradcheck(lambda q: function(q, t), p.requires_grad_())

    def test_reductions_and_batch_size(self, function, loss):
        p, t = pair(5, 2, 9)
        values = function(p, t, reduction="none")
        assert values.shape == (5,)
        singles = torch.cat([function(p[i : i + 1], t[i : i + 1], reduction="none") for i in range(5)])
        torch.testing.assert_close(singles, values, rtol=1e-12, atol=0)
        assert function(p, t, reduction="sum").item() == pytest.approx(values.sum().item(), rel=1e-15)
        assert function(p, t).item() == loss(p, t).item() == pytest.approx(values.mean().item(), rel=1e-15)
        with pytest.raises(ArgumentError, match="'none'"):
            function(p, t, reduction="median")

    def test_residual_squared_is_the_mean_of_squares(self, function, loss):
        p, t = pair(5, 2, 9)
        residual = loss.residual(p, t)
        assert residual.ndim == 1
        assert residual.square().sum().item() == pytest.approx(loss.per_sample(p, t).square().mean().item(), rel=1e-13)
        torch.testing.assert_close(loss.residual(2 * t - p, t), -residual, rtol=1e-10, atol=1e-12)  # signed

    def test_compiles_into_one_graph(self, function, loss):
        p, t = pair(3, 1, 9)
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(p, t), loss(p, t), rtol=1e-12, atol=0)

    def test_different_shapes_are_refused(self, function, loss):
        with pytest.raises(ShapeError, match="one shape"):
            function(torch.ones(4, 1, 9), torch.ones(4, 2, 9))
        with pytest.raises(ShapeError, match="missing axes"):
            function(torch.ones(9), torch.ones(9))


def test_domain_of_other_dimension_is_refused():
    with pytest.raises(DomainError):
        relative_l2(torch.ones(4, 1), torch.ones(4, 1), domain=Domain.periodic((1.0, 1.0, 1.0)))
    flat = torch.ones(2, 1, 9)
    with pytest.raises(DomainError, match="2 space axes behind batch and channel"):
        RelativeL2(Domain.box((1.0, 1.0)))(flat, flat)
