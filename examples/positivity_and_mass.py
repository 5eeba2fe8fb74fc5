"""A concentration that stays positive and loses nothing, by construction: an output layer instead of a penalty.

    python examples/positivity_and_mass.py
    python examples/positivity_and_mass.py --quick

A network learns one step of advection and diffusion of blobs on a torus, and is then iterated. Three outputs: the
network's own, the same with a penalty on negative values and on lost mass, and the same followed by
``SimplexConstraint``, through which it is trained. The penalty is light: a heavy one spoils the training, and with a
weight of 10 the mass grows sixfold while the network is iterated. Leaves a table and a picture in
``results/positivity_and_mass``.
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
from neuralop_kit.constraints import ConservationConstraint, SimplexConstraint
from neuralop_kit.models import FNO
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid

DOMAIN = Domain.periodic((1.0, 1.0))
VELOCITY, DIFFUSIVITY, DT = (1.0, 0.5), 1e-3, 0.05


@dataclass(frozen=True)
class Settings:
    """How much to train, and how long to iterate.

    Args:
        resolution: points per axis.
        optimizer: its name; one that steps from gradients.
        steps: of the optimizer.
        rollout: applications of the trained network.
        penalty: weight of negative values and lost mass, where they are punished.
        seed: of data and weights.
        out: folder of table and picture.
        quick: a minute on one core.
    """

    resolution: int = 48
    optimizer: OptimizerName = "adam"
    steps: int = 600
    rollout: int = 40
    penalty: float = 0.1
    seed: int = 0
    out: Path = Path("results/positivity_and_mass")
    quick: bool = False


def blobs(number: int, resolution: int, generator: torch.Generator) -> Tensor:
    """Positive fields with sharp blobs and much empty space between them."""
    x = DOMAIN.coordinates((resolution, resolution))
    centres = torch.rand(number, 3, 2, 1, 1, generator=generator)
    distance = (x - centres + 0.5).remainder(1.0) - 0.5
    width = 0.04 + 0.04 * torch.rand(number, 3, 1, 1, generator=generator)
    return torch.exp(-0.5 * distance.square().sum(dim=2) / width**2).sum(dim=1, keepdim=True)


def exact_step(u: Tensor) -> Tensor:
    """The solution after ``DT``, mode by mode."""
    grid = SpectralGrid(DOMAIN, u.shape[2:], dtype=u.dtype)
    drift = sum((v * grid.first_derivative_symbol(i) for i, v in enumerate(VELOCITY)), torch.zeros(()))
    return grid.to_space(grid.to_modes(u) * torch.exp(-DT * (1j * drift + DIFFUSIVITY * grid.squared)))


class Model(nn.Module):
    """An operator, with or without the constraint behind it."""

    def __init__(self, *, is_constrained: bool) -> None:
        super().__init__()
        self.operator = FNO(1, 1, domain=DOMAIN, width=16, num_layers=2, modes=16)
        self.constraint = SimplexConstraint(DOMAIN) if is_constrained else None
        self.total = ConservationConstraint(DOMAIN).integral

    def forward(self, u: Tensor) -> Tensor:
        """The next state."""
        v = self.operator(u)
        if self.constraint is None:
            return v
        constrained, info = self.constraint(v, self.total(u))
        info.raise_if_failed()
        return constrained


def train(settings: Settings, *, is_constrained: bool, penalty: float) -> Model:
    """The same data, network and number of steps for all."""
    torch.manual_seed(settings.seed)
    model, generator = Model(is_constrained=is_constrained), torch.Generator().manual_seed(settings.seed)
    optimizer = make_optimizer(settings.optimizer, model, pace=1.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for _ in range(settings.steps):
        u = blobs(8, settings.resolution, generator)
        v = model(u)
        loss = (v - exact_step(u)).square().mean()
        if penalty:
            lost = model.total(v) - model.total(u)
            loss = loss + penalty * (v.clamp_max(0).square().mean() + lost.square().mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    finish(optimizer)
    return model


@torch.no_grad()
def iterate(model: nn.Module, u: Tensor, steps: int) -> Tensor:
    """States after 0, 1, 2, ... steps, ``(time, batch, 1, *space)``."""
    states = [u]
    for _ in range(steps):
        states.append(model(states[-1]))
    return torch.stack(states)


def main(settings: Settings) -> None:
    """Train, iterate, compare, draw."""
    if settings.quick:
        settings = shorter(settings, resolution=32, steps=150, rollout=20)
    start = blobs(16, settings.resolution, torch.Generator().manual_seed(settings.seed + 1))
    truth = [start]
    for _ in range(settings.rollout):
        truth.append(exact_step(truth[-1]))
    kinds = {"free": (False, 0.0), "penalty": (False, settings.penalty), "constraint": (True, 0.0)}
    rows, last = [], {"truth": truth[-1]}
    for name, (is_constrained, penalty) in kinds.items():
        model = train(settings, is_constrained=is_constrained, penalty=penalty)
        states = iterate(model, start, settings.rollout)
        mass = torch.stack([model.total(u) for u in states])
        error = (states[-1] - truth[-1]).flatten(1).norm(dim=1) / truth[-1].flatten(1).norm(dim=1)
        rows.append(
            {
                "output": name,
                "relative L2 error at the end": error.mean().item(),
                "smallest value": states.min().item(),
                "largest change of mass": ((mass - mass[0]).abs() / mass[0]).max().item(),
            }
        )
        last[name] = states[-1]
        print(markdown(rows[-1:]))
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "last_state.png", last)
    print(f"\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


def draw(path: Path, states: dict[str, Tensor]) -> None:
    """The last state of each; negative values would stand out in red, lost mass stands in the title."""
    figure, axes = plt.subplots(1, len(states), figsize=(3.6 * len(states), 3.4), layout="constrained")
    limit = states["truth"][0].max().item()
    for axis, (name, u) in zip(axes, states.items(), strict=True):
        shown = axis.imshow(u[0, 0].T.numpy(), origin="lower", cmap="RdBu", vmin=-limit, vmax=limit)
        change = (u[0].sum() / states["truth"][0].sum() - 1).item()
        axis.set(title=f"{name}: mass {change:+.1%}, min {u[0].min().item():.1e}", xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes, shrink=0.8, label="concentration")
    save(figure, path)


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
