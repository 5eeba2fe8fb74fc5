"""Every solver in one table: seconds per simulated unit of time, at a stated error, beside an integrator of scipy's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from benchmarks import Setting, Study, semidiscrete
from benchmarks.entry import Row
from benchmarks.semidiscrete import Array, Rate
from benchmarks.timing import clock_for
from neuralop_kit import Domain
from neuralop_kit.solvers.pde import (
    Advection,
    AllenCahn,
    Burgers,
    CompressibleEuler,
    CompressibleNavierStokes,
    DiffusionSorption,
    Fisher,
    GrayScott,
    IncompressibleFlow,
    KuramotoSivashinsky,
    NavierStokes2D,
    RadialDamBreak,
    ReactionDiffusion,
    ShallowWaterSphere,
    ShockBurgers,
    TimeStepper,
    TruncatedFourier,
    Wave,
)

CIRCLE, TORUS, BOX = Domain.periodic((1.0,)), Domain.periodic((1.0, 1.0)), Domain.periodic((1.0, 1.0, 1.0))
# Tolerances of the other side, coarsest first, of which the first one that is accurate enough counts.
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
SUBSTEPS = tuple(2**k for k in range(11))
# Of the schemes that choose their own steps.
CFL, FINE_CFL = 0.4, 0.1
# Of what both are compared with.
TIGHT, FINE_STEPS = 1e-10, 128
# Highest wavenumber of smooth initial states; both sides cut products off, but not at the same waves.
WAVES = 2


@dataclass(frozen=True)
class SolverCase:
    """A solver on its own grid.

    Args:
        name: of the solver and the problem.
        make: ``(time, refinement) -> stepper`` over all of the time; the refinement is a number of steps, or a Courant
            number for schemes that choose their steps.
        shape: of the grid.
        time: to simulate.
        rate: the same equation on the same grid, for scipy; None where we have none but our own with shorter steps.
        method: of scipy's.
        smooth: whether the initial state is a sum of two waves per axis instead of the solver's own.
    """

    name: str
    make: Callable[[float, float], TimeStepper]
    shape: tuple[int, ...]
    time: float
    rate: Callable[[Sequence[int]], Rate] | None = None
    method: str = "RK45"
    smooth: bool = False


def _exact(make: Callable[..., TimeStepper]) -> Callable[[float, float], TimeStepper]:
    return lambda time, _: make(dt=time)


def _steps(make: Callable[..., TimeStepper]) -> Callable[[float, float], TimeStepper]:
    return lambda time, count: make(dt=time, num_substeps=int(count))


def _courant(make: Callable[..., TimeStepper]) -> Callable[[float, float], TimeStepper]:
    return lambda time, cfl: make(dt=time, cfl=cfl)


SPECTRAL = (
    SolverCase("Advection", _exact(partial(Advection, CIRCLE, velocity=(1.0,))), (128,), 1.0, semidiscrete.advection,
               smooth=True),
    SolverCase("Wave", _exact(partial(Wave, CIRCLE)), (128,), 1.0, semidiscrete.wave),
    SolverCase("Burgers, viscosity 0.01", _steps(partial(Burgers, CIRCLE, viscosity=0.01)), (128,), 1.0,
               semidiscrete.burgers, "LSODA", smooth=True),
    SolverCase("KuramotoSivashinsky", _steps(partial(KuramotoSivashinsky, Domain.periodic((60.0,)))), (128,), 5.0,
               semidiscrete.kuramoto_sivashinsky, "LSODA", smooth=True),
    SolverCase("Fisher", _steps(partial(Fisher, CIRCLE, diffusivity=0.5, rate=1.0)), (128,), 1.0, semidiscrete.fisher,
               "LSODA"),
    SolverCase("DiffusionSorption, implicit", _steps(partial(DiffusionSorption, Domain.box((1.0,), nodes="cell"))),
               (128,), 50.0, semidiscrete.diffusion_sorption, "LSODA"),
    SolverCase("AllenCahn", _steps(partial(AllenCahn, Domain.periodic((2 * np.pi,) * 2))), (96, 96), 0.5,
               semidiscrete.allen_cahn, smooth=True),
    SolverCase("GrayScott", _steps(partial(GrayScott, TORUS)), (64, 64), 10.0),
    SolverCase("ReactionDiffusion (FitzHugh-Nagumo)", _steps(ReactionDiffusion.pdebench), (64, 64), 0.5),
    SolverCase("NavierStokes2D, viscosity 1e-3", _steps(partial(NavierStokes2D.fno, viscosity=1e-3)), (32, 32), 2.0,
               semidiscrete.navier_stokes),
    SolverCase("ShallowWaterSphere (per second)", _steps(ShallowWaterSphere.earth), (32, 64), 3600.0),
)  # fmt: skip
ADAPTIVE = (
    SolverCase("ShockBurgers, viscosity 0.001", _courant(partial(ShockBurgers, CIRCLE, viscosity=0.001)), (512,), 0.2),
    SolverCase("CompressibleEuler, 1-D", _courant(partial(CompressibleEuler, CIRCLE)), (256,), 0.2),
    SolverCase("CompressibleEuler, 2-D", _courant(partial(CompressibleEuler, TORUS)), (32, 32), 0.2),
    SolverCase("CompressibleNavierStokes, 3-D",
               _courant(partial(CompressibleNavierStokes, BOX, shear_viscosity=0.01)), (12, 12, 12), 0.1),
    SolverCase("ShallowWater (dam break)", _courant(RadialDamBreak), (32, 32), 0.5),
    SolverCase("IncompressibleFlow",
               _courant(partial(IncompressibleFlow, Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell"),
                                viscosity=1e-3)), (32, 32), 0.5),
)  # fmt: skip


@dataclass(frozen=True)
class Accuracy:
    """What is asked for, and of how many samples at once.

    Args:
        error: relative, in the Euclidean norm over all channels, of the integration in time.
        batch: of ours; scipy has one sample, of which the time counts as often.
    """

    error: float
    batch: int


def compare(size: Accuracy, setting: Setting) -> Iterator[Row]:
    """A row per solver."""
    for case in (*SPECTRAL, *ADAPTIVE):
        u = start(case, size.batch, setting)
        one, truth = u[0].cpu().numpy(), true_end(case, u[:1])
        row = ours(case, u, truth, size, setting)
        nobody: Row = dict.fromkeys(("scipy", "its error", "its seconds per unit"))
        yield {**row, **(theirs(case, one, truth, size) if case.rate else nobody)}


def start(case: SolverCase, batch: int, setting: Setting) -> Tensor:
    """Random states."""
    stepper = case.make(case.time, CFL if case in ADAPTIVE else 1)
    draw = TruncatedFourier(stepper.domain, cutoff=WAVES).sample if case.smooth else stepper.initial_condition
    return draw(batch, case.shape, generator=setting.generator(), dtype=torch.float64).to(setting.device)


def true_end(case: SolverCase, u: Tensor) -> Array:
    """The end of the first sample, by scipy with a tight tolerance, or by ours with short steps."""
    if case.rate is None:
        return case.make(case.time, FINE_CFL if case in ADAPTIVE else FINE_STEPS).step(u)[0].cpu().numpy()
    return integrate(case, u[0].cpu().numpy(), TIGHT, method="LSODA" if case.method == "LSODA" else "DOP853")


def ours(case: SolverCase, u: Tensor, truth: Array, size: Accuracy, setting: Setting) -> Row:
    """The fewest steps that are accurate enough, by powers of two; schemes that choose their own are as they are."""
    clock = clock_for(setting.device)
    for choice in (CFL,) if case in ADAPTIVE else SUBSTEPS:
        stepper = case.make(case.time, choice)
        error = distance(stepper.step(u[:1])[0].cpu().numpy(), truth)
        if error <= size.error:
            break
    seconds = min(clock(lambda: stepper.step(u), 1) for _ in range(2)) / len(u) / case.time
    steps = "own choice" if case in ADAPTIVE else choice
    grid = "x".join(map(str, case.shape))
    return {"solver": case.name, "grid": grid, "steps": steps, "error": error, "seconds per unit": seconds}


def theirs(case: SolverCase, u: Array, truth: Array, size: Accuracy) -> Row:
    """The loosest tolerance of scipy's that is accurate enough."""
    clock = clock_for(torch.device("cpu"))
    for tolerance in TOLERANCES:
        error = distance(integrate(case, u, tolerance), truth)
        if error <= size.error:
            break
    seconds = clock(lambda: integrate(case, u, tolerance), 1) / case.time
    return {"scipy": case.method, "its error": error, "its seconds per unit": seconds}


def integrate(case: SolverCase, u: Array, tolerance: float, *, method: str | None = None) -> Array:
    """The state after all of the time."""
    rate = case.rate(case.shape)  # type: ignore[misc]
    solution = solve_ivp(
        lambda _, y: rate(y.reshape(u.shape)).ravel(), (0.0, case.time), u.ravel(), method=method or case.method,
        rtol=tolerance, atol=tolerance, t_eval=[case.time],
    )  # fmt: skip
    return solution.y[:, -1].reshape(u.shape)


def distance(u: Array, truth: Array) -> float:
    """Relative, Euclidean."""
    return float(np.linalg.norm(u - truth) / np.linalg.norm(truth))


def is_as_accurate_as_stated(rows: Sequence[Row]) -> list[str]:
    """Spectral solvers reach the error that is asked for, against an integrator that knows nothing of them."""
    limit = 1e-5
    return [
        f"{row['solver']} is {row['error']:.1e} from scipy's solution on the same grid, {limit:g} was asked for"
        for row in rows
        if row.get("scipy") and row["error"] > limit
    ]


SOLVERS = Study(
    name="solvers/every_solver",
    run=compare,
    columns=(
        "solver", "grid", "steps", "error", "seconds per unit", "scipy", "its error", "its seconds per unit",
    ),
    quick=Accuracy(error=1e-5, batch=8),
    full=Accuracy(error=1e-5, batch=16),
    check=is_as_accurate_as_stated,
    caption="Seconds per unit of simulated time and sample in float64, ours in a batch of 8 (16 in the full profile), "
    "scipy one by one, and the error of the integration in time that they buy: fewest steps below 1e-5. "
    "Beside scipy.integrate.solve_ivp on the same equation and grid, written apart; "
    "its tight solution is what both are compared with. Without scipy the error is that against shorter steps of our "
    "own; schemes that choose their steps are as they are. Darcy, and Navier-Stokes against the FNO paper's scheme, "
    "have tables of their own; Helmholtz has none.",
)  # fmt: skip
