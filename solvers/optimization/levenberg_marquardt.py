"""Levenberg-Marquardt for a batch of independent nonlinear least-squares problems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.optimization.hessian import HessianFactor
from neuralop_kit.solvers.optimization.implicit import Differentiation, Reattachment, attach_where
from neuralop_kit.solvers.optimization.polish import Final, polished
from neuralop_kit.solvers.optimization.problem import DenseProblem, LeastSquaresProblem
from neuralop_kit.solvers.optimization.steps import (
    Linearization,
    StepSolver,
    default_steps,
)
from neuralop_kit.solvers.optimization.transforms import refuse_vmap
from neuralop_kit.solvers.status import SolveInfo, Status

_DEFAULT = Reattachment()


@dataclass(frozen=True)
class LeastSquaresInfo(SolveInfo):
    """Report of a least-squares solve; every attribute has shape ``(batch,)``.

    Args:
        status: values of :class:`Status`, int64.
        iterations: accepted and rejected steps of each item, int64.
        residual_norm: ``|r(w)|`` of what is returned.
        slope: largest cosine between ``r`` and a column of the Jacobian: zero at a stationary point, free of scales.
        condition: of the equilibrated Hessian; infinity where it is not positive definite.
        is_damped: items whose derivatives are those of a damped problem, because the condition number is too large.
    """

    slope: Tensor
    condition: Tensor
    is_damped: Tensor


@dataclass(frozen=True)
class Minimum:
    """Where :meth:`LevenbergMarquardt.minimize` arrived: ``w`` without derivatives, factor of the Hessian, report."""

    w: Tensor
    factor: HessianFactor
    info: LeastSquaresInfo


def levenberg_marquardt(
    residual: LeastSquaresProblem | Callable[[Tensor], Tensor],
    w0: Tensor,
    *,
    gtol: float | None = None,
    max_iterations: int = 100,
    polish: int = 2,
    steps: Sequence[StepSolver] | None = None,
    check_every: int | None = None,
    differentiation: Differentiation | None = _DEFAULT,
) -> tuple[Tensor, LeastSquaresInfo]:
    """Minimise ``1/2 |r(w)|^2`` item by item; the result is a differentiable function of the problem's data.

        step = -(J^T J + mu diag(J^T J))^-1 J^T r

    An item stops when ``max_j |J_j . r| <= gtol |J_j| |r|``, plus what rounding makes of it: no scale enters. Its
    damping ``mu`` follows the ratio of actual to predicted decrease; items that have stopped are frozen, and leave the
    batch once they are a quarter of it. Near the minimum the exact Hessian takes over, and Newton steps bring the
    gradient down to rounding: the implicit function theorem holds where it is zero.

    Args:
        residual: a :class:`LeastSquaresProblem`, or a function ``(batch, num_unknowns) -> (batch, num_rows)`` whose
            items do not depend on each other.
        w0: start, shape ``(batch, num_unknowns)``; no derivative passes through it.
        gtol: positive; by default ``eps^(2/3)``, 4e-11 in float64.
        max_iterations: at least 1, of each item.
        polish: Newton steps at the end, at most.
        steps: solvers that follow each other, each with an equal share of ``max_iterations``; by default
            :class:`NormalEquations`, then :class:`ExactHessian`, at last :class:`OrthogonalFactors`, which alone is
            used in float32.
        check_every: iterations between two looks at the mask (each waits for the device), by default 1 on CPU, else 4.
        differentiation: how derivatives are made; None for none. Items that did not converge have none.

    Returns:
        ``w`` and a :class:`LeastSquaresInfo`. Where the data are not finite, ``w`` is ``w0`` and the status says so.

    Raises:
        ArgumentError: a number is out of range, or ``torch.func.vmap`` hides samples of the data. ShapeError: ``w0`` is
            not a matrix.

    Source: Marquardt (1963); damping of Nielsen (1999), IMM-REP-1999-05, which may fall faster here; test of More
    (1978), MINPACK.

    >>> target = torch.tensor([[2.0], [3.0]], dtype=torch.float64, requires_grad=True)
    >>> w, info = levenberg_marquardt(lambda w: w**2 - target, torch.ones(2, 1, dtype=torch.float64))
    >>> (w**2 - target).abs().max().item() < 1e-12, info.converged
    (True, tensor([True, True]))
    >>> torch.autograd.grad(w.sum(), target)[0] * 2 * w  # d sqrt(t) / dt = 1 / (2 sqrt(t))
    tensor([[1.0000],
            [1.0000]], dtype=torch.float64, grad_fn=<MulBackward0>)
    """
    problem = residual if isinstance(residual, LeastSquaresProblem) else DenseProblem(residual, w0.shape[0])
    solver = LevenbergMarquardt(gtol, max_iterations, polish, steps, check_every)
    minimum = solver.minimize(problem, w0)
    if differentiation is None:
        return minimum.w, minimum.info
    return attach_where(differentiation, problem, minimum.w, minimum.factor, minimum.info.converged), minimum.info


@dataclass(frozen=True)
class LevenbergMarquardt:
    """The solver of :func:`levenberg_marquardt` as an object, without derivatives; the arguments are those."""

    gtol: float | None = None
    max_iterations: int = 100
    polish: int = 2
    steps: Sequence[StepSolver] | None = None
    check_every: int | None = None

    def __post_init__(self) -> None:
        if self.max_iterations < 1 or self.polish < 0 or (self.gtol is not None and not self.gtol > 0):
            raise ArgumentError(
                f"expected max_iterations >= 1, polish >= 0, gtol > 0, got {self.max_iterations}, {self.polish}, "
                f"{self.gtol}; correct them"
            )

    def minimize(self, problem: LeastSquaresProblem, w0: Tensor) -> Minimum:
        """Start at ``w0``, shape ``(batch, num_unknowns)``."""
        if w0.ndim != 2 or not w0.is_floating_point():
            raise ShapeError(f"expected real w0 of shape (batch, num_unknowns), got {w0.dtype} {tuple(w0.shape)}")
        refuse_vmap(w0)
        tolerance = torch.finfo(w0.dtype).eps ** (2 / 3) if self.gtol is None else self.gtol
        interval = self.check_every or (1 if w0.device.type == "cpu" else 4)
        with torch.no_grad():
            problem, w = problem.detach(), w0.detach()
            report = _Report.begin(w)
            solvers = default_steps(w.dtype) if self.steps is None else tuple(self.steps)
            for number, solver in enumerate(solvers):
                limit = self.max_iterations * (number + 1) // len(solvers)
                index = (report.unfinished & (report.iterations < limit)).nonzero().squeeze(1)
                if len(index):
                    part = problem if len(index) == len(w) else problem.take(index)
                    _run(part, report, index, _Settings(solver, tolerance, limit, interval))
            final = polished(problem, report.w, report.status == Status.CONVERGED, self.polish)
            return Minimum(final.w.detach(), final.factor, _inform(final, report))


@dataclass
class _Report:
    """Where every item of the batch stands; whoever runs a part of them writes here when they leave."""

    w: Tensor
    status: Tensor
    iterations: Tensor

    @staticmethod
    def begin(w: Tensor) -> "_Report":
        zeros = torch.zeros(len(w), dtype=torch.int64, device=w.device)
        return _Report(w.clone(), zeros + Status.MAX_ITERATIONS, zeros)

    @property
    def unfinished(self) -> Tensor:
        """Items that another way to solve may bring further."""
        return (self.status == Status.MAX_ITERATIONS) | (self.status == Status.STALLED)

    def take(self, index: Tensor) -> "_Report":
        return _Report(*(t.index_select(0, index) for t in (self.w, self.status, self.iterations)))

    def write(self, index: Tensor, part: "_Report") -> None:
        for whole, new in zip(
            (self.w, self.status, self.iterations), (part.w, part.status, part.iterations), strict=True
        ):
            whole.index_copy_(0, index, new)


@dataclass(frozen=True)
class _Settings:
    solver: StepSolver
    tolerance: float
    limit: int
    interval: int


@dataclass
class _State:
    """The items that are still being worked on, and some that have just stopped."""

    report: _Report
    linearization: Linearization
    damping: Tensor
    growth: Tensor
    active: Tensor

    def take(self, index: Tensor) -> "_State":
        tensors = (t.index_select(0, index) for t in (self.damping, self.growth, self.active))
        return _State(self.report.take(index), self.linearization.take(index), *tensors)


def _run(problem: LeastSquaresProblem, report: _Report, index: Tensor, settings: _Settings) -> None:
    """Iterate the items ``index`` of the report, whose problems are given, until they stop or reach their limit."""
    state = _begin(problem, report.take(index), settings)
    for iteration in range(settings.limit):
        if iteration % settings.interval == 0:
            num_active = int(state.active.sum())
            if num_active == 0:
                break
            if 4 * num_active <= 3 * len(index):
                report.write(index, state.report)
                kept = state.active.nonzero().squeeze(1)
                problem, state, index = problem.take(kept), state.take(kept), index.index_select(0, kept)
        _advance(problem, state, settings)
    report.write(index, state.report)


def _begin(problem: LeastSquaresProblem, report: _Report, settings: _Settings) -> _State:
    linearization = settings.solver.linearize(problem, report.w)
    refuse_vmap(linearization.cost)
    finite = linearization.is_finite
    report.status = torch.where(finite, int(Status.MAX_ITERATIONS), int(Status.INVALID_INPUT))
    damping = torch.full_like(linearization.cost, settings.solver.damping)
    state = _State(report, linearization, damping, torch.full_like(damping, 2.0), finite)
    _stop(state, settings)
    return state


def _advance(problem: LeastSquaresProblem, state: _State, settings: _Settings) -> None:
    """One step of every active item: taken if it lowers the cost, else the damping grows."""
    old, report = state.linearization, state.report
    eps = torch.finfo(report.w.dtype).eps
    diagonal = state.damping.unsqueeze(-1) * torch.where(old.squares > 0, old.squares, 1.0)
    step = settings.solver.step(old, diagonal)
    trial = report.w + step
    new = settings.solver.linearize(problem, trial)
    predicted = 0.5 * (step * (diagonal * step - old.gradient)).sum(dim=-1)
    actual = old.cost - new.cost
    # Close to the minimum the decrease drowns in what rounding makes of the residual, while the gradient still tells
    # better from worse.
    slope, rounding = old.slope(report.w)
    is_noise = actual.abs() <= (8 * eps + rounding) * old.cost
    better = torch.where(is_noise, new.slope(trial)[0] < slope, actual > 0)
    accepted = state.active & new.is_finite & better
    ratio = torch.where(is_noise | ~(predicted > 0), 1.0, actual / predicted).clamp(-10.0, 10.0)
    # At least 1/3 is usual; it holds up Newton steps, whose quadratic convergence the damping must not outlast.
    shrink = (1 - (2 * ratio - 1) ** 3).clamp_min(0.1)
    rejected = state.active & ~accepted
    state.damping = torch.where(accepted, state.damping * shrink, state.damping)
    state.damping = torch.where(rejected, state.damping * state.growth, state.damping).clamp_max(eps**-3)
    state.growth = torch.where(rejected, 2 * state.growth, 2.0).clamp_max(eps**-1)
    tiny = step.norm(dim=-1) <= eps * (report.w.norm(dim=-1) + eps)
    report.w = torch.where(accepted.unsqueeze(-1), trial, report.w)
    report.iterations = report.iterations + state.active
    state.linearization = new.where(accepted, old)
    stalled = rejected & tiny
    report.status = torch.where(stalled, int(Status.STALLED), report.status)
    state.active = state.active & ~stalled & (report.iterations < settings.limit)
    _stop(state, settings)


def _stop(state: _State, settings: _Settings) -> None:
    """Let go of items that have converged, and of those that the next solver takes over."""
    slope, rounding = state.linearization.slope(state.report.w)
    done = (slope <= settings.tolerance + rounding) & (state.report.status == Status.MAX_ITERATIONS)
    state.report.status = torch.where(done, int(Status.CONVERGED), state.report.status)
    state.active = state.active & ~done & (slope > settings.solver.handover)


def _inform(final: Final, report: _Report) -> LeastSquaresInfo:
    """The report, with residual and slope of what is returned."""
    is_flat = (report.status == Status.CONVERGED) & ~final.factor.is_definite
    return LeastSquaresInfo(
        status=torch.where(is_flat, int(Status.SINGULAR), report.status),
        iterations=report.iterations,
        residual_norm=(2 * final.linearization.cost).sqrt(),
        slope=final.linearization.slope(final.w)[0],
        condition=final.factor.condition,
        is_damped=final.factor.is_damped,
    )
