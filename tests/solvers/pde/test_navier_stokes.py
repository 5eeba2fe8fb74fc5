"""Navier-Stokes: exact forced and decaying flows, invariants, the published random field."""

import math

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.pde import NavierStokes2D
from neuralop_kit.solvers.pde.navier_stokes import diagonal_forcing
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid
from tests.contracts.stepper import StepperContract


class TestNavierStokes2D(StepperContract):
    domain = Domain.periodic((1.0, 1.0))
    shapes = ((8, 8), (9, 7))
    tiny_shape = (4, 5)
    reference_shape = (16, 16)
    amplitude = 10.0
    dt = 0.05

    def make_stepper(self, dt):
        return NavierStokes2D(self.domain, viscosity=1e-2, dt=dt, forcing=diagonal_forcing)

    def test_forced_from_rest_is_exact(self):
        # f depends on x + y only, so the flow never turns: w = f (1 - exp(-8 pi^2 nu t)) / (8 pi^2 nu).
        rate = 8 * math.pi**2 * 1e-2
        w = self.make_stepper(0.5).rollout(torch.zeros(1, 1, 16, 16, dtype=torch.float64), num_steps=4)[0, :, 0]
        forcing = diagonal_forcing(self.domain.coordinates((16, 16), dtype=torch.float64))
        for k in range(5):
            expected = forcing * (1 - math.exp(-rate * 0.5 * k)) / rate
            torch.testing.assert_close(w[k], expected, rtol=0, atol=1e-13)

    def test_taylor_and_green_decay(self):
        domain = Domain.periodic((2 * math.pi, 2 * math.pi))
        x, y = domain.coordinates((24, 25), dtype=torch.float64)
        w = 2 * torch.cos(x) * torch.cos(y)
        end = NavierStokes2D(domain, viscosity=0.05, dt=0.1).rollout(w[None, None], num_steps=20)[0, -1, 0]
        torch.testing.assert_close(end, w * math.exp(-2 * 0.05 * 2.0), rtol=0, atol=1e-10)

    def test_laminar_kolmogorov_flow_is_stationary(self):
        stepper = NavierStokes2D.kolmogorov(reynolds=20.0, dt=0.1, num_substeps=2)
        w = -(20.0 / 4) * torch.cos(4 * stepper.domain.coordinates((32, 32), dtype=torch.float64)[1])
        end = stepper.rollout(w[None, None], num_steps=20)[0, -1, 0]
        torch.testing.assert_close(end, w, rtol=0, atol=1e-10)

    def test_energy_and_enstrophy_without_viscosity(self):
        # The semi-discrete system conserves both; what is left is the error of the time steps.
        stepper = NavierStokes2D(self.domain, viscosity=0.0, dt=0.002)
        w = 10 * stepper.initial_condition(1, (32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        grid = SpectralGrid(self.domain, (32, 32), dtype=torch.float64)
        w = grid.to_space(grid.band(2 / 3) * grid.to_modes(w))
        end = stepper.rollout(w, num_steps=50)[:, -1]

        def invariants(w: torch.Tensor) -> torch.Tensor:
            return torch.stack([(stepper.velocity(w) ** 2).mean(), (w**2).mean()])

        torch.testing.assert_close(invariants(end), invariants(w), rtol=1e-7, atol=0)

    def test_mean_vorticity_is_conserved(self):
        w = 5 * self.make_stepper(0.1).initial_condition(2, (24, 24), dtype=torch.float64) + 0.2
        end = self.make_stepper(0.02).rollout(w, num_steps=10)[:, -1]
        assert (end.mean(dim=(-1, -2)) - w.mean(dim=(-1, -2))).abs().max() < 1e-12

    def test_velocity_is_divergence_free_and_has_this_vorticity(self):
        w = self.make_stepper(0.1).initial_condition(1, (15, 17), dtype=torch.float64)
        grid = SpectralGrid(self.domain, (15, 17), dtype=torch.float64)
        modes = grid.to_modes(self.make_stepper(0.1).velocity(w))
        divergence = grid.derivative(modes[:, 0], 0) + grid.derivative(modes[:, 1], 1)
        curl = grid.derivative(modes[:, 1], 0) - grid.derivative(modes[:, 0], 1)
        assert grid.to_space(divergence).abs().max() < 1e-12
        torch.testing.assert_close(grid.to_space(curl), w[:, 0], rtol=0, atol=1e-12)

    def test_a_plain_advection_form_agrees(self):
        # The product u . grad w, taken at the points of a grid that is fine enough for it.
        w = self.make_stepper(0.1).initial_condition(1, (48, 48), dtype=torch.float64)
        grid = SpectralGrid(self.domain, (48, 48), dtype=torch.float64)
        modes = grid.band(0.6) * grid.to_modes(w)
        u, v = grid.to_space(self.make_stepper(0.1).velocity_modes(modes, grid)).unbind(dim=1)
        slopes = [grid.to_space(grid.derivative(modes[:, 0], axis)) for axis in (0, 1)]
        plain = grid.to_modes(-(u * slopes[0] + v * slopes[1]))
        ours = self.make_stepper(0.1).nonlinear(modes, grid)[:, 0]
        band = grid.band(0.6)
        torch.testing.assert_close(band * ours, band * plain, rtol=0, atol=1e-9)

    def test_initial_vorticity_has_the_published_deviation(self):
        w = NavierStokes2D.fno().initial_condition(2000, (64, 64), generator=torch.Generator().manual_seed(0))
        expected = NavierStokes2D.fno().random_field().average_variance((64, 64)) ** 0.5
        assert w.std().item() == pytest.approx(expected, rel=0.02)
        # 0.1852 is the sum over all modes of a 256 x 256 grid.
        assert NavierStokes2D.fno().random_field().average_variance((256, 256)) ** 0.5 == pytest.approx(
            0.1852, abs=5e-5
        )
