"""Implicit Runge-Kutta steps for diffusion with a nonlinear storage term on a line of cells."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.tridiagonal import solve_tridiagonal

# Newton stops here; two steps more, which carry the first and second derivatives, square it twice.
NEWTON_TOLERANCE = 1e-6
MAX_ITERATIONS = 50

# Singly diagonal, stiffly accurate (the last stage is the result), L-stable, order 4.
DIAGONAL = 1 / 4
STAGES = (
    (),
    (1 / 2,),
    (17 / 50, -1 / 25),
    (371 / 1360, -137 / 2720, 15 / 544),
    (25 / 24, -49 / 48, 125 / 16, -85 / 12),
)


@dataclass(frozen=True)
class StoredDiffusion:
    """``s(c)_t = A c + b`` with a tridiagonal ``A``, ``s`` increasing and concave; fields ``(batch, n)``, float64.

    Args:
        lower, diagonal, upper: of ``A``, shape ``(n,)``; off the diagonal not negative, rows with a sum <= 0.
        source: ``b``, shape ``(n,)``.
        stored: ``s``, elementwise.
        slope: ``s'``.
    """

    lower: Tensor
    diagonal: Tensor
    upper: Tensor
    source: Tensor
    stored: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]

    def rate(self, c: Tensor) -> Tensor:
        """``A c + b``."""
        left = torch.nn.functional.pad(c[..., :-1], (1, 0))
        right = torch.nn.functional.pad(c[..., 1:], (0, 1))
        return self.lower * left + self.diagonal * c + self.upper * right + self.source

    def newton_correction(self, c: Tensor, weight: float, target: Tensor) -> Tensor:
        """What Newton's method subtracts from ``c`` on the way to ``s(c) - weight (A c + b) = target``."""
        defect = self.stored(c) - weight * self.rate(c) - target
        diagonal = self.slope(c) - weight * self.diagonal
        return solve_tridiagonal(-weight * self.lower, diagonal, -weight * self.upper, defect)


def sdirk4_step(system: StoredDiffusion, c: Tensor, dt: float) -> Tensor:
    """The state after one step of size ``dt``; items for which Newton fails become NaN.

    Each stage solves ``s(C_i) - dt/4 f(C_i) = s(c) + dt sum_(j<i) a_ij f(C_j)`` with ``f(c) = A c + b``, for the
    stored amount and not for the concentration, so that what is stored balances with what flows.

    Source: Hairer and Wanner (1996), Solving ODEs II, table IV.6.5.
    """
    start, weight = system.stored(c), DIAGONAL * dt
    rates: list[Tensor] = []
    for row in STAGES:
        target = start
        for a, rate in zip(row, rates, strict=True):
            target = target + dt * a * rate
        c = solve_stage(system, target, weight, guess=c)
        # From the stage's own equation: A c would amplify the rounding of c by dt/h^2.
        rates.append((system.stored(c) - target) / weight)
    return c


def solve_stage(system: StoredDiffusion, target: Tensor, weight: float, *, guess: Tensor) -> Tensor:
    """``c`` with ``s(c) - weight (A c + b) = target``, twice differentiable in ``target``.

    The left side is concave and its Jacobian has a positive inverse everywhere: from any guess, Newton's second iterate
    lies below the solution, and all further ones rise to it (Ortega and Rheinboldt, 1970, section 13.3). Items stop one
    by one, so that a batch gives what its items give alone.
    """
    with torch.no_grad():
        value = guess.detach()
        fixed = target.detach()
        # NaN compares false, so that a spoiled item is not waited for.
        active = torch.ones_like(value[:, :1], dtype=torch.bool)
        for _ in range(MAX_ITERATIONS):
            correction = system.newton_correction(value, weight, fixed)
            value = torch.where(active, value - correction, value)
            active = active & (correction.abs().amax(dim=1, keepdim=True) > NEWTON_TOLERANCE)
            if not active.any():
                break
    value = torch.where(active, torch.nan, value)
    for _ in range(2):
        value = value - system.newton_correction(value, weight, target)
    return value
