"""Learn a preconditioner for flow through high-contrast media, and let conjugate gradients certify what it solves.

    python examples/multigrid_preconditioner.py
    python examples/multigrid_preconditioner.py --contrast 10000 --tiles 16 --steps 400

Trains the few weights of a multigrid cycle that knows the coefficient on small random checkerboards, by the energy of
the error that is left after some iterations. Then solves larger, unseen ones, checks their true residuals, and counts
iterations and seconds beside algebraic multigrid (pyamg), a textbook cycle for the Laplacian, and the untrained cycle.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from _command_line import run_example, shorter
from _figures import save
from _tables import markdown, save_table
from matplotlib import pyplot as plt
from torch import Tensor
from tqdm import trange

from neuralop_kit import Domain
from neuralop_kit.layers import MultigridOperator
from neuralop_kit.layers.multigrid import Chebyshev, ConditionedMultigrid, EllipticKernels
from neuralop_kit.solvers import conjugate_gradients
from neuralop_kit.solvers.pde import FiniteVolumes, RandomCheckerboard, SparseDirect
from neuralop_kit.solvers.pde.linear_solvers import sparse_matrix
from neuralop_kit.solvers.pde.network import sum_of_fluxes

# Nested points between the walls: on them the textbook cycle is symmetric, as conjugate gradients want it.
DOMAIN = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="interior")
# The tolerance of conjugate gradients is for the error in the energy norm; this one for the residual that is reported.
TOLERANCE, CERTIFIED = 1e-9, 1e-6


@dataclass(frozen=True)
class Settings:
    """What to learn on, and what to solve.

    Args:
        contrast: of the two materials.
        tiles: of the checkerboard per side.
        train_resolution: points per side of the media that the weights are trained on.
        test_resolutions: of those that are solved.
        samples: media per test resolution.
        steps: of Adam.
        iterations: of conjugate gradients after which the remaining error is the loss.
        sweeps: of the cycle, before and after its coarse correction.
        learning_rate: of Adam, falling to zero.
        seed: of the media and the errors.
        out: where the results go.
        quick: fewer steps, one resolution.
    """

    contrast: float = 1000.0
    tiles: int = 16
    train_resolution: int = 63
    test_resolutions: tuple[int, ...] = (63, 127, 255)
    samples: int = 8
    steps: int = 150
    iterations: int = 12
    sweeps: int = 3
    learning_rate: float = 0.03
    seed: int = 0
    out: Path = Path("results/multigrid_preconditioner")
    quick: bool = False


def remaining_error(layer: ConditionedMultigrid, a: Tensor, error: Tensor, *, iterations: int) -> Tensor:
    """Mean logarithm of the energy that conjugate gradients leave of an error, ``(batch, *unknowns)``."""
    network = layer.scheme.network(a[:, 0])
    cycle = layer.cycle(a)

    def energy_product(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(dim=(1, 2), keepdim=True)

    residual = sum_of_fluxes(network.fluxes(error))
    first = energy_product(error, residual)
    direction = cycle(residual)
    for _ in range(iterations):
        image = sum_of_fluxes(network.fluxes(direction))
        curvature = energy_product(direction, image)
        step = energy_product(direction, residual) / curvature
        error, residual = error - step * direction, residual - step * image
        corrected = cycle(residual)
        direction = corrected - direction * energy_product(corrected, image) / curvature
    return (energy_product(error, residual) / first).log().mean()


def train(layer: ConditionedMultigrid, media: RandomCheckerboard, settings: Settings) -> list[float]:
    """The loss of every step; the weights of ``layer`` are trained."""
    generator = torch.Generator().manual_seed(settings.seed)
    n = settings.train_resolution
    optimizer = torch.optim.Adam(layer.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    losses = []
    for _ in trange(settings.steps, desc="training", leave=False):
        a = media.sample(4, (n, n), generator=generator, dtype=torch.float64)
        error = torch.randn(4, n, n, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            error = layer.cycle(a)(error)  # the errors that count are those a cycle leaves: smooth within materials
        loss = remaining_error(layer, a, error, iterations=settings.iterations)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def with_conjugate_gradients(prepare: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> Callable[..., tuple]:
    """A solver for all media at once: ``prepare(a)`` gives the preconditioner."""

    def solve(a: Tensor) -> tuple[Tensor, list[int]]:
        network, load = FiniteVolumes(DOMAIN).system(a[:, 0], torch.ones_like(a[:, 0]), None)
        u, info = conjugate_gradients(
            network.apply, load, preconditioner=prepare(a), rtol=TOLERANCE, max_iterations=2000
        )
        info.raise_if_failed()
        return u, info.iterations.tolist()

    return solve


def algebraic(a: Tensor) -> tuple[Tensor, list[int]]:
    """Ruge-Stueben multigrid with conjugate gradients, one medium after the other."""
    import pyamg

    network, load = FiniteVolumes(DOMAIN).system(a[:, 0], torch.ones_like(a[:, 0]), None)
    solutions, counts = [], []
    for i in range(len(a)):
        hierarchy = pyamg.ruge_stuben_solver(sparse_matrix(network, i).tocsr())
        residuals: list[float] = []
        u = hierarchy.solve(load[i].numpy().ravel(), tol=TOLERANCE, accel="cg", residuals=residuals, maxiter=200)
        solutions.append(torch.from_numpy(u).view_as(load[i]))
        counts.append(len(residuals) - 1)
    return torch.stack(solutions), counts


def textbook(levels: int) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
    """A V-cycle for the Laplacian, which does not know the coefficient: iterations grow with the contrast's root."""
    cycle = MultigridOperator(
        1, 1, levels, domain=DOMAIN, coarsest=4, smoother=Chebyshev(), fine_levels="repeat",
        initialization=EllipticKernels(),
    ).double()  # fmt: skip

    @torch.no_grad()
    def apply(residual: Tensor) -> Tensor:
        return cycle(residual[:, None])[:, 0]

    return lambda a: apply


def measure(name: str, solve: Callable[..., tuple], a: Tensor, exact: Tensor) -> dict[str, str | int | float]:
    """Iterations, seconds for all media, and the two errors that say whether it solved anything."""
    began = time.perf_counter()
    u, iterations = solve(a)
    seconds = time.perf_counter() - began
    network, load = FiniteVolumes(DOMAIN).system(a[:, 0], torch.ones_like(a[:, 0]), None)
    residual = (load - network.apply(u)).flatten(1).norm(dim=1) / load.flatten(1).norm(dim=1)
    error = (u - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    return {
        "resolution": a.shape[-1],
        "preconditioner": name,
        "iterations (mean)": sum(iterations) / len(iterations),
        "iterations (most)": max(iterations),
        "seconds": seconds,
        "true residual": residual.max().item(),
        "error": error.max().item(),
    }


def main(settings: Settings) -> None:
    """Train, solve, draw."""
    if settings.quick:
        settings = shorter(settings, steps=60, test_resolutions=(63, 127), samples=4)
    media = RandomCheckerboard(DOMAIN, tiles=(settings.tiles,) * 2, high=settings.contrast)
    torch.manual_seed(settings.seed)
    untrained, learned = (
        ConditionedMultigrid(1, 1, 5, domain=DOMAIN, sweeps=settings.sweeps).double() for _ in range(2)
    )
    losses = train(learned, media, settings)
    solvers: dict[str, Callable[..., tuple]] = {
        "pyamg, Ruge-Stueben": algebraic,
        "multigrid, untrained": with_conjugate_gradients(untrained.as_preconditioner),
        "multigrid, learned": with_conjugate_gradients(learned.as_preconditioner),
    }
    rows = []
    for n in settings.test_resolutions:
        a = media.sample(settings.samples, (n, n), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        network, load = FiniteVolumes(DOMAIN).system(a[:, 0], torch.ones_like(a[:, 0]), None)
        exact, _ = SparseDirect().solve(network, load)
        # Hundreds of iterations: enough to see once.
        if n == min(settings.test_resolutions):
            cycle = with_conjugate_gradients(textbook(levels=((n + 1) // 4).bit_length()))
            rows.append(measure("textbook cycle for the Laplacian", cycle, a, exact))
        for name, solve in solvers.items():
            rows.append(measure(name, solve, a, exact))
    failed = [row for row in rows if not row["true residual"] < CERTIFIED]
    if failed:
        raise SystemExit(f"expected true residuals below {CERTIFIED}, got {failed}")
    save_table(settings.out, rows, settings=asdict(settings))
    draw(settings.out / "preconditioner.png", a[0, 0], exact[0], losses, rows)
    print(f"\n{markdown(rows)}\n\nTable and picture are in {settings.out}")


def draw(path: Path, a: Tensor, u: Tensor, losses: list[float], rows: list[dict[str, str | int | float]]) -> None:
    """A medium, its pressure, the loss, and iterations over the resolution."""
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.4), layout="constrained")
    axes[0].imshow(a.log10().T.numpy(), origin="lower", cmap="cividis")
    axes[0].set(title="log10 of the permeability", xticks=[], yticks=[])
    axes[1].imshow(u.T.numpy(), origin="lower", cmap="viridis")
    axes[1].set(title="pressure", xticks=[], yticks=[])
    axes[2].plot(losses)
    axes[2].set(title="training", xlabel="step", ylabel="log of the energy left")
    resolutions = sorted({row["resolution"] for row in rows})
    for name in dict.fromkeys(row["preconditioner"] for row in rows):
        own = [row for row in rows if row["preconditioner"] == name]
        if len(own) == 1 < len(resolutions):
            continue  # the textbook cycle's hundreds would hide the others
        axes[3].plot([r["resolution"] for r in own], [r["iterations (mean)"] for r in own], "o-", label=name)
    axes[3].set(title="iterations to 1e-9", xlabel="points per side", xticks=resolutions, ylim=(0, None))
    axes[3].legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    run_example(main, Settings, __doc__)
