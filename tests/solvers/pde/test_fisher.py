"""Fisher's equation: logistic growth of uniform states, the exact travelling front."""

import math

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde import Fisher
from tests.contracts.stepper import StepperContract


class TestFisher(StepperContract):
    domain = Domain.box((1.0,), boundary="neumann", nodes="cell")
    dt = 0.05

    def inputs(self, shape, *, batch=3):
        """Between 0 and 1, where states stay."""
        (waves,) = super().inputs(shape, batch=batch)
        return (0.5 + 0.3 * waves,)

    def make_stepper(self, dt):
        return Fisher(self.domain, diffusivity=0.02, rate=3.0, dt=dt)

    def test_uniform_states_grow_logistically(self):
        start, rate, time = torch.tensor([0.1, 0.6, 1.0], dtype=torch.float64), 2.0, 1.5
        u = Fisher.pdebench(rate=rate, dt=time, num_substeps=300).step(start[:, None, None].expand(3, 1, 8))
        growth = math.exp(rate * time)
        assert (u[:, 0, 3] - start * growth / (1 + start * (growth - 1))).abs().max() < 1e-10

    def test_the_exact_front_travels(self):
        # u = (1 + exp((x - 5/sqrt(6) t)/sqrt(6)))^-2 for D = rate = 1: Ablowitz and Zeppetella (1979).
        domain = Domain.box((80.0,), boundary="neumann", nodes="cell", origin=(-30.0,))
        (x,) = domain.coordinates((512,), dtype=torch.float64)

        def front(time: float) -> torch.Tensor:
            return (1 + torch.exp((x - 5 / math.sqrt(6) * time) / math.sqrt(6))) ** -2

        u = Fisher(domain, diffusivity=1.0, rate=1.0, dt=4.0, num_substeps=200).step(front(0.0)[None, None])
        # The walls are felt by exp(-30/sqrt 6).
        assert (u[0, 0] - front(4.0)).abs().max() < 1e-4


def test_nonsense_is_refused():
    with pytest.raises(ArgumentError, match="diffusivity > 0"):
        Fisher(Domain.periodic((1.0,)), diffusivity=0.0, rate=1.0, dt=0.1)
