"""Wave: d'Alembert, conserved energy, any time step."""

import math

import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.pde import Wave
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid
from tests.contracts.stepper import StepperContract


class TestWave(StepperContract):
    domain = Domain.box((1.0, 2.0), boundary=("periodic", "neumann"))
    num_channels = 2
    shapes = ((12, 8), (9, 7))
    tiny_shape = (5, 4)

    def make_stepper(self, dt):
        return Wave(self.domain, speed=1.5, dt=dt)

    def test_order_of_convergence(self):
        # d'Alembert: the mean of two shifted copies, at any time; the velocity is its derivative.
        domain, speed = Domain.periodic((1.0,)), 0.7

        def profile(s: torch.Tensor) -> torch.Tensor:
            return torch.exp(torch.cos(2 * math.pi * s))

        x = domain.coordinates((64,), dtype=torch.float64)
        start = torch.cat([profile(x), torch.zeros_like(x)])[None]
        for dt in (0.013, 0.5, 7.0):
            u = Wave(domain, speed=speed, dt=dt).step(start)[0, 0]
            expected = (profile(x[0] - speed * dt) + profile(x[0] + speed * dt)) / 2
            torch.testing.assert_close(u, expected, rtol=0, atol=1e-12)

    def test_energy_is_conserved(self):
        domain, speed = Domain.periodic((1.0, 1.0)), 2.0
        grid = SpectralGrid(domain, (15, 15), dtype=torch.float64)
        state = torch.randn(2, 2, 15, 15, dtype=torch.float64)

        def energy(state: torch.Tensor) -> torch.Tensor:
            modes = grid.to_modes(state[:, 0])
            slopes = [grid.to_space(grid.derivative(modes, axis)) for axis in (0, 1)]
            return (state[:, 1] ** 2 + speed**2 * (slopes[0] ** 2 + slopes[1] ** 2)).mean(dim=(-1, -2))

        end = Wave(domain, speed=speed, dt=0.3).rollout(state, num_steps=50)[:, -1]
        torch.testing.assert_close(energy(end), energy(state), rtol=1e-11, atol=0)

    def test_the_mean_drifts_at_its_velocity(self):
        state = torch.stack([torch.zeros(8, 9), torch.ones(8, 9)]).double()[None]
        u = self.make_stepper(0.25).step(state)
        torch.testing.assert_close(u[0, 0], torch.full((8, 9), 0.25, dtype=torch.float64), rtol=0, atol=1e-14)
