"""Kuramoto-Sivashinsky: order, conservation of the mean slope, growth rates of small waves."""

import math

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.pde import ETDRK2, KuramotoSivashinsky
from tests.contracts.stepper import StepperContract


class TestKuramotoSivashinsky(StepperContract):
    domain = Domain.periodic((30.0,))
    dt = 0.2
    amplitude = 1.0

    def make_stepper(self, dt):
        return KuramotoSivashinsky(self.domain, dt=dt)

    def test_slope_has_zero_mean_and_the_state_stays_bounded(self):
        stepper = KuramotoSivashinsky(Domain.periodic((60.0,)), dt=0.1)
        u = stepper.initial_condition(2, (128,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        last = stepper.rollout(u, num_steps=1000, save_every=1000)[:, -1]
        fluctuation = last - last.mean(dim=-1, keepdim=True)
        # On the attractor the fluctuation is of order one; growth without bound would show here.
        assert 0.5 < fluctuation.std() < 5

    @pytest.mark.parametrize("waves", [1, 3, 8])
    def test_small_waves_grow_at_the_linear_rate(self, waves):
        k = 2 * math.pi * waves / 30.0
        x = self.domain.coordinates((64,), dtype=torch.float64)
        u = 1e-8 * torch.cos(k * x)[None]
        v = self.make_stepper(0.1).rollout(u, num_steps=10, save_every=10)[:, -1]
        # exp((k^2 - k^4) t); the nonlinear term is smaller by the amplitude.
        torch.testing.assert_close(v, math.exp(k**2 - k**4) * u, rtol=1e-6, atol=1e-15)


class TestKuramotoSivashinskyETDRK2(StepperContract):
    domain = Domain.periodic((30.0,))
    order = 2.0
    dt = 0.1

    def make_stepper(self, dt):
        return KuramotoSivashinsky(self.domain, dt=dt, method=ETDRK2())
