"""sdeint: follow a stochastic differential equation along given Brownian paths, with adaptive steps."""

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.ode.checks import check_slope, check_tensor, refuse_transforms, refuse_vmap
from neuralop_kit.solvers.ode.control import CONTROLS, StepControl
from neuralop_kit.solvers.ode.controllers import FixedStep, PIController, StepController
from neuralop_kit.solvers.ode.empty import solve_nothing
from neuralop_kit.solvers.ode.host import read
from neuralop_kit.solvers.ode.pose import check_numbers, check_precision, check_state, named
from neuralop_kit.solvers.ode.solution import Solution
from neuralop_kit.solvers.sde.brownian import BrownianPath, BrownianTree
from neuralop_kit.solvers.sde.classical import EulerMaruyama, HeunStratonovich, Milstein
from neuralop_kit.solvers.sde.itinerary import Itinerary
from neuralop_kit.solvers.sde.method import Coefficient, StochasticMethod
from neuralop_kit.solvers.sde.rossler import SOSRI, SOSRI2
from neuralop_kit.solvers.sde.travel import Equation, travel

# What sdeint(..., method=name) accepts.
METHODS: dict[str, type[StochasticMethod]] = {
    "sosri": SOSRI,
    "sosri2": SOSRI2,
    "euler_maruyama": EulerMaruyama,
    "milstein": Milstein,
    "heun": HeunStratonovich,
}

# Steps grow slowly, because a small error is often luck with the noise; the exponents are those of Rackauckas and Nie.
STOCHASTIC_CONTROLLER = PIController(exponents=(0.7, 0.4, 0.0), max_factor=1.125)


def sdeint(
    drift: Coefficient,
    diffusion: Coefficient,
    y0: Tensor,
    t: Tensor,
    *,
    method: str | StochasticMethod = "sosri",
    rtol: float = 1e-2,
    atol: float = 1e-2,
    control: str | StepControl = "per_sample",
    controller: StepController | None = None,
    brownian: BrownianPath | None = None,
    generator: torch.Generator | None = None,
    first_step: float | None = None,
    max_steps: int = 10_000,
    raise_on_failure: bool = False,
) -> Solution:
    """Solve ``dy = f(t, y) dt + g(t, y) dW`` with one independent Brownian motion per element of ``y``.

    The local error of a trial step from u to v is ``E = RMS(error / (atol + rtol max(|u|, |v|)))``; the step is taken
    when ``E <= 1``. A rejected step is tried again, shorter, *on the same path*: nothing is drawn anew, so that the law
    of the solution is not bent towards paths that are easy. Steps end exactly at the times asked for.

    Args:
        drift, diffusion: ``f(t, y)`` and ``g(t, y)``, of the shape of ``y``; ``t`` broadcasts against ``y``: shape
            ``(batch, 1, ..., 1)`` in per-sample control, a single number in joint control.
        y0: the state at ``t[0]``, ``(batch, ...)``, real; the solution has its dtype. A batch may be empty.
        t: increasing times, ``(num_times,)``, at least two.
        method: a name of :data:`METHODS`, or an object such as ``SOSRI(delta=0.2)``. It says whether the equation is
            read as Ito's or Stratonovich's.
        rtol, atol: positive. 1e-3 to 0.3 are usual: local errors of stochastic methods fall slowly.
        control: ``"per_sample"`` step sizes, or one ``"joint"`` step size for the batch.
        controller: by default proportional-integral control with slow growth; ``FixedStep(dt)`` for fixed steps, which
            are the only ones for a method without an error estimate.
        brownian: the paths; by default a :class:`BrownianTree` with a seed from ``generator``. The same tree gives the
            same paths to any method at any tolerance. ``jacfwd`` wants a tree that was made outside.
        generator: source of the seed; by default torch's global one.
        first_step: length of the first step; by default found from the size of the coefficients.
        max_steps: trial steps before a sample gives up.
        raise_on_failure: whether a failed sample is an error; otherwise a status, its later states are NaN, and in
            per-sample control the others do not notice.

    Returns:
        A :class:`~neuralop_kit.solvers.ode.Solution`. ``ys``, ``stats.error`` and ``stats.stiffness`` can be
        differentiated, with step sizes and noise held constant; the estimates are zero where a method has none.
        ``num_evaluations`` counts evaluations of the drift. Those of the diffusion are as many, for
        :class:`Milstein` twice as many.

    Raises:
        ArgumentError: times do not increase, a number is out of range, the method needs fixed steps.
        ShapeError: a coefficient gives another shape than the state's, or the paths have.
        ConvergenceError: a sample failed and ``raise_on_failure`` is set.

    Source: Rackauckas and Nie (2017), arXiv 1804.04344, for the control; rejections keep the law because both W and
    its space-time area are known, once and for all, at the ends of all trial steps.

    >>> t = torch.tensor([0.0, 0.5, 1.0])
    >>> generator = torch.Generator().manual_seed(0)
    >>> solution = sdeint(lambda t, y: -y, lambda t, y: 0.1 * y, torch.ones(100, 1), t, generator=generator)
    >>> solution.ys.shape, round(solution.ys[-1].mean().item(), 1)
    (torch.Size([3, 100, 1]), 0.4)
    """
    check_tensor(t, "t")
    check_state(y0)
    check_numbers(rtol=rtol, atol=atol, first_step=first_step, max_steps=max_steps)
    method, control = named(METHODS, method, "method"), named(CONTROLS, control, "control")
    if method.compile:
        refuse_transforms("compile=True")
    controller = STOCHASTIC_CONTROLLER if controller is None else controller
    if not method.has_error and not isinstance(controller, FixedStep):
        raise ArgumentError(
            f"expected a fixed step for {type(method).__name__}, which does not estimate its error, "
            f"got {type(controller).__name__}; give controller=FixedStep(step_size)"
        )
    check_precision(y0, rtol)
    refuse_vmap(t)
    times = read(t)
    if times.ndim != 1 or len(times) < 2 or not bool(np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise ArgumentError(
            f"expected at least two increasing times (num_times,), got {t.tolist()}; noise runs forwards only"
        )
    if y0.numel() == 0:
        first = control.spread(t[:1].to(y0.dtype).expand(control.num_rows(len(y0))), y0.ndim)
        f, g = drift(first, y0), diffusion(first, y0)
        check_slope(f, y0, "drift(t, y)")
        check_slope(g, y0, "diffusion(t, y)")
        return solve_nothing(f + g, y0, t, control.num_rows(len(y0)))
    if brownian is None:
        brownian = BrownianTree(times[0], times[-1], y0.shape, generator=generator, device=y0.device)
    size = tuple(brownian.at(times[0]).value.shape)
    if size != tuple(y0.shape):
        raise ShapeError(f"expected Brownian paths of shape {tuple(y0.shape)}, got {size}; one motion per element")
    equation = Equation(method, drift, diffusion, control, rtol, atol)
    order = method.strong_order
    itinerary = Itinerary(times, control.num_rows(len(y0)), controller, order, max_steps=max_steps)
    solution = travel(equation, itinerary, brownian, y0, t, first_step)
    if raise_on_failure:
        solution.stats.raise_if_failed()
    return solution
