"""The front door: check what was asked for, and hand it to a gradient strategy."""

import numpy as np
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.adjoint import Adjoint, Direct
from neuralop_kit.solvers.ode.checks import is_differentiated
from neuralop_kit.solvers.ode.control import StepControl
from neuralop_kit.solvers.ode.controllers import StepController
from neuralop_kit.solvers.ode.empty import NoSteps
from neuralop_kit.solvers.ode.method import Field, Method
from neuralop_kit.solvers.ode.pose import pose
from neuralop_kit.solvers.ode.solution import Solution
from neuralop_kit.solvers.ode.time_gradient import solve_with_times
from neuralop_kit.solvers.ode.trial import Tolerance


def odeint(
    field: Field,
    y0: Tensor,
    t: Tensor,
    *,
    method: str | Method = "tsit5",
    rtol: Tolerance = 1e-6,
    atol: Tolerance = 1e-6,
    control: str | StepControl = "per_sample",
    controller: StepController | None = None,
    adjoint: Adjoint | None = None,
    first_step: float | None = None,
    max_steps: int = 10_000,
    min_step: float = 0.0,
    dense: bool = False,
    raise_on_failure: bool = False,
) -> Solution:
    """Solve ``dy/dt = field(t, y)``, ``y(t[0]) = y0``, for a batch of initial states.

    Args:
        field: gets ``t`` such that it broadcasts against ``y``: shape ``(batch, 1, ..., 1)`` in per-sample control, a
            single number in joint control; returns the shape of ``y``.
        y0: shape ``(batch, ...)``, real floating point; the solution has its dtype. A batch may be empty.
        t: times, monotone, forward or backward: ``(num_times,)``, or ``(num_times, batch)`` for times of every
            sample's own (pad with repetitions of the last time). The last time is met by a step, the others by dense
            output. ``ys`` are differentiated by the first and by their own time where somebody asks, once.
        method: a name of :data:`METHODS`, or an object such as ``Dopri5(compile=True)``.
        rtol, atol: positive; numbers, or tensors that broadcast against ``y0``.
        control: ``"per_sample"`` step sizes, or one ``"joint"`` step size for the batch.
        controller: by default :class:`PIController`.
        adjoint: how gradients are found, by default :class:`Direct` backpropagation through the accepted steps.
        first_step: length of the first step, positive; by default chosen from the field.
        max_steps: trial steps before a sample gives up.
        min_step: length at which a sample gives up; rounding sets a limit in any case.
        dense: whether the solution can be called at any time; keeps all stages in memory.
        raise_on_failure: whether a failed sample is an error; it is a status otherwise, its ``ys`` are NaN from the
            failure on, and other samples are not harmed (with joint control the batch fails together).

    Returns:
        A :class:`Solution`.

    Raises:
        ShapeError: ``y0``, ``t`` or the field's value have the wrong shape.
        ArgumentError: a name is unknown, times are not monotone or not finite, a number is out of range.
        ConvergenceError: a sample failed and ``raise_on_failure`` is set.

    Good values: tolerances 1e-3 to 1e-8 with Tsit5; for less, Dopri8 in float64. NaN or steps in the thousands speak
    for a stiff problem: take ``"rosenbrock23"``, ``"rodas5p"``, ``"kencarp4"`` or ``"auto"``.

    >>> import torch
    >>> y0 = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> solution = odeint(lambda t, y: -y, y0, torch.tensor([0.0, 1.0, 2.0]), rtol=1e-8, atol=1e-8)
    >>> solution.ys[:, 1, 0]
    tensor([2.0000, 0.7358, 0.2707], dtype=torch.float64)
    >>> solution.stats.status
    tensor([0, 0])
    """
    problem = pose(
        field, y0, t, method=method, rtol=rtol, atol=atol, control=control, controller=controller,
        first_step=first_step, max_steps=max_steps, min_step=min_step,
    )  # fmt: skip
    if not np.isfinite(problem.times).all():
        raise ArgumentError(f"expected finite times, got {t.tolist()}; odeint_event may go on for ever, odeint may not")
    adjoint = Direct() if adjoint is None else adjoint
    if y0.numel() == 0:
        adjoint = NoSteps()
    if is_differentiated(t):
        solution = solve_with_times(problem, y0, adjoint, dense=dense)
    else:
        solution = adjoint.solve(problem, y0, dense=dense)
    if raise_on_failure:
        solution.stats.raise_if_failed()
    return solution
