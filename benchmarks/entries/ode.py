"""Integrators: what a trial step costs, forward and with gradients, against those of torch and JAX."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import Setting, Study
from benchmarks.entry import Row
from neuralop_kit.solvers.ode import Dopri5, odeint

TOLERANCE = 1e-6


class Case(NamedTuple):
    """A field, where its batch begins, and how far it goes; ``in_jax`` is the same field as ``f(parameters, y)``."""

    name: str
    field: nn.Module
    y0: Tensor
    end: float
    in_jax: Callable[[Sequence[Any], Any], Any]


class Solved(NamedTuple):
    """States at the end, and how many trial steps the loop took."""

    y: Tensor
    trials: int


# Solves the case; with True also finds the gradients by the state and the parameters.
Solve = Callable[[bool], Solved]


class VanDerPol(nn.Module):
    """x' = v, v' = mu (1 - x^2) v - x."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope."""
        x, v = y[:, :1], y[:, 1:]
        return torch.cat([v, self.mu * (1 - x * x) * v - x], dim=1)


class Network(nn.Sequential):
    """A small network as a field."""

    def __init__(self, size: int, width: int) -> None:
        layers = (nn.Linear(size, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, size))
        super().__init__(*layers)
        self.double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope."""
        return super().forward(y)


def van_der_pol_in_jax(parameters: Sequence[Any], y: Any) -> Any:
    """Of one sample."""
    import jax.numpy as jnp

    return jnp.stack([y[1], parameters[0] * (1 - y[0] ** 2) * y[1] - y[0]])


def network_in_jax(parameters: Sequence[Any], y: Any) -> Any:
    """Of one sample."""
    import jax.numpy as jnp

    first, first_bias, second, second_bias, third, third_bias = parameters
    return third @ jnp.tanh(second @ jnp.tanh(first @ y + first_bias) + second_bias) + third_bias


def cases(batch: int, setting: Setting) -> Iterator[Case]:
    """Both fields, 256 samples each in the note's setting."""
    generator = setting.generator()
    angle = torch.arange(batch, dtype=torch.float64) * (2 * math.pi / batch)
    ring = torch.stack([2 * torch.cos(angle), 2 * torch.sin(angle)], dim=1)
    yield Case("van der Pol", VanDerPol(), ring, 10.0, van_der_pol_in_jax)
    with torch.random.fork_rng():
        torch.manual_seed(setting.seed)
        network = Network(8, 64)
    yield Case("network", network, torch.randn(batch, 8, generator=generator, dtype=torch.float64), 1.0, network_in_jax)


# ---- who solves


def through(case: Case, solve: Callable[[Tensor], Solved]) -> Solve:
    """A solver that autograd sees through."""
    leaves = tuple(case.field.parameters())

    def run(with_gradients: bool) -> Solved:
        if not with_gradients:
            with torch.no_grad():
                return solve(case.y0)
        y0 = case.y0.clone().requires_grad_()
        solved = solve(y0)
        torch.autograd.grad(solved.y.sum(), [y0, *leaves])
        return solved

    return run


def ours(case: Case, *, control: str, compiled: bool) -> Solve:
    """The pair of Dormand and Prince, like everybody here."""
    method, t = Dopri5(compile=compiled), torch.tensor([0.0, case.end], dtype=torch.float64)

    def solve(y0: Tensor) -> Solved:
        solution = odeint(
            case.field, y0, t, method=method, rtol=TOLERANCE, atol=TOLERANCE, control=control, max_steps=10_000
        )
        stats = solution.stats
        return Solved(solution.ys[-1], int((stats.num_accepted + stats.num_rejected).max()))

    return through(case, solve)


def torchdiffeq(case: Case) -> Solve:
    """One step size for the batch."""
    import torchdiffeq as peer

    t = torch.tensor([0.0, case.end], dtype=torch.float64)
    calls = [0]

    def field(t: Tensor, y: Tensor) -> Tensor:
        calls[0] += 1
        return case.field(t, y)

    def solve(y0: Tensor) -> Solved:
        calls[0] = 0
        y = peer.odeint(field, y0, t, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")[-1]
        # Two evaluations choose the first step, six make a trial step.
        return Solved(y, (calls[0] - 2) // 6)

    return through(case, solve)


def torchode(case: Case, *, compiled: bool) -> Solve:
    """A step size per sample, step sizes constant in the gradient as in ours."""
    import torchode as peer

    term = peer.ODETerm(case.field)
    controller = peer.IntegralController(atol=TOLERANCE, rtol=TOLERANCE, term=term)
    solver = peer.AutoDiffAdjoint(peer.Dopri5(term=term), controller, backprop_through_step_size_control=False)
    solve_all = torch.compile(solver.solve) if compiled else solver.solve
    times = torch.tensor([0.0, case.end], dtype=torch.float64).expand(len(case.y0), 2).contiguous()

    def solve(y0: Tensor) -> Solved:
        solution = solve_all(peer.InitialValueProblem(y0=y0, t_eval=times))
        return Solved(solution.ys[:, -1], int(solution.stats["n_steps"].max()))

    return through(case, solve)


def diffrax(case: Case) -> Solve:
    """A step size per sample, all of the solve compiled by XLA."""
    import diffrax as peer
    import jax
    import jax.numpy as jnp

    def one(parameters: Sequence[Any], y0: Any) -> Any:
        solution = peer.diffeqsolve(
            peer.ODETerm(lambda t, y, args: case.in_jax(args, y)),
            peer.Dopri5(),
            0.0,
            case.end,
            None,
            y0,
            parameters,
            stepsize_controller=peer.PIDController(rtol=TOLERANCE, atol=TOLERANCE),
            max_steps=4096,
        )
        return solution.ys[0], solution.stats["num_steps"]

    def total(parameters: Sequence[Any], y0: Any) -> Any:
        y, steps = jax.vmap(one, (None, 0))(parameters, y0)
        return y.sum(), (y, steps)

    with jax.enable_x64(True):
        parameters = [jnp.asarray(p.detach().numpy()) for p in case.field.parameters()]
        y0 = jnp.asarray(case.y0.numpy())
        forward, both = jax.jit(total), jax.jit(jax.grad(total, (0, 1), has_aux=True))

    def run(with_gradients: bool) -> Solved:
        with jax.enable_x64(True):
            _, (y, steps) = jax.block_until_ready((both if with_gradients else forward)(parameters, y0))
        return Solved(torch.tensor(y.tolist(), dtype=torch.float64), int(steps.max()))

    return run


SOLVERS: Mapping[str, Callable[[Case], Solve]] = {
    "torchdiffeq": torchdiffeq,
    "torchode": lambda case: torchode(case, compiled=False),
    "torchode compiled": lambda case: torchode(case, compiled=True),
    "diffrax": diffrax,
    "ours, joint": lambda case: ours(case, control="joint", compiled=False),
    "ours, per sample": lambda case: ours(case, control="per_sample", compiled=False),
    "ours, joint, compiled": lambda case: ours(case, control="joint", compiled=True),
    "ours, per sample, compiled": lambda case: ours(case, control="per_sample", compiled=True),
}


# ---- how they are measured


@dataclass(frozen=True)
class Size:
    """How many samples, and how often each solve is repeated."""

    batch: int
    repetitions: int


def contest(size: Size, setting: Setting) -> Iterator[Row]:
    """Least processor time of several interleaved repetitions, per trial step: a busy machine disturbs it least."""
    for case in cases(size.batch, setting):
        t = torch.tensor([0.0, case.end], dtype=torch.float64)
        with torch.no_grad():
            exact = odeint(case.field, case.y0, t, method="dopri8", rtol=1e-12, atol=1e-12).ys[-1]
        solvers = available(case)
        times = [least_times(solvers, size.repetitions, with_gradients=flag) for flag in (False, True)]
        for name, solve in solvers.items():
            solved = solve(False)
            forward, both = (found[name] * 1e6 / solved.trials for found in times)
            first, first_both = (found["torchdiffeq"] * 1e6 / solvers["torchdiffeq"](False).trials for found in times)
            yield {
                "field": case.name,
                "solver": name,
                "trials": solved.trials,
                "forward": round(forward, 1),
                "with gradients": round(both, 1),
                "times torchdiffeq": round(first / forward, 2),
                "times, with gradients": round(first_both / both, 2),
                "error": (solved.y - exact).abs().max().item(),
            }


def available(case: Case) -> dict[str, Solve]:
    """Every solver that is installed, warm."""
    found = {}
    for name, make in SOLVERS.items():
        try:
            found[name] = make(case)
        except ImportError:
            continue
        for with_gradients in (False, True, False, True):
            found[name](with_gradients)
    return found


def least_times(solvers: Mapping[str, Solve], repetitions: int, *, with_gradients: bool) -> dict[str, float]:
    """Seconds of processor time."""
    times = dict.fromkeys(solvers, math.inf)
    for _ in range(repetitions):
        for name, solve in solvers.items():
            begin = time.process_time()
            solve(with_gradients)
            times[name] = min(times[name], time.process_time() - begin)
    return times


def shortcomings(rows: Sequence[Row]) -> list[str]:
    """Accuracy like that of the peers; step counts within a tenth of theirs."""
    complaints = []
    for row in rows:
        peers = [
            peer
            for peer in rows
            if peer["field"] == row["field"]
            and (peer["solver"] == "torchdiffeq" if "joint" in str(row["solver"]) else peer["solver"] == "torchode")
        ]
        for peer in peers if str(row["solver"]).startswith("ours") else []:
            if row["error"] > 3 * peer["error"]:
                complaints.append(f"{row['solver']} on {row['field']}: error {row['error']:.1e}, {peer['error']:.1e}")
            if abs(row["trials"] - peer["trials"]) > max(0.1 * peer["trials"], 2):
                complaints.append(f"{row['solver']} on {row['field']}: {row['trials']} steps, {peer['trials']}")
    return complaints


TRIAL_STEP = Study(
    name="solvers/ode_trial_step",
    run=contest,
    columns=(
        "field", "solver", "trials", "forward", "with gradients", "times torchdiffeq", "times, with gradients", "error",
    ),
    full=Size(batch=256, repetitions=9),
    check=shortcomings,
    caption="Microseconds of processor time per trial step of Dormand and Prince's pair at 1e-6, 256 samples, float64, "
    "least of several interleaved runs; how many times faster than torchdiffeq, aims 2 eager and 8 compiled; largest "
    "error against a solve at 1e-12. Step sizes are constants in every gradient, in diffrax as it is.",
)  # fmt: skip
