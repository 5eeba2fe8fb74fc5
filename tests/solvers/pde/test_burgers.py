"""Burgers: Cole-Hopf's exact solution, conservation, both conventions of the viscosity."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde import Burgers
from tests.contracts.stepper import StepperContract


def cole_hopf(x: np.ndarray, time: float, viscosity: float, num_terms: int = 60) -> np.ndarray:
    """Solution on (0, 2 pi) from ``u(x, 0) = sin x``: u = -2 viscosity (log phi)_x, phi by its Bessel series.

    phi(x, t) = I_0(z) + 2 sum_n I_n(z) cos(n x) exp(-viscosity n^2 t),  z = 1/(2 viscosity); Cole (1951).
    """
    n = np.arange(1, num_terms)[:, None]
    decay = 2 * scipy.special.ive(n, 1 / (2 * viscosity)) * np.exp(-viscosity * n**2 * time)
    phi = scipy.special.ive(0, 1 / (2 * viscosity)) + (decay * np.cos(n * x)).sum(axis=0)
    slope = -(decay * n * np.sin(n * x)).sum(axis=0)
    return -2 * viscosity * slope / phi


class TestBurgers(StepperContract):
    domain = Domain.periodic((1.0,))
    dt = 0.01
    reference_shape = (64,)

    def make_stepper(self, dt):
        return Burgers(self.domain, viscosity=0.05, dt=dt)

    def test_agrees_with_cole_and_hopf(self):
        domain, viscosity = Domain.periodic((2 * math.pi,)), 0.1
        x = domain.coordinates((256,), dtype=torch.float64)
        trajectory = Burgers(domain, viscosity=viscosity, dt=0.5, num_substeps=200).rollout(torch.sin(x)[None], 4)
        for k in (1, 2, 4):
            exact = torch.from_numpy(cole_hopf(x[0].numpy(), 0.5 * k, viscosity))
            assert (trajectory[0, k, 0] - exact).abs().max() < 1e-8

    def test_mean_is_conserved(self):
        stepper = Burgers.fno(dt=0.1, num_substeps=50)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            u = stepper.initial_condition(4, (256,), dtype=dtype) + 0.3
            trajectory = stepper.rollout(u, num_steps=5)
            assert (trajectory.mean(dim=-1) - u.mean(dim=-1)[:, None]).abs().max() < tolerance

    def test_without_dealiasing_the_error_grows(self):
        # Negative control: near a marginally resolved shock, aliasing adds to the error of truncation.
        class Aliased(Burgers):
            degree = 1

        def end(kind: type[Burgers], num_points: int, num_substeps: int) -> torch.Tensor:
            u = torch.sin(2 * math.pi * self.domain.coordinates((num_points,), dtype=torch.float64))[None]
            return kind(self.domain, viscosity=1e-3, dt=0.3, num_substeps=num_substeps).step(u)[
                ..., :: num_points // 64
            ]

        truth = end(Burgers, 4096, 1500)
        assert (end(Burgers, 64, 300) - truth).norm() < 0.7 * (end(Aliased, 64, 300) - truth).norm()

    def test_initial_states_have_the_published_deviation(self):
        u = Burgers.fno().initial_condition(10_000, (64,), generator=torch.Generator().manual_seed(0))
        assert u.std().item() == pytest.approx(0.5936, rel=0.02)

    def test_the_two_conventions_differ_by_pi(self):
        assert Burgers.pdebench(nu=0.01).viscosity == pytest.approx(Burgers.fno(viscosity=0.01).viscosity / math.pi)

    def test_inviscid_is_refused(self):
        with pytest.raises(ArgumentError, match="finite volumes"):
            Burgers(self.domain, viscosity=0.0, dt=0.1)
