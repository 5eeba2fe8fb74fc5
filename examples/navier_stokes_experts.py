"""Two-dimensional flow learned from its equation alone; experts in space, on one process or on several.

    python examples/navier_stokes_experts.py --quick
    torchrun --nproc-per-node 2 examples/navier_stokes_experts.py --quick

    w_t + u . grad w = viscosity Laplace w  on a torus,      u = (psi_y, -psi_x),   -Laplace psi = w

A network sees the vorticity at the beginning and gives functions of space and time; the solution is the initial state
plus ``t`` times the combination of them that solves the equation best, one combination in each quarter of space. With
more processes than items in a batch, each process solves some of the experts: coefficients travel, a few numbers. The
velocity is not local: every expert sees that of its own field. Leaves a table and a picture in
``results/navier_stokes_experts``.

Published for a like problem (Chalapathi et al. 2024; 64 points, viscosity 1e-4, GPUs): soft 18.1 %, global 11.8 %,
experts 8.3 %.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from _command_line import run_example, shorter
from _figures import ERROR, save
from _optimizers import OptimizerName, finish, make_optimizer
from _tables import markdown, save_table
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from neuralop_kit import Domain
from neuralop_kit.constraints import (
    EqualPoints,
    Equation,
    ExpertParallel,
    LeastSquaresConstraint,
    MixtureOfExperts,
    Partition,
)
from neuralop_kit.constraints.ranks import OneRank, Ranks
from neuralop_kit.models import FNO
from neuralop_kit.solvers import GaussianRandomField
from neuralop_kit.solvers.pde import NavierStokes2D
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid
from neuralop_kit.training import process_group
from neuralop_kit.training.distributed import rank, world_size

TORUS = Domain.periodic((1.0, 1.0))
SPACE_TIME = Domain.box((1.0, 1.0, 1.0), boundary=("dirichlet", "periodic", "periodic"))


@dataclass(frozen=True)
class Settings:
    """What to train, and how much.

    Args:
        physics: a penalty, one combination of functions, or one in every quarter.
        points: per axis of space.
        times: between 0 and 1, both included.
        viscosity: in area per time.
        functions: of the basis.
        optimizer: its name; one that steps from gradients.
        steps: of the optimizer.
        batch_size: initial states per step.
        collocation: points of all experts together.
        seed: of states, weights and points.
        out: folder of table and picture.
        quick: a few minutes on one core.
    """

    physics: Literal["soft", "global", "experts"] = "experts"
    points: int = 32
    times: int = 17
    viscosity: float = 2e-3
    functions: int = 32
    optimizer: OptimizerName = "adam"
    steps: int = 500
    batch_size: int = 2
    collocation: int = 4096
    seed: int = 0
    out: Path = Path("results/navier_stokes_experts")
    quick: bool = False


def _torus(w: Tensor) -> SpectralGrid:
    return SpectralGrid(TORUS, w.shape[-2:], dtype=w.dtype, device=w.device)


def velocity(axis: int, w: Tensor) -> Tensor:
    """One component of the velocity, at every time."""
    grid = _torus(w)
    stream = grid.to_modes(w) * grid.inverse_squared
    return grid.to_space(grid.derivative(stream, 1) if axis == 0 else -grid.derivative(stream, 0))


def laplacian(w: Tensor) -> Tensor:
    """At every time."""
    grid = _torus(w)
    return grid.to_space(-grid.squared * grid.to_modes(w))


def equation(viscosity: float) -> Equation:
    """The vorticity equation, pointwise in six linear terms."""

    def residual(w_t: Tensor, w_x: Tensor, w_y: Tensor, u: Tensor, v: Tensor, lap: Tensor) -> Tensor:
        return w_t + u * w_x + v * w_y - viscosity * lap

    operators = {"u": lambda w: velocity(0, w), "v": lambda w: velocity(1, w), "lap": laplacian}
    return Equation(residual, SPACE_TIME, operators=operators)


class Model(nn.Module):
    """The network, and what makes a solution of its output."""

    def __init__(self, settings: Settings, ranks: Ranks) -> None:
        super().__init__()
        is_soft = settings.physics == "soft"
        num_out = 1 if is_soft else settings.functions
        self.operator = FNO(1, num_out, domain=SPACE_TIME, width=16, num_layers=3, modes=(4, 8, 8))
        self.equation, self.times = equation(settings.viscosity), settings.times
        self.experts = None
        if not is_soft:
            splits = (1, 2, 2) if settings.physics == "experts" else (1, 1, 1)
            partition = Partition(SPACE_TIME, splits)
            self.experts = MixtureOfExperts(
                LeastSquaresConstraint(self.equation, SPACE_TIME, ridge=1e-6),
                partition,
                collocation=EqualPoints(settings.collocation // partition.num_experts),
                ranks=ranks,
            )

    def forward(self, start: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Field ``(batch, 1, time, *space)``, mean residual, and share of converged solves."""
        offset = start.unsqueeze(2).expand(-1, -1, self.times, -1, -1)
        # Zero at the beginning, where the state is given, and without mean, which the flow conserves.
        t = torch.linspace(0, 1, self.times, dtype=start.dtype, device=start.device)[:, None, None]
        functions = t * self.operator(offset)
        functions = functions - functions.mean(dim=(-2, -1), keepdim=True)
        if self.experts is None:
            w = offset + functions
            values = self.equation(*self.equation.terms(w).squeeze(2).unbind(1))
            return w, _size(values).mean(), torch.ones(())
        solution = self.experts.solve(functions, offset=offset, generator=generator)
        return solution.field(), _size(solution.residual()).mean(), solution.info.converged.double().mean()


def _size(values: Tensor) -> Tensor:
    return values.square().flatten(1).mean(dim=1).sqrt()


def draw_states(number: int, settings: Settings, generator: torch.Generator) -> Tensor:
    """Smooth vorticities of mean zero and size one."""
    field = GaussianRandomField(TORUS, alpha=4.0, tau=6.0)
    w = field.sample(number, (settings.points, settings.points), generator=generator, dtype=torch.float64)
    return w / w.flatten(1).std(dim=1).view(-1, 1, 1, 1)


def train(model: nn.Module, settings: Settings, device: torch.device) -> None:
    """All processes see the same states and points, because their generators have the same seed."""
    states, points = (torch.Generator().manual_seed(settings.seed) for _ in range(2))
    optimizer = make_optimizer(settings.optimizer, model, pace=1.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for step in range(settings.steps):
        start = draw_states(settings.batch_size, settings, states).to(device)
        _, loss, converged = model(start, points)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if rank() == 0 and step % max(1, settings.steps // 10) == 0:
            print(f"step {step}: residual {loss.item():.3f}, converged {converged.item():.0%}", flush=True)
    finish(optimizer)


def main(settings: Settings) -> None:
    """Train, compare with a reference solver, draw."""
    if settings.quick:
        settings = shorter(settings, points=16, times=9, functions=16, steps=40, collocation=1024)
    with process_group(timeout_seconds=120) as device:
        torch.manual_seed(settings.seed)
        many = world_size() > 1
        ranks = ExpertParallel(init_device_mesh(device.type, (world_size(),))) if many else OneRank()
        model: nn.Module = Model(settings, ranks).double().to(device)
        model = DistributedDataParallel(model) if many else model
        began = time.perf_counter()
        train(model, settings, device)
        seconds = time.perf_counter() - began
        start = draw_states(8, settings, torch.Generator().manual_seed(settings.seed + 1))
        with torch.no_grad():
            w, residual, converged = model(start.to(device), torch.Generator().manual_seed(settings.seed))
        if rank() == 0:
            report(settings, start, w.cpu(), residual.item(), converged.item(), seconds)


def report(settings: Settings, start: Tensor, w: Tensor, residual: float, converged: float, seconds: float) -> None:
    """Table and picture."""
    solver = NavierStokes2D(TORUS, viscosity=settings.viscosity, dt=1 / (settings.times - 1), num_substeps=20)
    truth = solver.rollout(start, num_steps=settings.times - 1)[:, :, 0]
    row = {
        "physics": settings.physics,
        "processes": world_size(),
        "relative L2 error": _relative(w[:, 0], truth),
        "error of standing still": _relative(start.expand_as(truth), truth),
        "residual": residual,
        "converged": converged,
        "seconds": seconds,
    }
    save_table(settings.out, [row], settings=asdict(settings))
    panels = {"start": start[0, 0], "reference at t = 1": truth[0, -1], f"{settings.physics} at t = 1": w[0, 0, -1]}
    draw(settings.out / "vorticity.png", panels)
    print(f"\n{markdown([row])}\n\nTable and picture are in {settings.out}")


def draw(path: Path, panels: dict[str, Tensor]) -> None:
    """One flow at the beginning, and at the end as it is and as it was learned."""
    figure, axes = plt.subplots(1, len(panels), figsize=(10, 3.2), layout="constrained")
    for axis, (title, image) in zip(axes, panels.items(), strict=True):
        shown = axis.imshow(image.T.numpy(), origin="lower", cmap=ERROR, vmin=-3, vmax=3)
        axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes, label="vorticity")
    save(figure, path)


def _relative(w: Tensor, truth: Tensor) -> float:
    return ((w - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean().item()


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
