"""Advection: a shift, exactly."""

import math

import pytest
import torch

from neuralop_kit import Domain, NeuralopKitError
from neuralop_kit.solvers.pde import Advection
from tests.contracts.stepper import StepperContract


class TestAdvection(StepperContract):
    domain = Domain.periodic((1.0, 2.0))
    shapes = ((12, 8), (9, 7))
    tiny_shape = (5, 4)
    velocity = (0.7, -1.3)

    def make_stepper(self, dt):
        return Advection(self.domain, velocity=self.velocity, dt=dt)

    def test_order_of_convergence(self):
        # Better than any order: exact for every step.
        for shape in self.shapes:
            x = self.domain.coordinates(shape, dtype=torch.float64)

            def wave(t: float, x=x) -> torch.Tensor:
                return torch.sin(2 * math.pi * (x[0] - self.velocity[0] * t)) * torch.cos(
                    math.pi * (x[1] - self.velocity[1] * t)
                )

            trajectory = self.make_stepper(0.37).rollout(wave(0.0)[None, None], num_steps=3)
            expected = torch.stack([wave(0.37 * k) for k in range(4)])
            torch.testing.assert_close(trajectory[0, :, 0], expected, atol=1e-12, rtol=0)

    def test_whole_periods_return_any_odd_grid_to_itself(self):
        u = torch.randn(1, 1, 9, 7, dtype=torch.float64)
        moved = Advection(self.domain, velocity=(1.0, 2.0), dt=1.0).step(u)
        torch.testing.assert_close(moved, u, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: Advection(Domain.periodic((1.0,)), velocity=(1.0, 2.0), dt=0.1),
        lambda: Advection(Domain.box((1.0,)), velocity=(1.0,), dt=0.1),
        lambda: Advection(Domain.periodic((1.0,)), velocity=(1.0,), dt=0.0),
        lambda: Advection(Domain.periodic((1.0,)), velocity=(1.0,), dt=0.1).rollout(
            torch.zeros(1, 1, 8), num_steps=5, save_every=2
        ),
    ],
)
def test_bad_input_is_refused(attempt):
    with pytest.raises(NeuralopKitError, match="expected"):
        attempt()
