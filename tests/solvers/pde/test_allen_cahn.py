"""Allen-Cahn: order, falling energy, walls without flux."""

import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.pde import AllenCahn
from tests.contracts.stepper import StepperContract


class TestAllenCahn(StepperContract):
    domain = Domain.box((1.0, 1.0), boundary=("periodic", "neumann"))
    shapes = ((8, 9), (9, 8))
    tiny_shape = (4, 4)
    reference_shape = (16, 17)
    dt = 0.25

    def make_stepper(self, dt):
        return AllenCahn(self.domain, diffusivity=2e-2, dt=dt)

    def test_energy_never_grows(self):
        diffusivity, length = 5e-3, 2.0
        domain = Domain.periodic((length,))
        stepper = AllenCahn(domain, diffusivity=diffusivity, dt=0.1)
        u = stepper.initial_condition(4, (256,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        trajectory = stepper.rollout(u, num_steps=100)[:, :, 0]
        slope = (trajectory.roll(-1, dims=-1) - trajectory) / domain.spacing((256,))[0]
        energy = (diffusivity / 2 * slope**2 + (trajectory**2 - 1) ** 2 / 4).mean(dim=-1)
        assert (energy.diff(dim=1) < 1e-9).all()
        assert (energy[:, -1] < 0.9 * energy[:, 0]).all()

    def test_a_field_of_one_axis_with_walls_keeps_its_mirror_symmetry(self):
        # Between walls the solution is that of the doubled periodic box from the mirrored state.
        walls = Domain.box((1.0,), boundary="neumann", nodes="cell")
        u = torch.cos(torch.pi * walls.coordinates((16,), dtype=torch.float64))[None] * 0.5
        mirrored = torch.cat([u, u.flip(-1)], dim=-1)
        between = AllenCahn(walls, diffusivity=1e-2, dt=0.2).step(u)
        around = AllenCahn(Domain.periodic((2.0,), nodes="cell"), diffusivity=1e-2, dt=0.2).step(mirrored)
        torch.testing.assert_close(between, around[..., :16], rtol=0, atol=1e-14)

    def test_pure_phases_and_the_unstable_one_stay(self):
        stepper = self.make_stepper(0.1)
        for value in (-1.0, 0.0, 1.0):
            u = torch.full((1, 1, 8, 9), value, dtype=torch.float64)
            torch.testing.assert_close(stepper.step(u), u, rtol=0, atol=1e-13)

    def test_waves_too_short_for_the_grid_decay(self):
        # The cubic term sees half the modes; growth of the others would be unlimited.
        domain = Domain.periodic((2 * torch.pi,))
        x = domain.coordinates((16,), dtype=torch.float64)
        u = 0.5 * torch.cos(x) + 1e-3 * torch.cos(7 * x)
        end = AllenCahn(domain, diffusivity=5e-3, dt=0.05).rollout(u[None], num_steps=600, save_every=600)[0, -1]
        assert torch.fft.rfft(end, norm="forward")[0, 7].abs() < 1e-3
        assert end.abs().max() < 1.2
