"""Everything at once: a flow whose rate of change is learned, conserves exactly, and is cheap to integrate.

    python examples/all_together.py
    python examples/all_together.py --optimizer muon

Vorticity of a decaying flow on a torus: ``w_t + u . grad w = nu Lap w``. It moves air far away, by the elliptic
equation for the velocity ``u``: a learned multigrid cycle. The rest is local: a plain convolutional network, read as an
operator. The total of ``w`` is zero, or there would be no velocity: a constraint takes the mean off the rate of change,
and as Runge-Kutta methods keep linear invariants, the total stays zero to rounding. A neural ODE learns this on one
grid, without and with a price on the solver's error, which saves evaluations and costs accuracy, and is asked on that
grid and on a finer one. Leaves table and picture in ``results/all_together``.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from _command_line import run_example, shorter
from _figures import ERROR, save
from _optimizers import OptimizerName, finish, make_optimizer
from _tables import markdown, save_table
from matplotlib import pyplot as plt
from torch import Tensor, nn
from tqdm import trange

from neuralop_kit import Domain
from neuralop_kit.constraints import ConservationConstraint
from neuralop_kit.convert import to_operator
from neuralop_kit.layers import MultigridOperator
from neuralop_kit.neural_ode import Autonomous, ErrorRegularizer, NeuralODE
from neuralop_kit.solvers.pde import NavierStokes2D
from neuralop_kit.training import relative_l2

TORUS = Domain.periodic((1.0, 1.0))
DT, LAST = 0.25, 8  # time between two states of the data, and how many follow the first
TOLERANCE = 1e-4  # of the solver; the weight below belongs to it


@dataclass(frozen=True)
class Settings:
    """What to train, for how long.

    Args:
        resolution: points per axis in training; tested there and on twice as many.
        optimizer: its name; one that steps from gradients.
        steps: of the optimizer.
        weight: of the regularizer on the solver's error, where there is one.
        seed: of data and weights.
        out: where results go.
        quick: a minute on one core, too short for a good fit.
    """

    resolution: int = 32
    optimizer: OptimizerName = "soap"
    steps: int = 250
    weight: float = 2.0
    seed: int = 0
    out: Path = Path("results/all_together")
    quick: bool = False


def flows(count: int, resolution: int, seed: int) -> Tensor:
    """Trajectories of vorticities of about one, ``(count, 1 + LAST, 1, resolution, resolution)``."""
    solver = NavierStokes2D(TORUS, viscosity=1e-3, dt=DT, num_substeps=16)
    start = solver.initial_condition(count, (resolution, resolution), generator=torch.Generator().manual_seed(seed))
    return solver.rollout(5 * start, num_steps=LAST)


class Rate(nn.Module):
    """``w -> dw/dt``: the multigrid cycle sees far, the converted network near, the constraint keeps the total."""

    def __init__(self, resolution: int, *, channels: int = 4) -> None:
        super().__init__()
        conv = lambda i, o: nn.Conv2d(i, o, 5, padding=2, padding_mode="circular")  # noqa: E731
        network = nn.Sequential(conv(1 + channels, 32), nn.GELU(), nn.Conv2d(32, 32, 1), nn.GELU(), conv(32, 1))
        self.far = MultigridOperator(1, channels, 4, domain=TORUS)
        self.near = to_operator(network, TORUS, resolution=(resolution, resolution))
        self.constraint = ConservationConstraint(TORUS)

    def forward(self, w: Tensor) -> Tensor:
        """The rate of change, of integral zero."""
        rate = self.near(torch.cat((w, self.far(w)), dim=1))
        return self.constraint(rate, w.new_zeros(w.shape[:2]))[0]


def train(data: Tensor, settings: Settings, *, weight: float) -> NeuralODE:
    """On pieces of the data, two intervals long, from anywhere on the way."""
    torch.manual_seed(settings.seed)
    rate = Autonomous(Rate(settings.resolution))
    node = NeuralODE(rate, rtol=TOLERANCE, atol=TOLERANCE, control="joint", raise_on_failure=True)
    optimizer = make_optimizer(settings.optimizer, node, pace=2.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for _ in (bar := trange(settings.steps, leave=False)):
        item, first = torch.randint(len(data), (8,)), torch.randint(LAST - 1, (8,))
        solution = node(data[item, first], torch.tensor([0.0, 2 * DT]))
        loss = relative_l2(solution.ys[-1], data[item, first + 2], domain=TORUS)
        optimizer.zero_grad()
        (loss + ErrorRegularizer(weight)(solution.stats)).backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(error=f"{loss.item():.3g}", evaluations=int(solution.stats.num_evaluations[0]))
    finish(optimizer)
    return node


@torch.no_grad()
def evaluate(node: NeuralODE, truth: Tensor) -> tuple[dict[str, float | int], Tensor]:
    """A row of the table, and the states at the times of the data; in float64, where rounding shows what is exact."""
    solution = node.double()(truth[:, 0].double(), torch.arange(LAST + 1) * DT)
    error = lambda k: relative_l2(solution.ys[k], truth[:, k].double(), domain=TORUS).item()  # noqa: E731
    total = solution.ys.mean(dim=(3, 4))
    row = {
        "points per axis": truth.shape[-1], "relative L2 at t = 0.5": error(2), "at t = 2": error(LAST),
        "change of the total": ((total - total[0]).abs().max() / solution.ys.abs().mean()).item(),
        "evaluations": int(solution.stats.num_evaluations[0]),
    }  # fmt: skip
    return row, solution.ys


def main(settings: Settings) -> None:
    """Generate, train twice, test at two resolutions, draw."""
    if settings.quick:
        settings = shorter(settings, steps=30)
    fine = flows(72, 2 * settings.resolution, settings.seed)
    coarse = fine[..., ::2, ::2].contiguous()
    rows, last = [], {"start": fine[0, 0, 0], "truth": fine[0, -1, 0]}
    for name, weight in {"none": 0.0, "solver's error": settings.weight}.items():
        node = train(coarse[8:], settings, weight=weight)
        for truth in (coarse[:8], fine[:8]):
            row, states = evaluate(node, truth)
            rows.append({"regularizer": name, **row})
        last[f"regularizer: {name}"] = states[-1, 0, 0]
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "vorticity.png", last)
    print(f"\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


def draw(path: Path, fields: dict[str, Tensor]) -> None:
    """One flow at the beginning, and at the end as it is and as it was learned, on the finer grid."""
    figure, axes = plt.subplots(1, len(fields), figsize=(3.4 * len(fields), 3.4), layout="constrained")
    for axis, (name, w) in zip(axes, fields.items(), strict=True):
        shown = axis.imshow(w.T.numpy(), origin="lower", cmap=ERROR, vmin=-2.5, vmax=2.5)
        axis.set(title=name, xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes, shrink=0.8, label="vorticity")
    save(figure, path)


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
