"""Solve a Poisson equation with a network of 257 weights, to nearly all digits: the optimizer makes the difference.

    python examples/pinn_poisson.py
    python examples/pinn_poisson.py --optimizer gauss_newton --seconds 20 --seed 0 --json result.json

-Laplace u = 2 pi^2 sin(pi x) sin(pi y) on the unit square, u = 0 on its boundary; a network 2-64-1 with tanh in
float64, 900 random points inside and 120 on the boundary. Each optimizer gets the same time on one thread. Those of the
Gram family are given the vector of all residuals, the others the sum of its squares. Leaves a table and a picture in
``results/pinn_poisson``.

Published for this problem, after 1000 s on a GPU (Dangel et al. 2024, absolute errors doubled to relative ones): energy
natural gradient 1.2e-7, KFAC 4.0e-7, SGD 5.4e-5, Adam 1.9e-4, L-BFGS 3.2e-4.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from _tables import markdown
from torch import Tensor, nn

from neuralop_kit.optim import HIG, SOAP, SPRING, GaussNewton, Lion, Muon, Sven

# Learning rates of the others: the best of several, a factor of 3 apart, in short runs on this problem.
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "gauss_newton": GaussNewton,
    "sven": lambda p: Sven(p, rtol=1e-8),
    "spring": lambda p: SPRING(p, momentum=0.5),
    "hig": HIG,
    "soap": lambda p: SOAP(p, lr=3e-2, period=2),
    "adam": lambda p: torch.optim.Adam(p, lr=3e-2),
    "muon": lambda p: Muon(p, lr=3e-2),
    "lion": lambda p: Lion(p, lr=3e-3),
}


@dataclass(frozen=True)
class Settings:
    """What to run, and for how long.

    Args:
        optimizer: one of them, or all in turn.
        seconds: for each optimizer.
        seed: of the points and of the weights.
        threads: of the CPU.
        json: where the results go as JSON, besides the folder.
        out: folder of table and picture.
    """

    optimizer: Literal["all", "gauss_newton", "sven", "spring", "hig", "soap", "adam", "muon", "lion"] = "all"
    seconds: float = 10.0
    seed: int = 0
    threads: int = 1
    json: Path | None = None
    out: Path = Path("results/pinn_poisson")


def exact(x: Tensor) -> Tensor:
    """sin(pi x) sin(pi y) at points ``(num_points, 2)``."""
    return torch.sin(math.pi * x).prod(dim=1)


def laplacian(u: Tensor, x: Tensor) -> Tensor:
    """Of u at its points, by two backward passes."""
    (gradient,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    seconds = [torch.autograd.grad(gradient[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
    return sum(seconds, torch.zeros_like(u))


def draw_points(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """900 points in the unit square and 30 on each of its sides."""
    inside = torch.rand(900, 2, generator=generator, dtype=torch.float64)
    along = torch.rand(4, 30, generator=generator, dtype=torch.float64)
    low, high = torch.zeros_like(along[0]), torch.ones_like(along[0])
    sides = [(low, along[0]), (high, along[1]), (along[2], low), (along[3], high)]
    return inside.requires_grad_(True), torch.cat([torch.stack(side, dim=1) for side in sides])


def solve(name: str, settings: Settings) -> dict[str, Any]:
    """Train one network; its results and its course."""
    torch.manual_seed(settings.seed)
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1)).double()
    inside, boundary = draw_points(torch.Generator().manual_seed(settings.seed))
    source = 2 * math.pi**2 * exact(inside.detach())
    line = torch.linspace(0, 1, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)

    def residual() -> dict[str, Tensor]:
        equation = laplacian(model(inside).squeeze(1), inside) + source
        return {"interior": equation, "boundary": model(boundary).squeeze(1)}

    def error() -> float:
        with torch.no_grad():
            return float((model(grid).squeeze(1) - exact(grid)).norm() / exact(grid).norm())

    optimizer = OPTIMIZERS[name](model.parameters())
    course, steps, next_look, spent, began = [(0.0, error())], 0, 0.1, 0.0, time.perf_counter()
    while spent < settings.seconds:
        take_step(optimizer, residual)
        steps += 1
        spent = time.perf_counter() - began
        if spent > next_look:
            course.append((spent, error()))
            next_look *= 1.2
    with torch.no_grad():
        values = model(grid).view(101, 101)
    return {"optimizer": name, "relative_l2": error(), "steps": steps, "seconds": spent, "course": course, "u": values}


def take_step(optimizer: torch.optim.Optimizer, residual: Callable[[], dict[str, Tensor]]) -> None:
    """A step from the residuals where the optimizer takes them, else from the gradient of their mean squares."""
    if getattr(optimizer, "step_kind", "gradient") == "residual":
        optimizer.step(residual)  # type: ignore[arg-type]
        return
    optimizer.zero_grad()
    sum((block.square().mean() for block in residual().values()), torch.zeros(())).backward()
    optimizer.step()


def draw(path: Path, results: list[dict[str, Any]]) -> None:
    """The errors over time, and the error of the best solution in space."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for result in results:
        left.loglog(*zip(*result["course"][1:], strict=True), label=result["optimizer"])
    left.set(xlabel="seconds on one thread", ylabel="relative L2 error", title="-Laplace u = f, 257 weights")
    left.grid(alpha=0.3)
    left.legend()
    best = min(results, key=lambda result: result["relative_l2"])
    line = torch.linspace(0, 1, 101, dtype=torch.float64)
    error = best["u"] - exact(torch.cartesian_prod(line, line)).view(101, 101)
    limit = error.abs().max().item()
    shown = right.imshow(error.T.numpy(), origin="lower", extent=(0, 1, 0, 1), cmap="RdBu_r", vmin=-limit, vmax=limit)
    right.set(title=f"error of {best['optimizer']}")
    figure.colorbar(shown, ax=right)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(settings: Settings) -> None:
    """Run, print, save, draw."""
    torch.set_num_threads(settings.threads)
    names = list(OPTIMIZERS) if settings.optimizer == "all" else [settings.optimizer]
    results = []
    for name in names:
        results.append(solve(name, settings))
        print(f"{name}: relative L2 error {results[-1]['relative_l2']:.1e} after {results[-1]['steps']:,} steps")
    rows = [{key: result[key] for key in ("optimizer", "relative_l2", "steps", "seconds")} for result in results]
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "results.md").write_text(markdown(rows) + "\n")
    draw(settings.out / "convergence.png", results)
    for path in filter(None, [settings.json, settings.out / "results.json"]):
        described = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
        best = min(result["relative_l2"] for result in results)
        path.write_text(json.dumps({"relative_l2": best, "settings": described, "rows": rows}, indent=2) + "\n")
    print(f"\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
