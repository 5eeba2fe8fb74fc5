"""Diffusion and sorption learned from the equation alone: a penalty, one constraint, experts."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import Setting, Study
from benchmarks.entry import Row
from benchmarks.memory import peak_bytes
from neuralop_kit import Domain
from neuralop_kit.constraints import (
    AtStart,
    AtStop,
    Coupled,
    EqualPoints,
    Equation,
    LeastSquaresConstraint,
    MixtureOfExperts,
    Overlap,
    Partition,
    RandomAssignment,
    Separate,
)
from neuralop_kit.constraints.interface import Interface
from neuralop_kit.constraints.partition import Assignment
from neuralop_kit.constraints.ranks import OneRank, Ranks
from neuralop_kit.models import FNO
from neuralop_kit.solvers.pde import DiffusionSorption
from neuralop_kit.solvers.pde.sorption import FreundlichSorption, WallValues

SOIL, DIFFUSIVITY, DURATION = FreundlichSorption(), 5e-4, 500.0
SEEN = 0.9
NUM_PARTS, NUM_FUNCTIONS, WEIGHT = 4, 12, 5.0
# Half of what is seen, in the root of time; and its end: later times have experts of their own.
TIME_CUTS = (0.45, 0.91)
CONDITIONS = (
    AtStart("initial", 0, weight=WEIGHT),
    AtStart("inflow", 1, weight=WEIGHT, target=1.0),
    AtStop("outflow", 1, (1.0, DIFFUSIVITY), weight=WEIGHT),
)
KINDS = ("soft", "global", "separate", "overlap", "coupled", "coupled in time", "random")
CHOSEN = "coupled in time"
SOFT_OVER_EXPERTS, GLOBAL_OVER_EXPERTS = 5.0, 1.5
MEASURED = ("error", "extrapolated", "held residual", "free residual", "jump", "converged", "MiB", "CPU seconds")


@dataclass(frozen=True)
class ExpertsSize:
    """Grid, points of all experts together, and training.

    The residual of these grids has an error of its own, at the corner where the front enters: 0.009 in the times that
    are seen, for the function among all that makes it smallest. After 300 steps, one constraint and coupled experts
    have come close to it (0.014 and 0.012), and nothing tells them apart any more. The network sees the start,
    one number: a single function that is good for it would do, and more coefficients help only while the network is not
    finished. After 50 steps one constraint errs by what is published for it, 7.6 %; that is where they are compared.

    Experts in columns of space use one set of coefficients for early and late times. Experts that own the late times
    are free to fit them; coupling hands them the state in which they begin, so only coupled experts can be cut in time
    (separate ones err by 0.2 to 0.3). The cut (none, 0.3, 0.45, 0.7, two), the columns, the number of functions (of 6,
    8, 10, 12, 16) and the pull on slopes (of 0.3, 1, 2, 3) were chosen on seeds 987 and 1001 to 1005 with other starts
    at 100 steps, the number of steps on seeds 2000 to 2005. There, ratios of mean errors in seen and later times were:

        steps   soft over experts   global over experts
           50       8.9, 10.4           1.8, 2.1
          100       6.8, 7.0            1.4, 2.0

    Nothing was chosen on seeds 10 to 12 (7.7, 6.6; 1.6, 1.6), and the number of steps not on seeds 0 to 2, the recorded
    ones, which after 100 steps had given 6.7, 7.5 and 1.5, 1.7.

    Six functions are too few for the experts (global over experts 1.3 and 1.2); with 16, what they reach depends on the
    seed (1.05 and 1.15). What is left is in the corner where the front enters: in the two runs looked at, a quarter
    and a half of the squared error in the times seen; of one constraint's, two fifths.
    """

    points: int
    times: int
    collocation: int
    steps: int
    batch_size: int = 4
    width: int = 24
    learning_rate: float = 2e-3
    num_tests: int = 6
    num_seeds: int = 3


def space_time(share: float) -> Domain:
    """The root of time, in units of that of 500, up to a share of it; and space.

    Fronts move with the root of time: a uniform grid in it resolves the beginning.
    """
    return Domain.box((share, 1.0), nodes=("vertex", "cell"))


def residual(u: Tensor, u_t: Tensor, u_xx: Tensor, t: Tensor) -> Tensor:
    """``2 time (R c_time - D c_xx)``: of one size everywhere, also where the front enters."""
    return t * SOIL.retardation(u) * u_t - 2 * t**2 * DURATION * DIFFUSIVITY * u_xx


def assignment(kind: str, domain: Domain) -> Assignment:
    """One box, columns of space, the same cut in time as far as the domain goes, or points at random."""
    if kind == "random":
        return RandomAssignment(domain, NUM_PARTS)
    times = tuple(cut for cut in TIME_CUTS if cut < domain.axes[0].stop) if kind == CHOSEN else 1
    return Partition(domain, (times, 1 if kind == "global" else NUM_PARTS))


def experts(
    kind: str, domain: Domain, *, collocation: int, ridge: float = 1e-8, ranks: Ranks | None = None
) -> MixtureOfExperts:
    """One constraint, or many: as published, overlapping, coupled, or with points thrown to them at random."""
    partition = assignment(kind, domain)
    # Weights of columns: among (10, 3), (10, 10), (30, 3), (30, 10) and (100, 3) on one other seed with other starts.
    interfaces: dict[str, Interface] = {
        "overlap": Overlap((0.1, 0.1)),
        "coupled": Coupled(30.0, 3.0),
        "coupled in time": Coupled(30.0, 1.0),
    }
    return MixtureOfExperts(
        LeastSquaresConstraint(residual, domain, conditions=CONDITIONS, ridge=ridge),
        partition,
        interface=interfaces.get(kind, Separate()),
        collocation=EqualPoints(collocation // partition.num_experts),
        global_conditions=kind in ("separate", "random", "overlap"),
        ranks=ranks or OneRank(),
    )


@dataclass(frozen=True)
class Outcome:
    """A field, its loss per item, and what is reported about it."""

    field: Tensor
    loss: Tensor
    report: dict[str, float]


class Model(nn.Module):
    """The network, the same for all but for its last layer, and the physics behind it."""

    def __init__(self, kind: str, size: ExpertsSize) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        self.num_seen = round((size.times - 1) * SEEN) + 1
        num_out = 1 if kind == "soft" else NUM_FUNCTIONS
        self.operator = FNO(1, num_out, domain=space_time(1.0), width=size.width, num_layers=4, modes=8)

    def forward(self, start: Tensor, *, all_times: bool, seed: int) -> Outcome:
        """Solve for the times of training, or for all; ``seed`` draws the points."""
        output = self.operator(start[:, None, None, None].expand(-1, 1, self.size.times, self.size.points))
        output = output if all_times else output[:, :, : self.num_seen]
        domain = space_time(1.0 if all_times else (self.num_seen - 1) / (self.size.times - 1))
        if self.kind == "soft":
            equation = Equation(residual, domain)
            values = equation(*equation.terms(output).squeeze(2).unbind(1), *equation.data(output, None))
            targets = (start[:, None], 1.0, 0.0)
            walls = [c.trace(output, domain).squeeze(1) - t for c, t in zip(CONDITIONS, targets, strict=True)]
            size = root_mean_square(values)
            return Outcome(output, size + sum(map(root_mean_square, walls)), {"free residual": size.mean().item()})
        layer = experts(self.kind, domain, collocation=self.size.collocation)
        solution = layer.solve(output, targets={"initial": start}, generator=generator(seed))
        values = solution.residual()
        loss = root_mean_square(values) + sum(map(root_mean_square, solution.wall_residuals()))
        members = layer.interface.members(layer.partition, output.shape[2:], output).flatten(1)
        points, _ = layer.collocation.choose(members, generator=generator(seed))
        is_held = torch.zeros(members.shape[1], dtype=torch.bool).index_fill(0, points.flatten(), True)
        held, free = (root_mean_square(values.flatten(2)[..., m]).mean().item() for m in (is_held, ~is_held))
        info = solution.info
        report = {
            "held residual": held,
            "free residual": free,
            "jump": info.jump.mean().item(),
            "converged": info.converged.double().mean().item(),
        }
        return Outcome(solution.field(), loss, report)


def root_mean_square(values: Tensor) -> Tensor:
    """Of every item."""
    return values.square().flatten(1).mean(dim=1).sqrt()


def generator(seed: int) -> torch.Generator:
    """Of starts and points, on the CPU."""
    return torch.Generator().manual_seed(seed)


def step(model: Model, optimizer: torch.optim.Optimizer, start: Tensor, seed: int) -> None:
    """One step of training."""
    optimizer.zero_grad()
    model(start, all_times=False, seed=seed).loss.mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def train(model: Model, size: ExpertsSize, seed: int) -> torch.optim.Optimizer:
    """No data: starts, and the equation."""
    optimizer = torch.optim.Adam(model.parameters(), lr=size.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.steps)
    starts = generator(seed)
    for number in range(size.steps):
        start = 0.2 * torch.rand(size.batch_size, generator=starts, dtype=torch.float64)
        step(model, optimizer, start, seed + number)
        schedule.step()
    return optimizer


def reference(start: Tensor, size: ExpertsSize) -> Tensor:
    """An implicit finite-volume solver, ``(batch, times, points)``, on the grid of roots of time."""
    number = size.times - 1
    solver = DiffusionSorption(Domain.box((1.0,), nodes="cell"), dt=DURATION / number**2, walls=WallValues())
    states = solver.rollout(start[:, None, None].expand(-1, 1, size.points), num_steps=number**2)
    return states[:, [k**2 for k in range(size.times)], 0]


def relative_error(u: Tensor, truth: Tensor, times: slice) -> float:
    """In the L2 norm of time, not of its root: ``d time = 2 t dt``."""
    weights = torch.linspace(0, 1, truth.shape[1], dtype=truth.dtype).sqrt()[times, None]
    error, norm = ((weights * v[:, times]).flatten(1).norm(dim=1) for v in (u - truth, truth))
    return (error / norm).mean().item()


def compare(size: ExpertsSize, setting: Setting) -> Iterator[Row]:
    """One row per kind of physics: means over seeds, and how far the seeds are apart."""
    start = torch.linspace(0.01, 0.19, size.num_tests, dtype=torch.float64)
    truth = reference(start, size)
    for kind in KINDS:
        results = [trained(kind, size, setting.seed + k, start, truth) for k in range(size.num_seeds)]
        yield {
            "physics": kind,
            **{name: mean([r.get(name) for r in results]) for name in MEASURED},
            "lowest": min(r["error"] or 0.0 for r in results),
            "highest": max(r["error"] or 0.0 for r in results),
        }


def mean(values: Sequence[float | None]) -> float | None:
    """Over seeds; None for what this kind does not have."""
    numbers = [v for v in values if v is not None]
    return statistics.mean(numbers) if numbers else None


def trained(kind: str, size: ExpertsSize, seed: int, start: Tensor, truth: Tensor) -> dict[str, float | None]:
    """What comes of one seed."""
    torch.manual_seed(seed)
    model, began = Model(kind, size).double(), time.process_time()
    optimizer = train(model, size, seed)
    seconds = time.process_time() - began
    with torch.no_grad():
        seen = model(start, all_times=False, seed=0)
        whole = model(start, all_times=True, seed=0)
    bytes_used = peak_bytes(lambda: step(model, optimizer, start, 0), torch.device("cpu"))
    field = torch.cat([seen.field[:, 0], whole.field[:, 0, model.num_seen :]], dim=1)
    return {
        "error": relative_error(field, truth, slice(model.num_seen)),
        "extrapolated": relative_error(field, truth, slice(model.num_seen, None)),
        **seen.report,
        "MiB": None if bytes_used is None else bytes_used / 2**20,
        "CPU seconds": seconds,
    }


def broken_promises(rows: Sequence[Row]) -> list[str]:
    """The experts that other seeds chose, against a penalty and one constraint; published: 23.9 and 2.1."""
    by_kind = {row["physics"]: row for row in rows}
    problems = []
    for column in ("error", "extrapolated"):
        values = {kind: float(row[column] or 0) for kind, row in by_kind.items()}
        best = values[CHOSEN]
        for kind, promised in (("soft", SOFT_OVER_EXPERTS), ("global", GLOBAL_OVER_EXPERTS)):
            if values[kind] < promised * best:
                problems.append(f"{column}: {kind} over experts is {values[kind] / best:.2f}, promised {promised}")
    return problems


ACCURACY = Study(
    name="constraints/experts_accuracy",
    run=compare,
    columns=("physics", "error", "lowest", "highest", *MEASURED[1:]),
    full=ExpertsSize(points=48, times=41, collocation=768, steps=50),
    check=broken_promises,
    caption=(
        "Diffusion-sorption with PDEBench's constants: the same network, points, loss and steps, without data; means "
        "over three seeds. Times up to 405 of 500 are seen. Experts own columns of space; those in time also times to "
        "101, the rest of those seen, or those after them, a setting chosen on other seeds. Published (Chalapathi et "
        "al. 2024; 4000 steps at 1024 points): soft 85.9 %, global 7.6 %, experts 3.6 %; extrapolated 806 %, 48 %, "
        "14.8 %."
    ),
)
