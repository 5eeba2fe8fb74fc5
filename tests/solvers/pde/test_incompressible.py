"""Flow in a closed box: order in time and space, no divergence, what is conserved, and what a wall does."""

import math

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.pde import Central, IncompressibleFlow
from tests.contracts.stepper import StepperContract

BOX = Domain.box((1.0, 1.5), boundary="dirichlet", nodes="cell", origin=(-0.5, 0.25))
SQUARE = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")


class TestIncompressibleFlow(StepperContract):
    domain = BOX
    num_channels = 5
    order = 3.0
    dt = 0.02
    amplitude = 0.3
    reference_shape = (9, 12)
    shapes = ((8, 6), (7, 9))
    tiny_shape = (4, 3)
    num_refinements = 3

    def make_stepper(self, dt: float) -> IncompressibleFlow:
        return IncompressibleFlow(self.domain, dt=dt, viscosity=0.02, limiter=Central())

    def inputs(self, shape, *, batch=3):
        # A state is free of divergence, which random waves are not.
        (u,) = super().inputs(shape, batch=batch)
        stepper = self.make_stepper(self.dt)
        return (stepper.flow(u).enter(u),)


def start(shape=(24, 18), *, batch: int = 2) -> torch.Tensor:
    flow = IncompressibleFlow(BOX, dt=0.05, viscosity=0.0)
    return flow.initial_condition(batch, shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def energy(u: torch.Tensor) -> torch.Tensor:
    return u[:, :2].square().sum(dim=(1, 2, 3))


@pytest.mark.parametrize("shape", [(24, 18), (7, 12)])
def test_no_divergence_and_no_lost_smoke(shape):
    flow, u = IncompressibleFlow(BOX, dt=0.05, viscosity=0.003), start(shape)
    end = flow.rollout(u, 20, save_every=20)[:, -1]
    assert flow.divergence(u).abs().max() < 1e-12
    assert flow.divergence(end).abs().max() < 1e-12
    torch.testing.assert_close(end[:, 2].sum(dim=(1, 2)), u[:, 2].sum(dim=(1, 2)), rtol=1e-13, atol=0)
    assert torch.equal(end[:, 3:], u[:, 3:])
    assert (end[:, 0, -1] == 0).all()
    assert (end[:, 1, :, -1] == 0).all()
    # Controls: something moved, smoke too, and means at the centres do have a divergence.
    assert (end[:, :3] - u[:, :3]).abs().max() > 0.05
    assert flow.divergence(flow.centred(end)).abs().max() > 1e-3


def test_limited_smoke_stays_between_its_bounds():
    u = start((32, 32))
    u[:, 2] = (u[:, 2] > 0.5).double()
    limited, free = (IncompressibleFlow(BOX, dt=0.05, viscosity=0.0, limiter=one) for one in (None, Central()))
    ends = [flow.rollout(u, 20, save_every=20)[:, -1, 2] for flow in (limited, free)]
    assert ends[0].min() > -0.02
    assert ends[0].max() < 1.02
    assert ends[1].min() < -0.1


def test_energy_is_lost_by_the_steps_in_time_only():
    u = start()
    u[:, 2:] = 0
    losses = []
    for cfl in (0.8, 0.4, 0.2):
        end = IncompressibleFlow(BOX, dt=1.0, viscosity=0.0, cfl=cfl).step(u)
        losses.append((1 - energy(end) / energy(u)).abs().max().item())
    assert losses[0] < 1e-3
    assert losses[2] < losses[0] / 2**5  # third order, and the dissipation is one order higher
    viscous = IncompressibleFlow(BOX, dt=1.0, viscosity=0.001).step(u)
    assert (1 - energy(viscous) / energy(u)).min() > 100 * losses[0]


def steady_flow(n: int, viscosity: float) -> torch.Tensor:
    """psi = sin^2(pi x) sin^2(pi y)/pi, at rest on the walls, with smoke of density one and the force that keeps it."""
    flow = IncompressibleFlow(SQUARE, dt=1.0, viscosity=viscosity)
    line = torch.arange(2 * n + 1, dtype=torch.float64) / (2 * n)
    x, y = torch.meshgrid(line, line, indexing="ij")
    s, c = (lambda z: torch.sin(math.pi * z)), (lambda z: torch.cos(math.pi * z))

    def velocity(x, y):
        return 2 * s(x) ** 2 * s(y) * c(y), -2 * s(x) * c(x) * s(y) ** 2

    def force(x, y, sign):
        """v . grad u - nu Lap u for u = 2 sin^2(pi x) sin(pi y) cos(pi y); the other component by symmetry."""
        u, v = velocity(x, y)
        u_x, u_y = 2 * math.pi * s(2 * x) * s(y) * c(y), 2 * math.pi * s(x) ** 2 * c(2 * y)
        laplacian = 2 * math.pi**2 * c(2 * x) * s(2 * y) - 4 * math.pi**2 * s(x) ** 2 * s(2 * y)
        return u * u_x + v * u_y - viscosity * sign * laplacian

    u, v = velocity(x, y)
    f_x = force(x, y, 1.0)
    # v(x, y) = -u(y, x): transport is even under the exchange, diffusion odd.
    f_y = force(y, x, -1.0)
    centre = (slice(1, None, 2), slice(1, None, 2))
    right, upper = (slice(2, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(2, None, 2))
    state = torch.stack([u[right], v[upper], torch.ones(n, n, dtype=torch.float64), f_x[centre], f_y[centre]])
    return flow.flow(state[None]).enter(state[None])


def test_second_order_towards_a_steady_flow():
    errors = []
    for n in (12, 24, 48):
        u = steady_flow(n, 0.05)
        end = IncompressibleFlow(SQUARE, dt=0.5, viscosity=0.05).step(u)
        assert (end[:, 2] - 1).abs().max() < 1e-12
        errors.append(((end[:, :2] - u[:, :2]).norm() / u[:, :2].norm()).item())
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.15)
    assert errors[2] < 5e-3
    # Control: another viscosity does not keep it.
    moved = IncompressibleFlow(SQUARE, dt=0.5, viscosity=0.04).step(u)
    assert (moved[:, :2] - u[:, :2]).norm() / u[:, :2].norm() > 10 * errors[2]


def test_a_box_may_be_turned():
    turned = Domain.box((1.5, 1.0), boundary="dirichlet", nodes="cell", origin=(0.25, -0.5))
    u = start((12, 10))
    order = [1, 0, 2, 4, 3]
    end = IncompressibleFlow(BOX, dt=0.3, viscosity=0.01).step(u)
    other = IncompressibleFlow(turned, dt=0.3, viscosity=0.01).step(u[:, order].mT)
    torch.testing.assert_close(other, end[:, order].mT, rtol=1e-11, atol=1e-13)


def test_wrong_problems_are_refused():
    with pytest.raises(DomainError, match="dirichlet"):
        IncompressibleFlow(Domain.periodic((1.0, 1.0)), dt=0.1, viscosity=0.1)
    with pytest.raises(DomainError, match="cell"):
        IncompressibleFlow(Domain.box((1.0, 1.0), boundary="dirichlet"), dt=0.1, viscosity=0.1)
    with pytest.raises(ArgumentError, match="viscosity >= 0"):
        IncompressibleFlow(SQUARE, dt=0.1, viscosity=-1.0)
