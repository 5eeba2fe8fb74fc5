"""Smoothers of textbook multigrid: how far each sweep goes, and which points it touches at a time."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.registry import register_component
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.nodes import Device

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Smoother(ABC):
    """A rule for the sweeps ``u <- u + m B (f - A u)`` with ``B`` near ``w / diag A`` and ``m`` a mask of points."""

    # Colours that a sweep visits one after the other; each costs a residual.
    num_colours = 1

    @abstractmethod
    def relaxations(self, num_sweeps: int, num_dims: int) -> tuple[float, ...]:
        """The factor ``w`` of each of ``num_sweeps`` sweeps, for the Laplacian in ``num_dims`` dimensions."""


@register_component("jacobi")
@dataclass(frozen=True)
class Jacobi(Smoother):
    """All points at once, every sweep with the same factor.

    Args:
        relaxation: ``w`` in (0, 1); by default ``2 d / (2 d + 1)``, the best for the 5-point Laplacian in d dimensions.

    Smoothing factor of the default: ``(2 d - 1) / (2 d + 1)``, which is 1/3, 3/5, 5/7. V(1,1) contracts by 0.36 in 2-D.
    Source: Trottenberg, Oosterlee and Schueller (2001), section 2.1.

    >>> Jacobi().relaxations(2, 2)
    (0.8, 0.8)
    """

    relaxation: float | None = None

    def __post_init__(self) -> None:
        if self.relaxation is not None and not 0 < self.relaxation < 1:
            raise ArgumentError(f"expected a relaxation in (0, 1), got {self.relaxation}; 0.8 is best in 2-D")

    def relaxations(self, num_sweeps: int, num_dims: int) -> tuple[float, ...]:
        """The same number for all."""
        return (self.relaxation or 2 * num_dims / (2 * num_dims + 1),) * num_sweeps


@register_component("chebyshev")
@dataclass(frozen=True)
class Chebyshev(Smoother):
    """All points at once, with the factors that together damp the whole upper half of the spectrum best.

        w_k = 1 / (c + r cos(pi (2 k - 1) / (2 m))),      k = 1..m,      c, r: centre and radius of [1/d, 2]

    for ``m`` sweeps, which damp oscillations by ``1 / T_m(c / r)``: 0.22 for two sweeps in 2-D, where Jacobi has 0.36.
    Costs what Jacobi costs. V(1,1) contracts by 0.21 to 0.23 in 2-D.
    Source: Adams, Brezina, Hu and Tuminaro (2003), J. Comput. Phys. 188.

    >>> [round(w, 4) for w in Chebyshev().relaxations(2, 2)]
    [0.5617, 1.3895]
    """

    def relaxations(self, num_sweeps: int, num_dims: int) -> tuple[float, ...]:
        """Small factors first."""
        centre, radius = (2 + 1 / num_dims) / 2, (2 - 1 / num_dims) / 2
        angles = [math.pi * (2 * k - 1) / (2 * num_sweeps) for k in range(1, num_sweeps + 1)]
        return tuple(1 / (centre + radius * math.cos(angle)) for angle in angles)


@register_component("red_black")
@dataclass(frozen=True)
class RedBlack(Smoother):
    """Gauss-Seidel in two colours like a chess board: each half sees the other's new values.

    A sweep needs two residuals, twice the cost of Jacobi. V(1,1) contracts by 0.12 in 2-D.
    Source: Trottenberg, Oosterlee and Schueller (2001), section 2.1 and 4.5.

    >>> RedBlack().relaxations(2, 2)
    (1.0, 1.0)
    """

    num_colours = 2

    def relaxations(self, num_sweeps: int, num_dims: int) -> tuple[float, ...]:
        """Full steps."""
        return (1.0,) * num_sweeps


def chess_board(shape: Shape, colour: int, *, dtype: torch.dtype, device: Device) -> Tensor:
    """1 where the sum of the indices has the parity of ``colour``, else 0: shape ``shape``."""
    total = torch.zeros((), dtype=torch.int64, device=device)
    for n in shape:
        total = total.unsqueeze(-1) + torch.arange(n, device=device)
    return ((total + colour) % 2 == 0).to(dtype)
