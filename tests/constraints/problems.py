"""A small nonlinear problem in space and time that the tests of experts share."""

import math

import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.constraints import AtStart, AtStop, LeastSquaresConstraint

DOMAIN = Domain.box((1.0, 2.0), boundary="dirichlet", nodes="vertex")


def reaction_diffusion(u: Tensor, u_t: Tensor, u_xx: Tensor, nu: Tensor) -> Tensor:
    """Nonlinear, with a residual that is not zero at the minimum."""
    return u_t - nu * u_xx + u**3


def constraint(**options) -> LeastSquaresConstraint:
    """Initial values, and values at both walls."""
    conditions = [
        AtStart("initial", 0, weight=4.0),
        AtStart("left", 1),
        AtStop("right", 1, coefficients=(1.0, 0.5)),
    ]
    return LeastSquaresConstraint(
        reaction_diffusion, DOMAIN, conditions=conditions, ridge=options.pop("ridge", 1e-8), **options
    )


def functions(num_basis: int = 6, shape: tuple[int, int] = (13, 17), *, batch: int = 2) -> Tensor:
    """Smooth, independent functions, different for each item."""
    t, x = DOMAIN.coordinates(shape, dtype=torch.float64)
    rows = [
        torch.exp(-(0.3 + 0.2 * k) * t + 0.1 * i * x) * torch.cos(0.4 * k * math.pi * x + 0.3 * i)
        for i in range(batch)
        for k in range(num_basis)
    ]
    return torch.stack(rows).view(batch, num_basis, *shape)


def arguments(batch: int = 2, num_x: int = 17) -> dict[str, dict[str, Tensor]]:
    """Coefficients and targets of a call."""
    x = torch.linspace(0, 2, num_x, dtype=torch.float64)
    level = torch.arange(1, batch + 1, dtype=torch.float64)
    return {
        "coefficients": {"nu": 0.1 * level},
        "targets": {"initial": 1 + 0.3 * level[:, None] * torch.sin(x), "left": level.rsqrt()},
    }
