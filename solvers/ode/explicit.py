"""Explicit Runge-Kutta methods: one step for all of them, a leaf for each tableau."""

import torch
from torch import Tensor

from neuralop_kit.solvers.ode import tableaux
from neuralop_kit.solvers.ode.dopri8 import DOPRI8
from neuralop_kit.solvers.ode.method import Field, Increment, Method
from neuralop_kit.solvers.ode.tableau import ExplicitTableau
from neuralop_kit.solvers.ode.tableaux import BOSH3, DOPRI5, EULER, HEUN, TSIT5
from neuralop_kit.solvers.ode.weighted_sum import Contrast, WeightedSum


class ExplicitRungeKutta(Method):
    """A method given by its tableau; see :class:`~neuralop_kit.solvers.ode.tableau.ExplicitTableau` for the equations.

    Cost: ``num_stages - 1`` evaluations of the field per trial step, since its last stage is the next step's first.
    """

    tableau: ExplicitTableau

    def __init__(self, *, compile: bool = False) -> None:
        super().__init__(compile=compile)
        self.order = self.control_order = self.tableau.order
        self.has_companion = self.tableau.error is not None
        self.evaluations_per_step = self.tableau.num_stages - 1
        self.stability_size = self.tableau.stability_size
        self.dense = self.tableau.dense
        self.sums = tuple(WeightedSum.of(row) for row in self.tableau.a)
        self.places = self.tableau.c[1:]
        self.error = None if self.tableau.error is None else Contrast.of(self.tableau.error)

    def step(self, field: Field, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Increment:
        """See the base class."""
        slopes, before, state = [slope], y, y
        for total, c in zip(self.sums, self.places, strict=True):
            before, state = state, torch.addcmul(y, h, total.bracket(slopes), value=total.unit)
            slopes.append(field(torch.add(t, h, alpha=c), state))
        return Increment(
            y=state,
            slope=slopes[-1],
            defect=None if self.error is None else self.error.unit * h * self.error.bracket(slopes),
            slope_change=slopes[-1] - slopes[-2],
            state_change=state - before,
            stages=tuple(slopes),
        )


class Tsit5(ExplicitRungeKutta):
    """Order 5 with companion of order 4, 6 evaluations, quartic dense output of local error ``h^5``; the default.

    Args:
        compile: see :class:`Method`; the same for all explicit methods.

    Source: Tsitouras (2011), Comput. Math. Appl. 62.

    >>> Tsit5().order, Tsit5().evaluations_per_step
    (5, 6)
    """

    tableau = TSIT5


class Dopri5(ExplicitRungeKutta):
    """Order 5 with companion of order 4, 6 evaluations, quartic dense output; MATLAB's ode45, scipy's RK45.

    Source: Dormand and Prince (1980), J. Comput. Appl. Math. 6.
    """

    tableau = DOPRI5


class Bosh3(ExplicitRungeKutta):
    """Order 3 with companion of order 2, 3 evaluations, cubic dense output; for loose tolerances.

    Source: Bogacki and Shampine (1989), Appl. Math. Lett. 2.
    """

    tableau = BOSH3


class Dopri8(ExplicitRungeKutta):
    """Order 8 with companion of order 7, 13 evaluations; for tolerances below about 1e-8.

    Dense output is a quartic of order 4 with local error ``h^5``, while that of steps is ``h^9``: at times inside steps
    the state is as accurate as the tolerance only where steps are short. Where these times matter, solve from one to
    the next, or take Tsit5, whose dense output is as good as its companion.

    Source: Prince and Dormand (1981), J. Comput. Appl. Math. 7.
    """

    tableau = DOPRI8


class Heun(ExplicitRungeKutta):
    """Order 2 with Euler's method as companion, 2 evaluations, cubic dense output."""

    tableau = HEUN


class RK4(ExplicitRungeKutta):
    """The classical method of order 4 without companion: it needs ``controller=FixedStep(dt)``."""

    tableau = tableaux.RK4


class Euler(ExplicitRungeKutta):
    """Order 1 without companion: it needs ``controller=FixedStep(dt)``."""

    tableau = EULER
