"""Diffusion-sorption: scipy's stiff solver, mass balance, an exact steady state, both kinds of walls."""

import math

import numpy as np
import pytest
import scipy.integrate
import torch
from torch.autograd import gradgradcheck

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde import DiffusionSorption, FreundlichSorption, GhostValues, WallValues
from tests.contracts.stepper import StepperContract

COLUMN = Domain.box((1.0,), boundary="dirichlet", nodes="cell")
DIFFUSIVITY = 5e-4


def pdebench_by_scipy(num_points: int, start: float, times: list[float]) -> np.ndarray:
    """PDEBench's semi-discrete system with its own constants, written out, by Radau at 1e-10."""
    h = 1 / num_points

    def rate(t: float, c: np.ndarray) -> np.ndarray:
        right = DIFFUSIVITY * (c[-2] - c[-1]) / h
        padded = np.concatenate([[1.0], c, [right]])
        retardation = 1 + (1 - 0.29) / 0.29 * 2880 * 3.5e-4 * 0.874 * (c + 1e-6) ** (0.874 - 1)
        return DIFFUSIVITY / retardation * (padded[2:] - 2 * padded[1:-1] + padded[:-2]) / h**2

    span, y0 = (0, times[-1]), np.full(num_points, start)
    return scipy.integrate.solve_ivp(rate, span, y0, method="Radau", rtol=1e-10, atol=1e-12, t_eval=times).y.T


class TestDiffusionSorption(StepperContract):
    domain = COLUMN
    dt = 4.0
    num_steps = 1
    num_refinements = 3

    def make_stepper(self, dt):
        return DiffusionSorption(self.domain, dt=dt)

    def inputs(self, shape, *, batch=3):
        """Between 0 and 1, and 1 at the wall: without the jump at the start, which no order survives."""
        x = self.domain.coordinates(shape, dtype=torch.float64)
        rows = [torch.exp(-(3 + i) * x**2) for i in range(batch)]
        return (torch.stack(rows),)

    def test_second_derivatives_are_right(self):
        stepper = self.make()
        (u,) = self.inputs((5,), batch=1)
        assert gradgradcheck(stepper.step, (u.requires_grad_(),), fast_mode=True)

    def test_agrees_with_scipy_on_pdebenchs_system(self):
        stepper = DiffusionSorption.pdebench()
        u = torch.tensor([0.02, 0.15], dtype=torch.float64)[:, None, None].expand(2, 1, 64)
        trajectory = stepper.rollout(u, num_steps=10)
        for i in range(2):
            expected = pdebench_by_scipy(64, u[i, 0, 0].item(), [5.0, 25.0, 50.0])
            assert np.abs(trajectory[i, [1, 5, 10], 0].numpy() - expected).max() < 1e-6

    @pytest.mark.parametrize(("walls", "order"), [(WallValues(), 2), (GhostValues(), 1)])
    def test_order_in_space(self, walls, order):
        def end(num_points: int, kind: WallValues | GhostValues) -> torch.Tensor:
            stepper = DiffusionSorption(COLUMN, dt=50.0, num_substeps=25, walls=kind)
            x = COLUMN.coordinates((num_points,), dtype=torch.float64)
            return stepper.step(torch.exp(-4 * x**2)[None])[0, 0]

        truth = end(3**6, WallValues())
        errors = []
        for num_points in (27, 81):
            picked = truth[COLUMN.common_nodes((num_points,), (3**6,))]
            errors.append((end(num_points, walls) - picked).norm().item() / num_points**0.5)
        assert math.log(errors[0] / errors[1], 3) == pytest.approx(order, abs=0.15)

    def test_stored_amount_balances_with_the_flux(self):
        stepper = DiffusionSorption(COLUMN, dt=1.0, num_substeps=2)
        (u,) = self.inputs((32,))
        c = stepper.rollout(u, num_steps=40)[:, :, 0]
        stored = stepper.sorption.stored(c).mean(dim=-1)
        ghost_factor = (2 * DIFFUSIVITY - 1 / 32) / (2 * DIFFUSIVITY + 1 / 32)
        inflow = DIFFUSIVITY * 32 * (2 * (1 - c[..., 0]) - (1 - ghost_factor) * c[..., -1])
        received = scipy.integrate.simpson(inflow[:, 8:].numpy(), dx=1.0, axis=1)
        np.testing.assert_allclose((stored[:, -1] - stored[:, 8]).numpy(), received, rtol=1e-5)

    def test_ends_in_the_linear_steady_state(self):
        # c_xx = 0, c(0) = 1, c(1) + D c'(1) = 0.
        stepper = DiffusionSorption(COLUMN, dt=1e7)
        (x,) = COLUMN.coordinates((16,), dtype=torch.float64)
        c = stepper.rollout(torch.zeros(1, 1, 16, dtype=torch.float64), num_steps=5)[0, -1, 0]
        assert (c - (1 - x / (1 + DIFFUSIVITY))).abs().max() < 1e-10

    def test_dry_soil_and_coarse_steps_are_no_trouble(self):
        # Newton converges from anywhere; concentrations stay between those at the walls.
        for dt in (0.01, 5.0, 1e4):
            c = DiffusionSorption(COLUMN, dt=dt).rollout(torch.zeros(1, 1, 128, dtype=torch.float64), num_steps=3)
            assert c.isfinite().all()
        assert c.min() > -1e-3
        assert c.max() <= 1

    def test_published_start_is_constant_and_uniform(self):
        c = DiffusionSorption.pdebench().initial_condition(4000, (8,), generator=torch.Generator().manual_seed(0))
        assert (c - c[..., :1]).abs().max() == 0
        assert 0 <= c.min() < 0.001
        assert 0.199 < c.max() <= 0.2
        assert c[..., 0].mean().item() == pytest.approx(0.1, abs=0.003)

    def test_our_start_varies_and_is_uniform_at_every_point(self):
        c = self.make().initial_condition(4000, (27,), generator=torch.Generator().manual_seed(0))
        assert c.std(dim=-1).mean() > 0.02
        assert (c.mean(dim=0) - 0.1).abs().max() < 0.005
        assert (c.std(dim=0) - 0.2 / math.sqrt(12)).abs().max() < 0.003


def test_retardation_is_the_slope_of_what_is_stored():
    c = torch.tensor([-0.3, 0.0, 1e-7, 0.01, 0.7], dtype=torch.float64, requires_grad=True)
    soil = FreundlichSorption()
    (slope,) = torch.autograd.grad(soil.stored(c).sum(), c)
    torch.testing.assert_close(slope[[0, 2, 3, 4]], soil.retardation(c)[[0, 2, 3, 4]].detach(), rtol=1e-12, atol=0)
    assert soil.retardation(torch.ones(1)).item() == pytest.approx(3.157, abs=1e-3)


def test_nonsense_is_refused():
    with pytest.raises(ArgumentError, match="diffusivity > 0"):
        DiffusionSorption(COLUMN, dt=1.0, diffusivity=0.0)
    with pytest.raises(ArgumentError, match="porosity"):
        FreundlichSorption(porosity=1.0)
