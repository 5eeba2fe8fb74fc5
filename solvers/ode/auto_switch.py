"""Automatic choice between an explicit and a stiff method, from the stiffness estimates of the steps."""

import math

import numpy as np
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.controllers import Floats
from neuralop_kit.solvers.ode.explicit import Tsit5
from neuralop_kit.solvers.ode.host import read
from neuralop_kit.solvers.ode.method import Field, Increment, Method, Selector
from neuralop_kit.solvers.ode.rosenbrock import Rosenbrock23


class AutoSwitch(Method):
    """An explicit method while stability does not limit its steps, a stiff one while it would.

    Switches to the stiff method after ``stiff_steps`` successive rows of steps with ``h S > 0.9 stability_size`` in any
    sample, and back after ``nonstiff_steps`` rows with ``h S <= 0.9 stability_size`` in all. The batch switches
    together, as one trial step is one call for all samples: a single stiff sample makes all of them pay for linear
    systems. Batches of samples that are alike, in stiffness too, are therefore cheapest. Reads the estimates ``S`` on
    the host, a second look at the device per step.

    Args:
        nonstiff, stiff: the two methods; ``nonstiff`` has a finite stability size.
        stiff_steps, nonstiff_steps: at least 1.

    Raises:
        ArgumentError: the methods or numbers do not fit.

    Source: Shampine (1977); the constants are those of OrdinaryDiffEq.jl's AutoSwitch.

    >>> import torch
    >>> from neuralop_kit.solvers.ode import odeint
    >>> y0, t = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 1.0])
    >>> stats = odeint(lambda t, y: -1e5 * (y - torch.cos(t)), y0, t, method=AutoSwitch(), rtol=1e-4).stats
    >>> bool(stats.num_accepted < 200)
    True
    """

    def __init__(
        self,
        nonstiff: Method | None = None,
        stiff: Method | None = None,
        *,
        stiff_steps: int = 10,
        nonstiff_steps: int = 3,
    ) -> None:
        self.nonstiff, self.stiff = (
            Tsit5() if nonstiff is None else nonstiff,
            Rosenbrock23() if stiff is None else stiff,
        )
        if not math.isfinite(self.nonstiff.stability_size) or min(stiff_steps, nonstiff_steps) < 1:
            raise ArgumentError(
                f"expected an explicit method first and at least one step each, got {type(self.nonstiff).__name__}, "
                f"{stiff_steps} and {nonstiff_steps}; swap the methods, or correct the numbers"
            )
        super().__init__(compile=self.nonstiff.compile)
        self.stiff_steps, self.nonstiff_steps = stiff_steps, nonstiff_steps
        # A solve begins with the explicit method.
        self.order, self.control_order = self.nonstiff.order, self.nonstiff.control_order
        self.evaluations_per_step, self.dense = self.nonstiff.evaluations_per_step, self.nonstiff.dense
        self.has_companion = self.nonstiff.has_companion and self.stiff.has_companion
        self.stability_size = self.stiff.stability_size

    def step(self, field: Field, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Increment:
        """A step of the explicit method; :meth:`selector` says when it is the other's turn."""
        return self.nonstiff.step(field, t, y, slope, h)

    def selector(self) -> Selector:
        """Begins with the explicit method, and listens."""
        return _Switch(self)


class _Switch(Selector):
    """Counts rows that speak for the other method."""

    def __init__(self, auto: AutoSwitch) -> None:
        super().__init__(auto.nonstiff)
        self.auto, self.count = auto, 0

    def observe(self, stiffness: Tensor, h: Floats) -> None:
        """See the base class."""
        auto = self.auto
        is_stiff = bool((read(stiffness) * np.abs(h)).max() > 0.9 * auto.nonstiff.stability_size)
        runs_stiff = self.method is auto.stiff
        self.count = self.count + 1 if is_stiff != runs_stiff else 0
        if self.count >= (auto.nonstiff_steps if runs_stiff else auto.stiff_steps):
            self.method, self.count = (auto.nonstiff if runs_stiff else auto.stiff), 0
