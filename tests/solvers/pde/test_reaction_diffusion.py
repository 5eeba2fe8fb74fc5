"""FitzHugh-Nagumo and Gray-Scott: order, uniform states against scipy, no flux at walls."""

import numpy as np
import pytest
import scipy.integrate
import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.pde import GrayScott, ReactionDiffusion
from tests.contracts.stepper import StepperContract


class TestReactionDiffusion(StepperContract):
    domain = Domain.box((2.0, 2.0), boundary="neumann", nodes="cell", origin=(-1.0, -1.0))
    num_channels = 2
    shapes = ((8, 8), (9, 7))
    tiny_shape = (3, 4)
    reference_shape = (12, 12)
    dt = 0.025

    def make_stepper(self, dt):
        return ReactionDiffusion(self.domain, dt=dt)

    def test_uniform_states_solve_the_ordinary_equation(self):
        start, end = [0.3, -0.2], 2.0
        state = torch.tensor(start, dtype=torch.float64)[None, :, None, None].expand(1, 2, 6, 6)
        u = ReactionDiffusion.pdebench(dt=end, num_substeps=400).step(state)
        reference = scipy.integrate.solve_ivp(
            lambda t, y: [y[0] - y[0] ** 3 - 5e-3 - y[1], y[0] - y[1]], (0, end), start, rtol=1e-12, atol=1e-13
        ).y[:, -1]
        np.testing.assert_allclose(u[0, :, 2, 3].numpy(), reference, atol=1e-9)
        assert (u - u[..., :1, :1]).abs().max() < 1e-13

    def test_agrees_with_finite_differences_between_walls(self):
        # An independent method of lines: three-point Laplacian with mirrored ghost cells, scipy in time.
        domain, n = Domain.box((1.0,), boundary="neumann", nodes="cell"), 64
        x = domain.coordinates((n,), dtype=torch.float64)[0]
        state = torch.stack([torch.cos(torch.pi * x), 0.5 * torch.cos(2 * torch.pi * x)])[None]
        u = ReactionDiffusion(domain, diffusivities=(1e-2, 5e-2), dt=0.5, num_substeps=50).step(state)[0]

        def errors(n: int) -> float:
            x = (np.arange(n) + 0.5) / n

            def rate(t: float, y: np.ndarray) -> np.ndarray:
                a, b = y.reshape(2, n)
                laplacian = [np.diff(np.diff(np.pad(c, 1, mode="edge"))) * n**2 for c in (a, b)]
                return np.concatenate([1e-2 * laplacian[0] + a - a**3 - 5e-3 - b, 5e-2 * laplacian[1] + a - b])

            start = np.concatenate([np.cos(np.pi * x), 0.5 * np.cos(2 * np.pi * x)])
            end = scipy.integrate.solve_ivp(rate, (0, 0.5), start, method="LSODA", rtol=1e-10, atol=1e-11).y[:, -1]
            return np.abs(end.reshape(2, n).mean(axis=1) - u.mean(dim=-1).numpy()).max()

        assert errors(64) < 1e-4
        assert errors(64) < errors(32) / 3


class TestGrayScott(StepperContract):
    domain = Domain.periodic((1.0, 1.0))
    num_channels = 2
    shapes = ((8, 8), (9, 7))
    tiny_shape = (4, 3)
    reference_shape = (12, 12)
    dt = 0.5
    amplitude = 0.2

    def make_stepper(self, dt):
        return GrayScott(self.domain, dt=dt)

    def test_the_trivial_state_stays(self):
        state = torch.tensor([1.0, 0.0], dtype=torch.float64)[None, :, None, None].expand(1, 2, 8, 8)
        torch.testing.assert_close(self.make_stepper(10.0).step(state), state, rtol=0, atol=1e-13)

    def test_patterns_form_and_stay_in_range(self):
        stepper = GrayScott(self.domain, dt=50.0, num_substeps=50)
        u = stepper.initial_condition(1, (64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        end = stepper.rollout(u, num_steps=8)[:, -1]
        assert -0.05 < end.min() < end.max() < 1.05
        assert end[:, 1].std() > 0.02


def fitzhugh_nagumo(u, v, laplacian):
    return 0.02 * laplacian(u) + u - u**3 - 0.005 - v, 0.05 * laplacian(v) + u - v


def gray_scott(u, v, laplacian):
    eaten = u * v**2
    return 0.002 * laplacian(u) + 0.04 * (1 - u) - eaten, 0.001 * laplacian(v) + eaten - 0.1 * v


@pytest.mark.parametrize(
    ("kind", "rate", "diffusivities", "end"),
    [(ReactionDiffusion, fitzhugh_nagumo, (0.02, 0.05), 1.0), (GrayScott, gray_scott, (0.002, 0.001), 20.0)],
)
def test_agrees_with_scipy_where_the_grid_resolves_it(kind, rate, diffusivities, end):
    n, length = 32, 1.0
    x = torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n)
    x, y = torch.meshgrid(x, x, indexing="ij")
    start = torch.stack([0.6 + 0.2 * x.sin() * y.cos(), 0.3 + 0.2 * (x - y).cos()])
    stepper = kind(Domain.periodic((length, length)), diffusivities=diffusivities, dt=end, num_substeps=200)
    k = 2 * np.pi / length * np.fft.fftfreq(n, 1 / n)
    squared = k[:, None] ** 2 + k**2

    def flat_rate(t, state):
        u, v = state.reshape(2, n, n)
        return np.stack(rate(u, v, lambda w: np.fft.ifft2(-squared * np.fft.fft2(w)).real)).ravel()

    solution = scipy.integrate.solve_ivp(flat_rate, (0, end), start.ravel(), method="DOP853", rtol=1e-10, atol=1e-12)
    assert np.abs(stepper.step(start[None])[0].numpy().ravel() - solution.y[:, -1]).max() < 1e-7


def test_wrong_diffusivities_are_refused():
    with pytest.raises(ArgumentError, match="two positive"):
        ReactionDiffusion(Domain.periodic((1.0,)), diffusivities=(1.0, -1.0), dt=0.1)
