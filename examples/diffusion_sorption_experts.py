"""Physics as an output layer: a contaminant that seeps into soil, learned from the equation alone, without data.

    python examples/diffusion_sorption_experts.py
    python examples/diffusion_sorption_experts.py --quick

    R(u) u_t = D u_xx,   u = u0 at t = 0,   u = 1 at x = 0,   u + D u_x = 0 at x = 1         (PDEBench's constants)

One operator network sees the initial value and must give the whole space-time solution. Four ways to tell it the
physics, with the same network, collocation points and training steps:

    soft      it predicts u, and the residual is the loss
    global    it predicts 12 functions; the best combination of them is found by least squares, once
    experts   the same on four parts of space, each with a combination of its own, as published
    coupled   experts own parts of space and of time; values and slopes of neighbours are pulled together

Fronts move with the root of time, so the grid is uniform in it. Training sees the times up to 405; the rest, to 500, is
extrapolated. The reference is an implicit solver. Leaves a table and a picture in
``results/diffusion_sorption_experts``. One seed tells little: the benchmark ``constraints/experts_accuracy`` has three.

Published for this problem (Chalapathi et al. 2024; 1024 points, 4000 steps on a GPU): soft 85.9 %, global 7.6 %,
experts 3.6 %; extrapolated 806 %, 48 %, 14.8 %.
"""

import time
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
from neuralop_kit.constraints import (
    AtStart,
    AtStop,
    Coupled,
    EqualPoints,
    Equation,
    LeastSquaresConstraint,
    MixtureOfExperts,
    Partition,
    Separate,
)
from neuralop_kit.models import FNO
from neuralop_kit.solvers.pde import DiffusionSorption
from neuralop_kit.solvers.pde.sorption import FreundlichSorption, WallValues

SOIL, DIFFUSIVITY, DURATION = FreundlichSorption(), 5e-4, 500.0
WEIGHT, SEEN = 5.0, 0.9
# In the root of time: half of what is seen, and its end.
TIME_CUTS = (0.45, 0.91)
CONDITIONS = (
    AtStart("initial", 0, weight=WEIGHT),
    AtStart("inflow", 1, weight=WEIGHT, target=1.0),
    AtStop("outflow", 1, (1.0, DIFFUSIVITY), weight=WEIGHT),
)


@dataclass(frozen=True)
class Settings:
    """How much to train, at which resolution.

    Args:
        points: along space.
        times: between 0 and 500, both included, uniform in their root; 9/10 of the intervals are for training.
        optimizer: its name; one that steps from gradients.
        steps: of the optimizer.
        batch_size: initial values per step.
        collocation: points of all experts together.
        seed: of weights and points.
        out: folder of table and picture.
        quick: a minute on one core, too few steps to tell anything.
    """

    points: int = 48
    times: int = 41
    optimizer: OptimizerName = "adam"
    steps: int = 200
    batch_size: int = 4
    collocation: int = 768
    seed: int = 0
    out: Path = Path("results/diffusion_sorption_experts")
    quick: bool = False


def space_time(share: float) -> Domain:
    """The root of time, in units of that of 500, up to a share of it; and space."""
    return Domain.box((share, 1.0), nodes=("vertex", "cell"))


def residual(u: Tensor, u_t: Tensor, u_xx: Tensor, t: Tensor) -> Tensor:
    """Storage against diffusion, times twice the time: of one size everywhere, also where the front enters."""
    return t * SOIL.retardation(u) * u_t - 2 * t**2 * DURATION * DIFFUSIVITY * u_xx


def experts(name: str, domain: Domain, settings: Settings) -> MixtureOfExperts:
    """One expert for all, one for every part of space, or of space and time."""
    times = tuple(cut for cut in TIME_CUTS if cut < domain.axes[0].stop) if name == "coupled" else 1
    partition = Partition(domain, (times, 1 if name == "global" else 4))
    return MixtureOfExperts(
        LeastSquaresConstraint(residual, domain, conditions=CONDITIONS, ridge=1e-8),
        partition,
        interface=Coupled(30.0, 1.0) if name == "coupled" else Separate(),
        collocation=EqualPoints(settings.collocation // partition.num_experts),
        global_conditions=name == "experts",
    )


class Model(nn.Module):
    """A network on all of space and time, and what makes a solution of its output."""

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__()
        self.name, self.settings = name, settings
        self.num_seen = round((settings.times - 1) * SEEN) + 1
        num_out = 1 if name == "soft" else 12
        self.operator = FNO(1, num_out, domain=space_time(1.0), width=24, num_layers=4, modes=8)

    def forward(self, start: Tensor, *, all_times: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Field, loss per item, and share of converged solves; for the times of training or for all."""
        settings = self.settings
        shape = (settings.times, settings.points)
        output = self.operator(start[:, None, None, None].expand(-1, 1, *shape))
        domain = space_time(1.0 if all_times else (self.num_seen - 1) / (settings.times - 1))
        output = output if all_times else output[:, :, : self.num_seen]
        if self.name == "soft":
            equation = Equation(residual, domain)
            values = equation(*equation.terms(output).squeeze(2).unbind(1), *equation.data(output, None))
            targets = [start[:, None], 1.0, 0.0]
            walls = [c.trace(output, domain).squeeze(1) - t for c, t in zip(CONDITIONS, targets, strict=True)]
            return output, _size(values) + sum(map(_size, walls)), torch.ones(())
        layer = experts(self.name, domain, settings)
        solution = layer.solve(output, targets={"initial": start}, generator=generator)
        loss = _size(solution.residual()) + sum(map(_size, solution.wall_residuals()))
        return solution.field(), loss, solution.info.converged.double().mean()


def _size(values: Tensor) -> Tensor:
    """Root of the mean square of every item."""
    return values.square().flatten(1).mean(dim=1).sqrt()


def train(name: str, settings: Settings) -> Model:
    """No data: initial values, and the equation."""
    torch.manual_seed(settings.seed)
    model = Model(name, settings).double()
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = make_optimizer(settings.optimizer, model)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for step in range(settings.steps):
        start = 0.2 * torch.rand(settings.batch_size, generator=generator, dtype=torch.float64)
        _, losses, converged = model(start, all_times=False, generator=generator)
        optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, settings.steps // 5) == 0:
            print(f"{name}: step {step}, loss {losses.mean().item():.3f}, converged {converged.item():.0%}", flush=True)
    finish(optimizer)
    return model


def reference(settings: Settings) -> tuple[Tensor, Tensor]:
    """Initial values, and solutions ``(batch, time, points)``."""
    number = settings.times - 1
    solver = DiffusionSorption(Domain.box((1.0,), nodes="cell"), dt=DURATION / number**2, walls=WallValues())
    start = torch.linspace(0.01, 0.19, 10, dtype=torch.float64)
    states = solver.rollout(start[:, None, None].expand(-1, 1, settings.points), num_steps=number**2)
    return start, states[:, [k**2 for k in range(settings.times)], 0]


def main(settings: Settings) -> None:
    """Train, test, draw."""
    if settings.quick:
        settings = shorter(settings, steps=40)
    start, truth = reference(settings)
    roots = torch.linspace(0, 1, settings.times, dtype=truth.dtype)
    rows, fields = [], {}
    for name in ("soft", "global", "experts", "coupled"):
        began = time.process_time()
        model = train(name, settings)
        seconds = time.process_time() - began
        generator = torch.Generator().manual_seed(settings.seed)
        with torch.no_grad():
            seen, losses, converged = model(start, all_times=False, generator=generator)
            whole, *_ = model(start, all_times=True, generator=generator)
        split = model.num_seen
        rows.append(
            {
                "physics": name,
                "relative L2 error": _relative(seen[:, 0], truth[:, :split], roots[:split]),
                "extrapolated": _relative(whole[:, 0, split:], truth[:, split:], roots[split:]),
                "loss": losses.mean().item(),
                "converged": converged.item(),
                "CPU seconds": seconds,
            }
        )
        fields[name] = torch.cat([seen[0, 0], whole[0, 0, split:]])
        print(markdown(rows[-1:]), flush=True)
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "solutions.png", truth[0], fields)
    print(f"\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


def _relative(u: Tensor, truth: Tensor, roots: Tensor) -> float:
    """In the L2 norm of time, not of its root ``t``: ``d time = 2 t dt``."""
    error, norm = ((roots.sqrt()[:, None] * v).flatten(1).norm(dim=1) for v in (u - truth, truth))
    return (error / norm).mean().item()


def draw(path: Path, truth: Tensor, fields: dict[str, Tensor]) -> None:
    """Space-time pictures of errors beside the reference."""
    figure, axes = plt.subplots(1, 1 + len(fields), figsize=(3.3 * (1 + len(fields)), 3.2), layout="constrained")
    options = {"origin": "lower", "extent": (0, 1, 0, 1), "aspect": "auto"}
    axes[0].imshow(truth.numpy(), vmin=0, vmax=1, **options)
    axes[0].set(title="reference", xlabel="x", ylabel="root of time, in units of that of 500")
    for axis, (name, u) in zip(axes[1:], fields.items(), strict=True):
        shown = axis.imshow((u - truth).numpy(), cmap="RdBu_r", vmin=-0.2, vmax=0.2, **options)
        axis.axhline(SEEN, color="black", lw=0.8)
        axis.text(0.98, SEEN + 0.02, "not trained on", fontsize=8, ha="right")
        axis.set(title=f"error of {name}", xlabel="x")
    figure.colorbar(shown, ax=axes, shrink=0.8, label="error")
    save(figure, path)


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
