"""Rosenbrock methods: implicit enough for stiff problems, with linear systems in place of nonlinear ones."""

import math

import torch
from torch import Tensor

from neuralop_kit.solvers.ode.linear import DenseLU, LinearSolver, dominant_pair, time_derivative
from neuralop_kit.solvers.ode.method import Field, Increment, Method
from neuralop_kit.solvers.ode.rodas_tableau import GAMMA, TIMES, A, C, D, H
from neuralop_kit.solvers.ode.tableau import Row
from neuralop_kit.solvers.ode.weighted_sum import add_up


class Rosenbrock(Method):
    """What the methods share.

    Args:
        linear: how ``(1 - h gamma J) x = b`` is solved.
        compile: see :class:`Method`; needs :class:`DenseLU`.
    """

    stability_size = math.inf

    def __init__(self, *, linear: LinearSolver | None = None, compile: bool = False) -> None:
        super().__init__(compile=compile)
        self.linear = DenseLU() if linear is None else linear


class Rosenbrock23(Rosenbrock):
    """Order 2 with companion of order 3, L-stable; for stiff problems at loose tolerance. MATLAB's ode23s.

        d = 1 / (2 + sqrt 2),  W = 1 - h d J
        W k1 = f0 + h d f_t,   W (k2 - k1) = f1 - k1,   f1 = f(t + h/2, y + h k1 / 2),   y1 = y + h k2
        W k3 = f2 - (6 + sqrt 2)(k2 - f1) - 2 (k1 - f0) + h d f_t,   f2 = f(t + h, y1)
        defect = h/6 (k1 - 2 k2 + k3)

    Cost: 2 evaluations of the field, one Jacobian, three solves per trial step.

    Args:
        linear: how the systems are solved, :class:`DenseLU` by default, or :class:`Krylov` for fields on grids.
        compile: see :class:`Method`; needs :class:`DenseLU`.

    Source: Shampine and Reichelt (1997), SIAM J. Sci. Comput. 18, section 3.

    >>> import torch
    >>> from neuralop_kit.solvers.ode import odeint
    >>> y0, t = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 1.0])
    >>> stats = odeint(lambda t, y: -1e6 * (y - torch.cos(t)), y0, t, method=Rosenbrock23(), rtol=1e-4).stats
    >>> bool(stats.num_accepted < 200)
    True
    """

    order = 2
    control_order = 3
    evaluations_per_step = 2
    gamma = 1 / (2 + math.sqrt(2))
    dense = (
        (1 / (1 - 2 * gamma), -2 * gamma / (1 - 2 * gamma)),
        (-1 / (1 - 2 * gamma), 1 / (1 - 2 * gamma)),
    )

    def step(self, field: Field, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Increment:
        """See the base class."""
        scale = self.gamma * h
        solve = self.linear.prepare(field, t, y, scale)
        drift = scale * time_derivative(field, t, y)
        k1 = solve(slope + drift)
        f1 = field(t + 0.5 * h, y + 0.5 * h * k1)
        k2 = solve(f1 - k1) + k1
        state = y + h * k2
        f2 = field(t + h, state)
        k3 = solve(f2 - (6 + math.sqrt(2)) * (k2 - f1) - 2 * (k1 - slope) + drift)
        return Increment(state, f2, h / 6 * (k1 - 2 * k2 + k3), *dominant_pair(field, t, y), (k1, k2))


class Rodas5P(Rosenbrock):
    """Order 5 with companion of order 4, L-stable, stiffly accurate; for stiff problems at medium to tight tolerance.

        (1 - h gamma J) k_i = gamma (h f(t + c_i h, g_i) + sum_{j<i} C_ij k_j + h^2 d_i f_t)
        g_i = y + sum_{j<i} a_ij k_j
        y1 = g_8 + k_8,    defect = -k_8

    Cost: 8 evaluations of the field, one Jacobian, eight solves per trial step. Dense output of order 4.

    Args:
        linear, compile: as for :class:`Rosenbrock23`.

    Source: Steinebach (2023), BIT 63.
    """

    order = 5
    control_order = 5
    evaluations_per_step = 8

    def __init__(self, *, linear: LinearSolver | None = None, compile: bool = False) -> None:
        super().__init__(linear=linear, compile=compile)
        self.dense = dense_of_rodas()

    def step(self, field: Field, t: Tensor, y: Tensor, slope: Tensor, h: Tensor) -> Increment:
        """See the base class."""
        scale = GAMMA * h
        solve = self.linear.prepare(field, t, y, scale)
        drift = h * time_derivative(field, t, y)
        ks: list[Tensor] = []
        state = y
        for row, couplings, c, d in zip(A, C, TIMES, D, strict=True):
            if row:
                state = add_up(y, row, ks)
                slope = field(torch.add(t, h, alpha=c), state)
            forcing = slope if d == 0 else slope + d * drift
            ks.append(solve(add_up(scale * forcing, tuple(GAMMA * c for c in couplings), ks)))
        state = state + ks[-1]
        inverse = torch.where(h == 0, 0.0, 1.0 / h)
        stages = tuple(inverse * k for k in ks)
        return Increment(state, field(t + h, state), -ks[-1], *dominant_pair(field, t, y), stages)


def dense_of_rodas() -> tuple[Row, ...]:
    """``y + th (y1 - y) + th (1 - th) (K1 + th (K2 + th K3))`` in powers of ``th``, with ``K_m = sum_i H_mi k_i``."""
    whole = (*A[-1], 1.0)
    k1, k2, k3 = H
    return (
        tuple(w + a for w, a in zip(whole, k1, strict=True)),
        tuple(b - a for a, b in zip(k1, k2, strict=True)),
        tuple(c - b for b, c in zip(k2, k3, strict=True)),
        tuple(-c for c in k3),
    )
