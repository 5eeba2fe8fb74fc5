"""A learned shock that moves at the right speed, because nothing is lost: fluxes as output instead of states.

    python examples/conservative_burgers.py
    python examples/conservative_burgers.py --quick

Inviscid Burgers, ``u_t + (u^2/2)_x = 0`` on a circle, on a coarse grid. Two networks of the same size learn a time step
from averages of a fine Godunov solution: one predicts the next state, one the flux through every face, which
``FluxForm`` turns into the next state. Only the second conserves, and to rounding. Both are then iterated. Leaves a
table and a picture in ``results/conservative_burgers``.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from _command_line import run_example, shorter
from _figures import save
from _optimizers import OptimizerName, finish, make_optimizer
from _tables import markdown, save_table
from matplotlib import pyplot as plt
from torch import Tensor, nn

from neuralop_kit import Domain
from neuralop_kit.constraints import FluxForm
from neuralop_kit.solvers import GaussianRandomField

CIRCLE = Domain.periodic((1.0,), nodes="cell")
DT = 0.01


@dataclass(frozen=True)
class Settings:
    """How much to train, and how long to iterate.

    Args:
        cells: of the coarse grid; the reference has 16 times as many.
        samples: trajectories to learn from.
        optimizer: its name; one that steps from gradients.
        steps: of the optimizer.
        rollout: applications of the trained network, each ``0.01`` long.
        seed: of data and weights.
        out: folder of table and picture.
        quick: a minute on one core.
    """

    cells: int = 64
    samples: int = 64
    optimizer: OptimizerName = "adam"
    steps: int = 2000
    rollout: int = 60
    seed: int = 0
    out: Path = Path("results/conservative_burgers")
    quick: bool = False


def godunov_flux(u: Tensor) -> Tensor:
    """Exact flux through the left face of every cell, from the states on its two sides."""
    left, right = u.roll(1, -1), u
    return torch.maximum(left.clamp_min(0) ** 2, right.clamp_max(0) ** 2) / 2


def reference(start: Tensor, steps: int, *, factor: int) -> Tensor:
    """Averages over coarse cells of a fine solution, ``(time, batch, 1, cells)``."""
    layer, u = FluxForm(CIRCLE), start
    substeps = 2 * int(DT * u.abs().max() * u.shape[-1] + 1)
    states = [u]
    for _ in range(steps):
        for _ in range(substeps):
            u, _ = layer(u, [godunov_flux(u)], dt=DT / substeps)
        states.append(u)
    return torch.stack(states).unflatten(-1, (-1, factor)).mean(dim=-1)


class Stencil(nn.Module):
    """A small local network: from three cells on either side to one number per cell or face."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(1, 24, 7, padding=3, padding_mode="circular"), nn.GELU(), nn.Conv1d(24, 24, 1), nn.GELU(),
            nn.Conv1d(24, 1, 1),
        )  # fmt: skip

    def forward(self, u: Tensor) -> Tensor:
        """Values like ``u``."""
        return self.net(u)


class NextState(nn.Module):
    """Predicts the change of every cell by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.change = Stencil()

    def forward(self, u: Tensor) -> Tensor:
        """The state after ``DT``."""
        return u + self.change(u)


class NextFlux(nn.Module):
    """Predicts the flux through every left face; two cells share each."""

    def __init__(self) -> None:
        super().__init__()
        self.flux, self.layer = Stencil(), FluxForm(CIRCLE)

    def forward(self, u: Tensor) -> Tensor:
        """The state after ``DT``."""
        value, info = self.layer(u, [self.flux(u)], dt=DT)
        info.raise_if_failed()
        return value


def train(model: nn.Module, states: Tensor, settings: Settings) -> nn.Module:
    """Two steps in a row, so that errors that grow are seen."""
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = make_optimizer(settings.optimizer, model, pace=1.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for _ in range(settings.steps):
        time = torch.randint(len(states) - 2, (16,), generator=generator)
        item = torch.randint(states.shape[1], (16,), generator=generator)
        first = model(states[time, item])
        second = model(first)
        loss = (first - states[time + 1, item]).square().mean() + (second - states[time + 2, item]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    finish(optimizer)
    return model


def main(settings: Settings) -> None:
    """Generate, train, iterate, draw."""
    if settings.quick:
        settings = shorter(settings, samples=24, steps=400, rollout=40)
    if settings.cells < 7:
        raise SystemExit(f"expected at least 7 --cells, as many as the networks look at, got {settings.cells}")
    factor = 16
    field = GaussianRandomField(CIRCLE, alpha=3.0, tau=8.0)
    generator = torch.Generator().manual_seed(settings.seed)
    fine = field.sample(settings.samples + 8, (settings.cells * factor,), generator=generator)
    # Waves of size one are shocks long before the rollout ends.
    fine = 0.3 + fine / fine.std(dim=-1, keepdim=True)
    states = reference(fine, settings.rollout, factor=factor)
    train_states, test_states = states[:, 8:], states[:, :8]
    rows, last = [], {}
    for name, make in {"state": NextState, "flux": NextFlux}.items():
        torch.manual_seed(settings.seed)
        model = train(make(), train_states, settings).double()
        u = test_states[0].double()
        mass = u.sum(dim=-1)
        with torch.no_grad():
            for _ in range(settings.rollout):
                u = model(u)
        error = (u - test_states[-1]).flatten(1).norm(dim=1) / test_states[-1].flatten(1).norm(dim=1)
        drift = ((u.sum(dim=-1) - mass).abs() / u.abs().sum(dim=-1)).max()
        rows.append(
            {
                "predicts": name,
                "relative L2 error at the end": error.mean().item(),
                "relative change of mass": drift.item(),
            }
        )
        last[name] = u
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "last_state.png", test_states, last)
    print(f"{markdown(rows)}\n\nTable and picture are in {settings.out}")


def draw(path: Path, truth: Tensor, states: dict[str, Tensor]) -> None:
    """The first test function at the beginning and at the end."""
    (x,) = CIRCLE.coordinates(truth.shape[-1:])
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    axis.plot(x, truth[0, 0, 0], ":", color="grey", label="start")
    axis.plot(x, truth[-1, 0, 0], color="black", label="fine solution, averaged")
    for name, u in states.items():
        axis.plot(x, u[0, 0], "--", label=f"network that predicts the {name}")
    axis.set(xlabel="x", ylabel="u", title="Burgers without viscosity")
    axis.legend()
    save(figure, path)


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
