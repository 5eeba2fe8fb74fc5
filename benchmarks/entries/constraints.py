"""Least squares and quadratic programs, a batch at once, against good solvers item by item."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from benchmarks import AgainstPeer, AgainstReference, Call, Comparison, ForwardBackward, Study
from benchmarks.entry import Row
from benchmarks.settings import Setting
from neuralop_kit.solvers import levenberg_marquardt, solve_qp
from neuralop_kit.solvers.optimization import LinearRows, PointwiseProblem

RIDGE = 1e-8
Vector = Callable[[np.ndarray], np.ndarray]


def burgers(u: Tensor, u_t: Tensor, u_x: Tensor, u_xx: Tensor) -> Tensor:
    """Residual of Burgers' equation."""
    return u_t + u * u_x - 0.05 * u_xx


@dataclass(frozen=True)
class BurgersCase:
    """Coefficients of random Fourier modes in space and decays in time; PDE at points, initial values as rows."""

    batch: int
    num_points: int
    num_basis: int = 16
    num_initial: int = 32

    def inputs(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Terms ``(batch, 4, points, basis)``, initial rows and initial values, in float64."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        decay, wave, phase = (uniform(self.batch, 1, self.num_basis) for _ in range(3))
        decay, wave, phase = 2 * decay, 2 * torch.pi * (1 + (3 * wave).floor()), 2 * torch.pi * phase
        t, x = uniform(2, self.batch, self.num_points, 1)
        envelope, angle = torch.exp(-decay * t), wave * x + phase
        u, slope = envelope * torch.sin(angle), envelope * wave * torch.cos(angle)
        line = torch.linspace(0, 1, self.num_initial, dtype=torch.float64).view(1, -1, 1)
        scale = (20 / self.num_initial) ** 0.5
        values = scale * torch.sin(2 * torch.pi * (line[..., 0] + uniform(self.batch, 1)))
        return (
            torch.stack([u, -decay * u, slope, -(wave**2) * u], dim=1),
            scale * torch.sin(wave * line + phase),
            values,
        )


def problem(terms: Tensor, rows: Tensor, values: Tensor) -> PointwiseProblem:
    """The mean square of the residual, the initial values, a little ridge."""
    weights = torch.full_like(terms[:, 0, :, 0], terms.shape[2] ** -0.5)
    ridge = torch.full_like(values[:, 0], RIDGE)
    return PointwiseProblem(burgers, terms, weights=weights, linear=LinearRows(rows, values), ridge=ridge)


def batched(case: BurgersCase) -> Callable[..., Tensor]:
    """All items at once; the fields at the points. No derivatives, which the peers have none of."""

    def solve(*data: Tensor) -> Tensor:
        w, _ = levenberg_marquardt(problem(*data), torch.zeros_like(data[0][:, 0, 0]), differentiation=None)
        return torch.einsum("bmn,bn->bm", data[0][:, 0], w)

    return solve


def minpack(rows_of: Callable[..., tuple[Vector, Vector]]) -> Callable[[BurgersCase], Callable[..., Tensor]]:
    """Item by item with MINPACK's Levenberg-Marquardt; ``rows_of`` makes residual and Jacobian of one item."""

    def make(case: BurgersCase) -> Callable[..., Tensor]:
        def field(*item: Tensor) -> Tensor:
            residual, jacobian = rows_of(*item)
            start = np.zeros(case.num_basis)
            options = {"method": "lm", "x_scale": "jac", "xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-10}
            w = scipy.optimize.least_squares(residual, start, jac=jacobian, **options).x
            return item[0][0] @ torch.from_numpy(w)

        return lambda *data: torch.stack([field(*item) for item in zip(*data, strict=True)])

    return make


def by_hand(terms: Tensor, rows: Tensor, values: Tensor) -> tuple[Vector, Vector]:
    """Residual and Jacobian written out in numpy, and what is linear in the equation summed up beforehand."""
    b, b_t, b_x, b_xx = terms.numpy()
    initial, wanted = rows.numpy(), values.numpy()
    linear, weight, ridge = b_t - 0.05 * b_xx, len(b) ** -0.5, RIDGE**0.5

    def residual(w: np.ndarray) -> np.ndarray:
        return np.concatenate([weight * (linear @ w + (b @ w) * (b_x @ w)), initial @ w - wanted, ridge * w])

    def jacobian(w: np.ndarray) -> np.ndarray:
        points = linear + (b_x @ w)[:, None] * b + (b @ w)[:, None] * b_x
        return np.concatenate([weight * points, initial, ridge * np.eye(len(w))])

    return residual, jacobian


def by_torch(terms: Tensor, rows: Tensor, values: Tensor) -> tuple[Vector, Vector]:
    """The residual as a user writes it, for any equation, and its Jacobian in forward mode."""
    scale = terms.shape[1] ** -0.5

    def residual(w: Tensor) -> Tensor:
        return torch.cat([scale * burgers(*(terms @ w)), rows @ w - values, RIDGE**0.5 * w])

    jacobian = torch.func.jacfwd(residual)
    return lambda w: residual(torch.from_numpy(w)).numpy(), lambda w: jacobian(torch.from_numpy(w)).numpy()


def least_squares(case: BurgersCase, name: str, peer: Callable[..., Any], *, quick: bool) -> Comparison:
    """One size, one way to give scipy its residual."""
    return Comparison(
        name=f"constraints/least_squares_{name}/{case.batch}x{case.num_points}points-basis{case.num_basis}",
        ours=batched,
        peer=minpack(peer),
        peer_name=f"scipy item by item, derivatives {name.replace('_', ' ')}",
        case=case,
        measure=(Call(),),
        accuracy=AgainstPeer(tolerance=1e-6),
        target=20.0,
        quick=quick,
    )


MANY_SMALL, FEWER, LARGE = BurgersCase(1024, 32, 8, 16), BurgersCase(256, 128), BurgersCase(64, 512)
FEW = BurgersCase(64, 128)
LEAST_SQUARES = [
    least_squares(MANY_SMALL, "by_hand", by_hand, quick=True),
    least_squares(FEWER, "by_hand", by_hand, quick=True),
    least_squares(LARGE, "by_hand", by_hand, quick=False),
    least_squares(FEW, "by_torch", by_torch, quick=True),
    least_squares(FEWER, "by_torch", by_torch, quick=False),
    least_squares(LARGE, "by_torch", by_torch, quick=False),
]


@dataclass(frozen=True)
class PointCounts:
    """How many points per problem, and how often each is timed."""

    num_points: tuple[int, ...]
    batch: int = 4
    repetitions: int = 3


def cost_of_points(size: PointCounts, setting: Setting) -> Iterator[Row]:
    """Processor time per iteration; the busiest machine cannot add to it what another process does."""
    for num_points in size.num_points:
        case = BurgersCase(size.batch, num_points)
        inputs = case.inputs(torch.Generator().manual_seed(setting.seed))
        times = []
        for _ in range(size.repetitions):
            start = time.process_time()
            _, info = levenberg_marquardt(problem(*inputs), torch.zeros_like(inputs[0][:, 0, 0]), differentiation=None)
            times.append(time.process_time() - start)
        iterations = int(info.iterations.max())
        yield {
            "points": num_points,
            "converged": float(info.converged.double().mean()),
            "iterations": iterations,
            "ms per iteration": 1e3 * min(times) / iterations,
            "us per iteration and point": 1e6 * min(times) / (iterations * num_points * size.batch),
        }


def grows_linearly(rows: Any) -> list[str]:
    """Time per point of the largest problem against that of one ten times smaller; more than twice is not linear."""
    small, large = rows[-2]["us per iteration and point"], rows[-1]["us per iteration and point"]
    return [] if large < 2 * small else [f"a point costs {large / small:.2f} times more in the largest problem"]


POINTS = Study(
    name="constraints/cost_of_points",
    run=cost_of_points,
    columns=("points", "converged", "iterations", "ms per iteration", "us per iteration and point"),
    quick=PointCounts((100, 1_000, 10_000, 100_000)),
    check=grows_linearly,
    caption="Levenberg-Marquardt on Burgers' equation, 4 problems, 16 basis functions: time is linear in the points.",
)


@dataclass(frozen=True)
class ProgramCase:
    """Random feasible programs; the linear part of the objective varies, as a network's output would."""

    batch: int
    size: int

    def inputs(self, generator: torch.Generator) -> tuple[Tensor]:
        """The linear parts, in float64."""
        return (3 * torch.randn(self.batch, self.size, generator=generator, dtype=torch.float64),)

    def matrices(self) -> tuple[Tensor, ...]:
        """``Q, A, b, G, h``, shared by all items."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        root, inside = normal(self.size, 2 * self.size), normal(self.size)
        a, g = normal(self.size // 8, self.size), normal(self.size, self.size)
        return root @ root.mT / self.size, a, a @ inside, g, g @ inside + 0.5


def program(case: ProgramCase) -> Callable[[Tensor], Tensor]:
    """All items at once."""
    q, a, b, g, h = case.matrices()
    return lambda f: solve_qp(q, f, A=a, b=b, G=g, h=h)[0]


def convex_layer(case: ProgramCase) -> Callable[[Tensor], Tensor]:
    """cvxpylayers, with tolerances that make its answer comparable."""
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    q, a, b, g, h = (m.numpy() for m in case.matrices())
    x, f = cp.Variable(case.size), cp.Parameter(case.size)
    root = np.linalg.cholesky(q).T
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(root @ x) + f @ x), [a @ x == b, g @ x <= h])
    layer = CvxpyLayer(problem, parameters=[f], variables=[x])
    return lambda f: layer(f, solver_args={"eps": 1e-9})[0]


def one_by_one(case: ProgramCase) -> Callable[[Tensor], Tensor]:
    """Our own solver in a loop over the items: what the batch is worth."""
    solve = program(case)
    return lambda f: torch.cat([solve(item) for item in f.split(1)])


def by_clarabel(case: ProgramCase) -> Callable[[Tensor], Tensor]:
    """The solutions once more, by an independent interior-point method with tight tolerances."""

    def reference(f: Tensor) -> Tensor:
        import cvxpy as cp

        q, a, b, g, h = (m.numpy() for m in case.matrices())
        x, parameter = cp.Variable(case.size), cp.Parameter(case.size)
        objective = cp.Minimize(0.5 * cp.quad_form(x, cp.psd_wrap(q)) + parameter @ x)
        problem, solutions = cp.Problem(objective, [a @ x == b, g @ x <= h]), []
        for row in f.detach().cpu().numpy():
            parameter.value = row
            problem.solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
            solutions.append(x.value)
        return torch.from_numpy(np.stack(solutions))

    return reference


def programs(
    case: ProgramCase, peer: Callable[..., Any], peer_name: str, *, quick: bool, requires: str = ""
) -> Comparison:
    """One size, one peer."""
    subject = peer_name.replace(" ", "_")
    return Comparison(
        name=f"constraints/quadratic_program_{subject}/batch{case.batch}-n{case.size}",
        ours=program,
        peer=peer,
        peer_name=peer_name,
        peer_requires=requires,
        case=case,
        measure=(ForwardBackward(),),
        accuracy=AgainstReference(by_clarabel(case), tolerance=1e-6),
        quick=quick,
    )


SMALL, WIDE = ProgramCase(64, 32), ProgramCase(256, 64)
PROGRAMS = [
    programs(SMALL, convex_layer, "cvxpylayers", requires="cvxpylayers>=1.2", quick=True),
    programs(WIDE, convex_layer, "cvxpylayers", requires="cvxpylayers>=1.2", quick=False),
    programs(SMALL, one_by_one, "ours item by item", quick=True),
]
