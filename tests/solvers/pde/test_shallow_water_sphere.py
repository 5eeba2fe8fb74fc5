"""Shallow water on the sphere: Williamson's steady flow, Galewsky's jet, torch-harmonics' own solver, conservation."""

import math

import pytest
import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.pde import ETDRK2, ShallowWaterSphere, SphereGrid, steady_zonal_flow, unstable_jet
from tests.contracts.stepper import StepperContract

pytest.importorskip("torch_harmonics")


def small_planet(grid: str, dt: float, **settings: float) -> ShallowWaterSphere:
    """Radius 1, everything of order 1."""
    return ShallowWaterSphere(
        Domain.sphere(grid=grid), dt=dt, rotation=1.0, mean_geopotential=1.0, wind=0.2, **settings
    )


class TestShallowWaterSphere(StepperContract):
    domain = Domain.sphere()
    num_channels = 3
    shapes = ((13, 24), (10, 17))
    tiny_shape = (5, 8)
    reference_shape = (19, 36)
    dt = 0.5
    num_steps = 2
    num_refinements = 3

    def make_stepper(self, dt):
        return small_planet("equiangular", dt)

    def inputs(self, shape, *, batch=3):
        seeds = [torch.Generator().manual_seed(k) for k in range(batch)]
        return (self.make().initial_condition(batch, shape, generator=seeds, dtype=torch.float64),)


@pytest.mark.parametrize("grid", ["gauss", "equiangular"])
def test_solid_rotation_is_steady(grid):
    stepper = small_planet(grid, dt=1.0, num_substeps=4)
    u = steady_zonal_flow(stepper, (20, 40), speed=0.3)
    assert (stepper.rollout(u, num_steps=5)[:, -1] - u).abs().max() < 1e-11
    latitude = math.pi / 2 - stepper.domain.coordinates((20, 40), dtype=torch.float64)[0]
    wind = stepper.wind(u)
    assert (wind[0, 0] - 0.3 * torch.cos(latitude)).abs().max() < 1e-12
    assert wind[0, 1].abs().max() < 1e-12
    torch.testing.assert_close(stepper.balanced(wind), u, rtol=0, atol=1e-12)


def test_an_unbalanced_rotation_does_not_stay():
    stepper = small_planet("gauss", dt=1.0, num_substeps=4)
    u = steady_zonal_flow(stepper, (20, 40), speed=0.3)
    u[:, 0] = 1.0
    assert (stepper.step(u) - u).abs().max() > 1e-2


def rates(stepper: ShallowWaterSphere, u: Tensor) -> Tensor:
    """Time derivative of the modes of Phi, vorticity and divergence, put together from both parts."""
    grid = stepper.grid(u.shape[2:])
    flow = stepper.flow(u)
    modes = flow.enter(u)
    return stepper.from_waves(stepper.linear(grid) * modes + stepper.nonlinear(modes, grid), grid)


def test_rates_agree_with_torch_harmonics_solver():
    from torch_harmonics.examples import ShallowWaterSolver

    stepper = ShallowWaterSphere.earth(grid="gauss")
    stepper.hyperdiffusion = 0.0  # theirs is applied outside of the rates
    shape = (32, 64)
    u = stepper.initial_condition(1, shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u[:, 0] = 2 * u[:, 0] - stepper.mean_geopotential  # out of balance, where large terms would cancel
    count = stepper.grid(shape).num_degrees
    theirs = ShallowWaterSolver(*shape, dt=1.0, lmax=count, mmax=count, grid="legendre-gauss").double()
    expected = theirs.dudtspec(theirs.grid2spec(u[0]))
    for ours, other in zip(rates(stepper, u)[0], expected, strict=True):
        # A factor of theirs is rounded to single precision.
        assert (ours - other).abs().max() < 2e-7 * other.abs().max()
    torch.testing.assert_close(stepper.wind(u)[0], theirs.getuv(theirs.grid2spec(u[0, 1:])), rtol=0, atol=1e-9)


def test_states_agree_with_torch_harmonics_after_an_hour():
    # Their third-order multistep method, started by Euler's, at steps of 15 s.
    from torch_harmonics.examples import ShallowWaterSolver

    stepper, shape = ShallowWaterSphere.earth(num_substeps=3), (24, 48)
    stepper.hyperdiffusion = 0.0
    u = stepper.initial_condition(1, shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    count = stepper.grid(shape).num_degrees
    theirs = ShallowWaterSolver(*shape, dt=15.0, lmax=count, mmax=count, grid="legendre-gauss").double()
    theirs.hyperdiff.fill_(1.0)
    expected = theirs.spec2grid(theirs.timestep(theirs.grid2spec(u[0]), 240))
    ours = stepper.step(u)[0]
    for channel in range(3):
        change = (expected[channel] - u[0, channel]).norm()
        assert (ours[channel] - expected[channel]).norm() < 2e-3 * change


def test_mass_is_conserved_and_energy_nearly():
    stepper, shape = small_planet("gauss", dt=1.0, num_substeps=8), (24, 48)
    u = stepper.initial_condition(2, shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    trajectory = stepper.rollout(u, num_steps=5)
    weights = stepper.domain.weights(shape, dtype=torch.float64)
    mass = (weights * trajectory[:, :, 0]).sum(dim=(2, 3))
    assert (mass - mass[:, :1]).abs().max() < 1e-12 * mass.abs().max()
    wind = stepper.wind(trajectory.flatten(0, 1)).unflatten(0, trajectory.shape[:2])
    geopotential = trajectory[:, :, 0]
    # Available energy: kinetic, and potential above that of the layer at rest.
    energy = 0.5 * (weights * (geopotential * (wind**2).sum(dim=2) + (geopotential - 1) ** 2)).sum(dim=(2, 3))
    assert (energy / energy[:, :1] - 1).abs().max() < 1e-3


def test_damping_hits_the_smallest_scale_at_its_rate():
    stepper = small_planet("gauss", dt=1.0, hyperdiffusion=0.7)
    grid = stepper.grid((16, 32))
    assert stepper.linear(grid)[0, -1, 0].real.item() == pytest.approx(-0.7)
    assert stepper.linear(grid)[:, 0].abs().max() == 0


def test_gravity_waves_are_exact_at_any_step():
    # Around rest, without rotation, Phi = cos(omega t) P_l(cos theta) with omega^2 = l (l+1).
    stepper = ShallowWaterSphere(Domain.sphere(grid="gauss"), dt=3.0, rotation=0.0, mean_geopotential=1.0)
    colatitude, _ = stepper.domain.coordinates((12, 24), dtype=torch.float64)
    wave = 1e-7 * (1.5 * torch.cos(colatitude) ** 2 - 0.5)
    u = torch.stack([1 + wave, 0 * wave, 0 * wave])[None]
    end = stepper.step(u)
    assert (end[0, 0] - 1 - math.cos(3 * math.sqrt(6)) * wave).abs().max() < 1e-12


def test_galewskys_jet_has_its_speed_stays_balanced_and_breaks_when_pushed():
    stepper, shape = ShallowWaterSphere.earth(dt=6 * 3600.0, num_substeps=12), (64, 128)
    jet = unstable_jet(stepper, shape, perturbed=False)
    wind = stepper.wind(jet)
    assert wind[:, 0].max().item() == pytest.approx(80.0, abs=3.0)
    depth = jet[0, 0] / 9.80616
    # Galewsky et al., figure 1: from about 10150 m in the south to 9000 m at the pole.
    assert depth[-1].mean().item() == pytest.approx(10150, abs=60)
    assert depth[0].mean().item() == pytest.approx(9000, abs=100)
    calm, pushed = stepper.step(jet), stepper.step(unstable_jet(stepper, shape))
    assert (calm - jet)[:, 1].abs().max() < 0.05 * jet[:, 1].abs().max()
    # Nothing depends on longitude without a push.
    assert (calm - calm.mean(dim=-1, keepdim=True))[:, 0].abs().max() < 1e-5
    assert (pushed - pushed.mean(dim=-1, keepdim=True))[:, 0].abs().max() > 100


def test_random_winds_have_their_speed():
    stepper, shape = ShallowWaterSphere.earth(wind=20.0), (48, 96)
    u = stepper.initial_condition(40, shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = stepper.domain.weights(shape, dtype=torch.float64) / stepper.domain.measure
    power = (weights * (stepper.wind(u) ** 2).sum(dim=1)).sum(dim=(1, 2)).mean()
    assert power.sqrt().item() == pytest.approx(20.0, rel=0.05)


def test_products_are_projected_exactly():
    # The product of two fields of the truncation, projected, is the same on a grid twice as fine.
    for name in ("gauss", "equiangular"):
        coarse, fine = (SphereGrid(Domain.sphere(grid=name), shape) for shape in ((12, 24), (30, 60)))
        n = coarse.num_degrees
        modes = torch.randn(1, 1, n, n, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).tril()
        modes[..., 0] = modes[..., 0].real.to(modes.dtype)
        padded = torch.nn.functional.pad(modes, (0, fine.num_degrees - n, 0, fine.num_degrees - n))
        product = coarse.to_modes(coarse.to_space(modes) ** 2)
        reference = fine.to_modes(fine.to_space(padded) ** 2)[..., :n, :n]
        assert (product - reference).abs().max() < 1e-12 * reference.abs().max()


def test_second_order_method_has_second_order():
    u = TestShallowWaterSphere().inputs((10, 20), batch=1)[0]

    def end(substeps: int, **method: ETDRK2) -> Tensor:
        return small_planet("gauss", dt=1.0, num_substeps=substeps, **method).step(u)

    truth = end(32)
    errors = [(end(k, method=ETDRK2()) - truth).norm().item() for k in (4, 8)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)


def test_wrong_settings_are_refused():
    with pytest.raises(DomainError, match="sphere"):
        ShallowWaterSphere(Domain.periodic((1.0, 1.0)), dt=1.0, rotation=1.0, mean_geopotential=1.0)
    with pytest.raises(ArgumentError, match="mean_geopotential > 0"):
        ShallowWaterSphere(Domain.sphere(), dt=1.0, rotation=1.0, mean_geopotential=0.0)
