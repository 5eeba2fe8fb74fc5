"""Learn a stochastic spiral from the mean and the variance of its paths, without and with a regularizer.

    python examples/neural_sde_spiral.py
    python examples/neural_sde_spiral.py --regularizer error --steps 250

The truth: du1 = (-a u1^3 + b u2^3) dt + g u1 dW1, du2 = (-b u1^3 - a u2^3) dt + g u2 dW2 with a = 0.1, b = 2, g = 0.2
from (2, 0), 30 times in [0, 1]. A network of 2-50-2 on the cubes is the drift, a linear map the diffusion (Pal et al.
2021, section 4.2, who found a mean squared error of 0.022 with 529 evaluations, 502 with either regularizer). Takes
about a minute per regularizer on a core of its own. Leaves table and picture in ``results/neural_sde_spiral``.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from _command_line import run_example, shorter
from _figures import save
from _tables import markdown, save_table
from matplotlib import pyplot as plt
from torch import Tensor, nn
from tqdm import trange

from neuralop_kit.neural_ode import Autonomous, ErrorRegularizer, NeuralSDE, StiffnessRegularizer, sum_of_steps
from neuralop_kit.solvers import sdeint
from neuralop_kit.solvers.ode import FixedStep
from neuralop_kit.solvers.sde import SOSRI2


@dataclass(frozen=True)
class Settings:
    """What to train, for how long.

    Args:
        regularizer: none, on the error, on the stiffness, or all in turn.
        steps: of the optimizer.
        paths: per step.
        learning_rate: of Adam.
        tolerance: of the solver.
        error_weight: of the error regularizer, on sums over steps.
        stiffness_weight: of the stiffness regularizer.
        seed: of weights and paths.
        out: where results go.
        compile: trial steps by ``torch.compile``, which takes a quarter of a minute and then saves a third.
        quick: 30 steps, too few for a good fit: shows that it runs, in a minute on one core.
    """

    regularizer: Literal["none", "error", "stiffness", "all"] = "all"
    steps: int = 250
    paths: int = 100
    learning_rate: float = 1e-2
    tolerance: float = 0.3
    error_weight: float = 0.2
    stiffness_weight: float = 0.1
    seed: int = 0
    out: Path = Path("results/neural_sde_spiral")
    compile: bool = False
    quick: bool = False


START, TIMES = torch.tensor([[2.0, 0.0]]), torch.linspace(0, 1, 30)


def truth(num_paths: int, generator: torch.Generator) -> Tensor:
    """Paths of the spiral, ``(30, num_paths, 2)``."""
    turn = torch.tensor([[-0.1, -2.0], [2.0, -0.1]])
    return sdeint(
        lambda t, u: u**3 @ turn, lambda t, u: 0.2 * u, START.repeat(num_paths, 1), TIMES, method="sosri",
        controller=FixedStep(1 / 290), control="joint", generator=generator,
    ).ys  # fmt: skip


class Cubes(nn.Module):
    """A network of the cubes of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))

    def forward(self, u: Tensor) -> Tensor:
        """The drift."""
        return self.network(u**3)


def moments(paths: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the paths, ``(30, 2)`` each."""
    return paths.mean(dim=1), paths.var(dim=1)


def mismatch(paths: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    """Sum over times and components of squared errors of mean and variance."""
    return sum((found - wanted).square().sum() for found, wanted in zip(moments(paths), target, strict=True))


def train(kind: str, target: tuple[Tensor, Tensor], settings: Settings) -> dict[str, Any]:
    """One run: its row of the table, and its paths."""
    torch.manual_seed(settings.seed)
    sde = NeuralSDE(
        Autonomous(Cubes()), Autonomous(nn.Linear(2, 2)), method=SOSRI2(compile=settings.compile),
        rtol=settings.tolerance, atol=settings.tolerance, control="joint", raise_on_failure=True,
    )  # fmt: skip
    penalties = {
        "error": ErrorRegularizer(settings.error_weight, over=sum_of_steps),
        "stiffness": StiffnessRegularizer(settings.stiffness_weight),
    }
    optimizer = torch.optim.Adam(sde.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(settings.seed)
    began = time.perf_counter()
    for _ in (bar := trange(settings.steps, desc=kind, leave=False)):
        solution = sde(START.repeat(settings.paths, 1), TIMES, generator=generator)
        loss = mismatch(solution.ys, target)
        if kind in penalties:
            loss = loss + penalties[kind](solution.stats)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3g}", evaluations=int(solution.stats.num_evaluations[0]))
    seconds = time.perf_counter() - began
    with torch.no_grad():
        solution = sde(START.repeat(2000, 1), TIMES, generator=generator)
    row = {
        "regularizer": kind, "mean squared error": mismatch(solution.ys, target).item() / (4 * len(TIMES)),
        "evaluations": int(solution.stats.num_evaluations[0]), "training seconds": seconds,
    }  # fmt: skip
    return {"row": row, "paths": solution.ys}


def draw(path: Path, target: tuple[Tensor, Tensor], runs: list[dict[str, Any]]) -> None:
    """Means with one standard deviation."""
    figure, axes = plt.subplots(1, len(runs), figsize=(4.2 * len(runs), 3.4), squeeze=False, layout="constrained")
    for axis, run in zip(axes[0], runs, strict=True):
        for name, style, (mean, variance) in (("truth", "--", target), ("network", "-", moments(run["paths"]))):
            for k in range(2):
                axis.plot(TIMES, mean[:, k], style, color=f"C{k}", label=f"u{k + 1}, {name}")
                if name == "network":
                    spread = variance[:, k].sqrt()
                    axis.fill_between(TIMES, mean[:, k] - spread, mean[:, k] + spread, color=f"C{k}", alpha=0.2)
        axis.set(title=f"{run['row']['regularizer']}: {run['row']['evaluations']} evaluations", xlabel="t")
    axes[0, 0].set(ylabel="mean, standard deviation")
    axes[0, 0].legend(fontsize=8)
    save(figure, path)


def main(settings: Settings) -> None:
    """Train, print, save, draw."""
    torch.set_num_threads(1)
    if settings.quick:
        settings = shorter(settings, steps=30)
    target = moments(truth(10_000, torch.Generator().manual_seed(settings.seed)))
    kinds = ("none", "error", "stiffness") if settings.regularizer == "all" else (settings.regularizer,)
    runs = [train(kind, target, settings) for kind in kinds]
    rows = [run["row"] for run in runs]
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "spiral.png", target, runs)
    print(f"\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
