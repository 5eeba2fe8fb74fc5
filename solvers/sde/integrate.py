"""sdeint: follow a stochastic differential equation along given Brownian paths, with adaptive steps."""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.ode.solution import Solution
from neuralop_kit.solvers.sde.brownian import BrownianPoint, BrownianTree
from neuralop_kit.solvers.sde.control import StochasticController
from neuralop_kit.solvers.sde.method import Coefficient, StochasticMethod
from neuralop_kit.solvers.sde.progress import Course, Progress, Tolerance
from neuralop_kit.solvers.sde.rossler import SOSRI

Control = Literal["per_sample", "joint"]


class BrownianPath(Protocol):
    """What drives an equation: anything that tells the path and its integral at a time, as :class:`BrownianTree` does."""

    def at(self, t: Tensor, /) -> BrownianPoint:
        """The path at ``t``, ``(batch,)`` or ``(1,)``; both parts of the shape of the state."""


def sdeint(
    drift: Coefficient,
    diffusion: Coefficient,
    y0: Tensor,
    t: Tensor,
    *,
    method: StochasticMethod | None = None,
    rtol: float = 1e-2,
    atol: float = 1e-2,
    dt: float | None = None,
    first_step: float | None = None,
    control: Control = "per_sample",
    controller: StochasticController | None = None,
    brownian: BrownianPath | None = None,
    generator: torch.Generator | None = None,
    max_steps: int = 10_000,
) -> Solution:
    """Solve ``dy = f(t, y) dt + g(t, y) dW``, one independent Brownian motion per element of ``y``.

    The local error of a trial step from u to v is ``E = RMS(error / (atol + rtol max(|u|, |v|)))``; the step is taken
    when ``E <= 1``. A rejected step is tried again, shorter, *on the same path*: nothing is drawn anew, so that the law
    of the solution is not bent towards paths that are easy. Steps end exactly at the times asked for.

    Args:
        drift, diffusion: ``f, g: (t, y) -> (batch, ...)``, of the shape of ``y``; ``t`` has shape ``(batch,)``, in
            joint control no axis. Modules are welcome.
        y0: the state at ``t[0]``, ``(batch, ...)``, real.
        t: increasing times, ``(num_times,)``, at least two.
        method: :class:`SOSRI` by default. It says whether the equation is read as Ito's or Stratonovich's.
        rtol, atol: relative and absolute tolerance, not both zero. 1e-3 to 0.3 are usual: local errors of
            stochastic methods are larger than they are for ordinary equations.
        dt: length of fixed steps, shortened a little so that they fit between the times; by default steps are adaptive,
            which needs a method with an error estimate.
        first_step: of adaptive steps; by default found from the size of the coefficients at the start.
        control: ``"per_sample"``, each sample has its own time and step; or ``"joint"``, one for the whole batch.
        controller: of the step size.
        brownian: the paths; by default a :class:`BrownianTree` with a seed from ``generator``. The same tree gives the
            same paths to any method at any tolerance.
        generator: source of the seed; by default torch's global one.
        max_steps: trial steps after which a sample is given up.

    Returns:
        A :class:`~neuralop_kit.solvers.ode.Solution`. ``stats.error`` and ``stats.stiffness`` can be differentiated,
        with step sizes held constant, as ``ys`` can; they are zero where a method has no such estimate.
        ``num_evaluations`` counts evaluations of the drift; those of the diffusion are as many, for
        :class:`Milstein` twice as many. Samples that fail (NaN, steps without length, too many steps) are flagged in
        ``stats.status``, their later states are NaN; in per-sample control the others do not notice.

    Raises:
        ArgumentError: times do not increase, a tolerance is negative, the method needs ``dt``.
        ShapeError: a coefficient gives another shape than the state's, or the paths have.

    Source: Rackauckas and Nie (2017), for rejections that keep the law; here by (W, H) at the ends of all trial steps.

    >>> t = torch.tensor([0.0, 0.5, 1.0])
    >>> generator = torch.Generator().manual_seed(0)
    >>> solution = sdeint(lambda t, y: -y, lambda t, y: 0.1 * y, torch.ones(100, 1), t, generator=generator)
    >>> solution.ys.shape, round(solution.ys[-1].mean().item(), 2)
    (torch.Size([3, 100, 1]), 0.37)
    """
    method = SOSRI() if method is None else method
    times = _check(y0, t, method, rtol, atol, dt, control)
    if brownian is None:
        brownian = BrownianTree(
            float(times[0]), float(times[-1]), tuple(y0.shape), generator=generator, device=y0.device
        )
    course = Course(method, drift, diffusion, times, Tolerance(rtol, atol, joint=control == "joint"))
    start = brownian.at(times[:1])
    if start.value.shape != y0.shape:
        raise ShapeError(
            f"expected Brownian paths of shape {tuple(y0.shape)}, got {tuple(start.value.shape)}; one motion per element"
        )
    progress = Progress.begin(course, y0, start, dt=dt, first_step=first_step)
    controller = StochasticController() if controller is None else controller
    for _ in range(max_steps):
        if not progress.is_running:
            break
        progress.advance(brownian.at, controller)
    return progress.finish()


def _check(
    y0: Tensor, t: Tensor, method: StochasticMethod, rtol: float, atol: float, dt: float | None, control: str
) -> Tensor:
    """The times in float64."""
    if y0.ndim < 1 or not y0.is_floating_point():
        raise ShapeError(
            f"expected a real state of shape (batch, ...), got {tuple(y0.shape)} of {y0.dtype}; a single one: y0[None]"
        )
    times = torch.as_tensor(t, dtype=torch.float64, device=y0.device)
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise ArgumentError(
            f"expected at least two increasing times (num_times,), got {t}; noise runs forwards only, sort them"
        )
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
        raise ArgumentError(f"expected tolerances >= 0, not both zero, got rtol={rtol}, atol={atol}; correct them")
    if control not in ("per_sample", "joint"):
        raise ArgumentError(f"expected control 'per_sample' or 'joint', got {control!r}; take one of these")
    if dt is None and not method.has_error:
        raise ArgumentError(f"expected dt for {method}, which has no error estimate, got None; pass dt=0.01 or so")
    if dt is not None and not (math.isfinite(dt) and dt > 0):
        raise ArgumentError(f"expected dt > 0, got {dt}; noise runs forwards only")
    return times
