"""Diagonally implicit Runge-Kutta methods: nonlinear stages by simplified Newton iterations with one matrix."""

import math

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.kencarp_tableau import COMPANION, GAMMA, TIMES, A, B
from neuralop_kit.solvers.ode.linear import DenseLU, LinearSolver, dominant_pair
from neuralop_kit.solvers.ode.method import Field, Increment, Method
from neuralop_kit.solvers.ode.tableau import Row
from neuralop_kit.solvers.ode.weighted_sum import add_up

ERROR: Row = tuple(c - b for c, b in zip(COMPANION, B, strict=True))


class KenCarp4(Method):
    """Order 4 with companion of order 3, L-stable, stiffly accurate, stage order 2; for stiff problems.

        z_1 = h f(t, y),   z_i = h f(t + c_i h, g_i + gamma z_i),   g_i = y + sum_{j<i} a_ij z_j      i = 2 .. 6
        y1 = g_6 + gamma z_6
        Newton:  W d = h f(t + c_i h, g_i + gamma z_i) - z_i,   z_i <- z_i + d,   W = 1 - h gamma J(t, y)
        W defect = sum_i (companion_i - b_i) z_i + gamma (h f(t + h, y1) - z_6)

    The implicit part of the pair, for the whole field. The number of iterations is fixed, so that nothing waits for
    the device; what they leave at the last stage, where the Jacobian is oldest, is the last term of the defect, and a
    step on which they fail is rejected. ``W`` keeps stiff components from swamping the estimate.

    Cost: ``5 iterations + 1`` evaluations of the field, one Jacobian, ``5 iterations + 1`` solves per trial step.
    Dense output is a cubic of local error ``h^4``: less accurate than the steps where these are long. Unlike Rodas5P it
    keeps its order where the matrix is not exact.

    Args:
        linear: how ``W d = r`` is solved.
        iterations: of Newton's method per stage, at least 1; 2 keep the order, 3 are good where the field is strongly
            nonlinear.
        compile: see :class:`Method`; needs :class:`DenseLU`.

    Raises:
        ArgumentError: ``iterations`` is below one.

    Source: Kennedy and Carpenter (2003), Appl. Numer. Math. 44, ESDIRK4(3)6L[2]SA; the filtered estimate by Hosea and
    Shampine (1996), Appl. Numer. Math. 20.

    >>> from neuralop_kit.solvers.ode import odeint
    >>> y0, t = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 1.0])
    >>> stats = odeint(lambda t, y: -1e6 * (y - torch.cos(t)), y0, t, method=KenCarp4(), rtol=1e-6).stats
    >>> bool(stats.num_accepted < 50)
    True
    """

    order = 4
    control_order = 4
    stability_size = math.inf

    def __init__(self, *, linear: LinearSolver | None = None, iterations: int = 3, compile: bool = False) -> None:
        super().__init__(compile=compile)
        if iterations < 1:
            raise ArgumentError(f"expected iterations >= 1, got {iterations}; 2 or 3 are good")
        self.linear = DenseLU() if linear is None else linear
        self.iterations = iterations
        self.evaluations_per_step = len(A) * iterations + 1
        self.dense = cubic(TIMES[2])

    def step(self, field: Field, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Increment:
        """See the base class."""
        solve = self.linear.prepare(field, t, y, GAMMA * h)
        zs, state = [h * slope], y
        for row, c in zip(A, TIMES, strict=True):
            base, z = add_up(y, row, zs), zs[-1]
            for _ in range(self.iterations):
                z = z + solve(h * field(torch.add(t, h, alpha=c), base + GAMMA * z) - z)
            zs.append(z)
            state = base + GAMMA * z
        end = field(t + h, state)
        defect = solve(add_up(GAMMA * (h * end - zs[-1]), ERROR, zs))
        inverse = torch.where(h == 0, 0.0, 1.0 / h)
        stages = (inverse * (state - y), inverse * zs[-1], inverse * zs[3])
        return Increment(state, end, defect, *dominant_pair(field, t, y), stages)


def cubic(c: float) -> tuple[Row, ...]:
    """The cubic from ``y`` with the step's mean slope and the slopes of the stages at 1 and at ``c``, as ``dense``.

    The slope at the start is no part of it: in stiff components it is the last step's small error times a large number.
    """
    conditions = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2 * c, 3 * c * c]])
    return tuple(tuple(row.tolist()) for row in np.linalg.inv(conditions))
