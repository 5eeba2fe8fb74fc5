"""The length of the first step."""

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.ode.controllers import Floats
from neuralop_kit.solvers.ode.host import read, send
from neuralop_kit.solvers.ode.trial import Stepper


@torch.no_grad()
def initial_step(stepper: Stepper, start: Floats, goal: Floats, y: Tensor, slope: Tensor) -> Floats:
    """A first step such that an Euler step of that length changes the slope by about what the tolerance allows.

    Costs one evaluation of the field. Returns positive lengths, ``(rows,)``, not longer than the way to go.

    Source: Hairer, Norsett and Wanner, vol. I, II.4.
    """
    control, span = stepper.control, np.abs(goal - start)
    scale = stepper.atol + stepper.rtol * y.abs()
    size, speed = read(torch.stack([control.rms(y / scale), control.rms(slope / scale)]))
    tiny = (size < 1e-5) | (speed < 1e-5)
    first = np.minimum(np.where(tiny, 1e-6, 0.01 * size / np.where(tiny, 1.0, speed)), span)
    step = np.copysign(first, goal - start)
    t, h = (control.spread(send(x, y), y.ndim) for x in (start + step, step))
    change = stepper.field(t, y + h * slope) - slope
    bend = read(control.rms(change / scale)) / np.where(first > 0, first, 1.0)
    steepest = np.maximum(speed, bend)
    flat = ~(steepest > 1e-15)
    second = (0.01 / np.where(flat, 1.0, steepest)) ** (1 / stepper.method.control_order)
    second = np.where(flat, np.maximum(1e-6, 1e-3 * first), second)
    # A trial state at which the field is not finite says nothing but that steps should begin small.
    return np.minimum(np.where(np.isfinite(bend), np.minimum(100 * first, second), first), span)
