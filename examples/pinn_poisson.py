"""Solve a Poisson equation with a network of 257 weights, to nearly all digits: the optimizer makes the difference.

    python examples/pinn_poisson.py
    python examples/pinn_poisson.py --optimizer gauss_newton --seconds 20 --seed 0 --json result.json
    python examples/pinn_poisson.py --problem poisson5d
    python examples/pinn_poisson.py --quick

-Laplace u = 2 pi^2 sin(pi x) sin(pi y) on the unit square, u = 0 on its boundary; a network 2-64-1 with tanh in
float64, 900 random points inside and 120 on the boundary. Other problems: the heat equation, Burgers' equation with
viscosity 0.1/pi, and Poisson's in five dimensions; their docstrings in ``neuralop_kit.training.pinn`` say all.

Each optimizer gets the same time on one thread. Those of the Gram family are given the vector of all residuals, the
others the sum of mean squares. Leaves a table and a picture in ``results/pinn_PROBLEM``; the table has beside each
error that of the literature for the same kind of method, after 1000 s (5-D: 3000 s and more) on a GPU.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from _command_line import run_example, shorter, writable
from _figures import save
from _tables import markdown
from matplotlib import pyplot as plt

from neuralop_kit.optim import HIG, SOAP, SPRING, GaussNewton, LevenbergMarquardt, Lion, Muon, SSBroyden, Sven
from neuralop_kit.solvers.atomic import write_bytes
from neuralop_kit.training.pinn import Burgers1D, Course, Heat1D, PointProblem, Poisson2D, Poisson5D, fit

PROBLEMS: dict[str, PointProblem] = {
    "poisson": Poisson2D(),
    "heat": Heat1D(),
    "burgers": Burgers1D(),
    "poisson5d": Poisson5D(),
}
# Learning rates of the last four: the best of several, a factor of 3 apart, in short runs on the first problem.
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "gauss_newton": GaussNewton,
    "levenberg_marquardt": lambda p: GaussNewton(p, rtol=0.0, control=LevenbergMarquardt(geodesic_acceleration=True)),
    "sven": lambda p: Sven(p, rtol=1e-8),
    "spring": lambda p: SPRING(p, momentum=0.5),
    "hig": HIG,
    "ssbroyden": SSBroyden,
    "soap": lambda p: SOAP(p, lr=3e-2, period=2),
    "adam": lambda p: torch.optim.Adam(p, lr=3e-2),
    "muon": lambda p: Muon(p, lr=3e-2),
    "lion": lambda p: Lion(p, lr=3e-3),
}
# What the literature calls them.
PUBLISHED_AS = {"gauss_newton": "ENGD", "spring": "SPRING", "adam": "Adam"}


@dataclass(frozen=True)
class Settings:
    """What to run, and for how long.

    Args:
        problem: which of the four.
        optimizer: one of them, or all in turn.
        seconds: for each optimizer.
        seed: of the points and of the weights.
        threads: of the CPU.
        json: where the results go as JSON, besides the folder.
        out: folder of table and picture; by default ``results/pinn_PROBLEM``.
        quick: one second for each optimizer, which shows their order but not how far they get.
    """

    problem: Literal["poisson", "heat", "burgers", "poisson5d"] = "poisson"
    optimizer: Literal[
        "all", "gauss_newton", "levenberg_marquardt", "sven", "spring", "hig", "ssbroyden", "soap", "adam", "muon",
        "lion",
    ] = "all"  # fmt: skip
    seconds: float = 10.0
    seed: int = 0
    threads: int = 1
    json: Path | None = None
    out: Path | None = None
    quick: bool = False


def draw(path: Path, problem: PointProblem, courses: Mapping[str, Course]) -> None:
    """The errors over time, and the error of the best solution at the test points, by their first two coordinates."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for i, (name, course) in enumerate(courses.items()):
        left.loglog(*zip(*course.errors, strict=True), label=name, linestyle="-" if i < 5 else "--")
    left.set(xlabel="seconds on one thread", ylabel="relative L2 error", title=type(problem).__name__)
    left.grid(alpha=0.3)
    left.legend(fontsize=7)
    best = min(courses, key=lambda name: courses[name].error)
    x = problem.test_points()
    with torch.no_grad():
        error = courses[best].network(x).squeeze(1) - problem.exact(x)
    limit = error.abs().max().item()
    shown = right.scatter(*x[:, :2].T.numpy(), c=error.numpy(), s=4, marker="s", cmap="RdBu_r", vmin=-limit, vmax=limit)
    right.set(title=f"error of {best}", xlabel="first coordinate", ylabel="second coordinate")
    figure.colorbar(shown, ax=right)
    save(figure, path)


def main(settings: Settings) -> None:
    """Run, print, save, draw."""
    if settings.quick:
        settings = shorter(settings, seconds=1.0)
    torch.set_num_threads(settings.threads)
    problem = PROBLEMS[settings.problem]
    out = settings.out or Path("results") / f"pinn_{settings.problem}"
    for folder in [out] if settings.json is None else [out, settings.json.parent]:
        writable(folder)
    courses: dict[str, Course] = {}
    for name in OPTIMIZERS if settings.optimizer == "all" else [settings.optimizer]:
        course = fit(problem, OPTIMIZERS[name], seconds=settings.seconds, seed=settings.seed)
        courses[name] = course
        print(f"{name}: relative L2 error {course.error:.1e} after {course.num_steps:,} steps")
    rows = [
        {
            "optimizer": name,
            "relative_l2": course.error,
            "published": problem.published.get(PUBLISHED_AS.get(name, ""), "-"),
            "steps": course.num_steps,
            "seconds": course.seconds,
        }
        for name, course in courses.items()
    ]
    write_bytes(out / "results.md", f"{markdown(rows)}\n".encode())
    draw(out / "convergence.png", problem, courses)
    described = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
    best = min(course.error for course in courses.values())
    content = {"relative_l2": best, "settings": described, "published": dict(problem.published), "rows": rows}
    for path in filter(None, [settings.json, out / "results.json"]):
        write_bytes(path, f"{json.dumps(content, indent=2)}\n".encode())
    print(f"\n{markdown(rows)}\n\nTable and picture are in {out}")


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
