"""From what a user asks for to a checked problem."""

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.ode.checks import check_tensor, refuse_transforms, refuse_vmap
from neuralop_kit.solvers.ode.control import CONTROLS, StepControl
from neuralop_kit.solvers.ode.controllers import FixedStep, Floats, PIController, StepController
from neuralop_kit.solvers.ode.host import read
from neuralop_kit.solvers.ode.march import Problem
from neuralop_kit.solvers.ode.method import Field, Method
from neuralop_kit.solvers.ode.methods import METHODS
from neuralop_kit.solvers.ode.trial import Stepper, Tolerance

Named = TypeVar("Named")


def pose(
    field: Field,
    y0: Tensor,
    t: Tensor,
    *,
    method: str | Method,
    rtol: Tolerance,
    atol: Tolerance,
    control: str | StepControl,
    controller: StepController | None,
    first_step: float | None,
    max_steps: int,
    min_step: float,
) -> Problem:
    """The arguments of ``odeint``, checked; the last time may be infinite."""
    check_tensor(t, "t")
    check_state(y0)
    check_precision(y0, rtol)
    refuse_vmap(t)
    method, control = named(METHODS, method, "method"), named(CONTROLS, control, "control")
    if method.compile:
        refuse_transforms("compile=True")
    controller = PIController() if controller is None else controller
    if not method.has_companion and not isinstance(controller, FixedStep):
        raise ArgumentError(
            f"expected a fixed step for {type(method).__name__}, which does not estimate its error, "
            f"got {type(controller).__name__}; give controller=FixedStep(step_size)"
        )
    check_numbers(rtol=rtol, atol=atol, first_step=first_step, max_steps=max_steps)
    stepper = Stepper(method, field, control, rtol, atol)
    times = times_of_rows(t, control, y0)
    return Problem(stepper, times, t, controller, first_step, max_steps, min_step)


def check_state(y0: Tensor) -> None:
    """A batch of real numbers."""
    check_tensor(y0, "y0")
    if y0.ndim == 0:
        raise ShapeError(
            f"expected a state of shape (batch, ...), got {tuple(y0.shape)}; one sample needs its axis too"
        )
    if not y0.is_floating_point():
        raise ArgumentError(f"expected a real floating-point state, got {y0.dtype}; convert it, or use view_as_real")
    refuse_vmap(y0)


def check_precision(y0: Tensor, rtol: Tolerance) -> None:
    """Half precision has no digits for the tolerances that single precision has."""
    if y0.element_size() >= 4:
        return
    least, epsilon = float(torch.as_tensor(rtol).min()), torch.finfo(y0.dtype).eps
    if least < epsilon:
        raise ArgumentError(
            f"expected rtol >= {epsilon:.1g} for {y0.dtype}, got {least:.1g}; loosen it, or solve in float32 with a "
            "field that computes in half precision: y0.float() under torch.autocast"
        )


def check_numbers(*, rtol: Tolerance, atol: Tolerance, first_step: float | None, max_steps: int) -> None:
    """Ranges of the arguments that are numbers."""
    for name, value in (("rtol", rtol), ("atol", atol), ("first_step", first_step), ("max_steps", max_steps)):
        if value is None:
            continue
        least = value.min().item() if isinstance(value, Tensor) else value
        if not (least > 0 and math.isfinite(least)):
            raise ArgumentError(f"expected a positive {name}, got {value}; correct it")


def named(choices: Mapping[str, type[Named]], choice: str | Named, what: str) -> Named:
    """An object, or the one with that name."""
    if not isinstance(choice, str):
        return choice
    if choice not in choices:
        raise ArgumentError(f"expected a {what} among {sorted(choices)}, got {choice!r}; take one of these")
    return choices[choice]()


def times_of_rows(t: Tensor, control: StepControl, y0: Tensor) -> Floats:
    """Times on the host, ``(num_times, rows)``, checked."""
    rows = control.num_rows(len(y0))
    if t.ndim not in (1, 2) or len(t) == 0 or (t.ndim == 2 and t.shape[1] != rows):
        raise ShapeError(
            f"expected times of shape (num_times,) or, in per-sample control, (num_times, {len(y0)}), "
            f"got {tuple(t.shape)}; give all samples the same times, or one column each"
        )
    times = read(t)
    if times.ndim == 1:
        times = np.repeat(times[:, None], rows, axis=1)
    with np.errstate(invalid="ignore"):
        steps = np.diff(times, axis=0)
    good = ((steps >= 0).all(axis=0) | (steps <= 0).all(axis=0)) & np.isfinite(times[0])
    if not good.all():
        raise ArgumentError(
            f"expected times that only rise or only fall, got {times[:, ~good][:, 0].tolist()}; "
            "sort them, or solve in parts"
        )
    return times
