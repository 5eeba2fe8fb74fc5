"""Spectral filters: what a step makes of each singular value of the Jacobian.

    step = V f(S) U^T r,    J = U S V^T

One filter tells pseudo-inverse, Levenberg-Marquardt, half-inverse and gradient descent apart. Thresholds and dampings
are relative to the largest singular value, so that they mean the same for every residual.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError


class Filter(ABC):
    """f on the singular values above ``rtol`` times the largest one; the others are dropped."""

    rtol: float

    @abstractmethod
    def __call__(self, s: Tensor) -> Tensor:
        """``f(s)`` for positive values in descending order, the largest first."""

    @property
    def softness(self) -> float:
        """Squares of singular values below this fraction of the largest one are held back."""
        return self.rtol**2

    @abstractmethod
    def softened(self, softness: float) -> "Filter":
        """The same with another :attr:`softness`."""


@dataclass(frozen=True)
class Truncate(Filter):
    """``f(s) = 1/s`` for the ``max_rank`` largest values: the truncated pseudo-inverse.

    Args:
        rtol: in [0, 1).
        max_rank: at least 1; None for all.
    """

    rtol: float = 1e-3
    max_rank: int | None = None

    def __post_init__(self) -> None:
        check_rtol(self.rtol)
        if self.max_rank is not None and self.max_rank < 1:
            raise ArgumentError(f"expected max_rank >= 1 or None, got {self.max_rank}; half the batch is a good value")

    def __call__(self, s: Tensor) -> Tensor:
        """Reciprocals, zero beyond the rank."""
        inverse = 1 / s
        if self.max_rank is not None:
            inverse[self.max_rank :] = 0
        return inverse

    def softened(self, softness: float) -> Filter:
        """Cut off earlier."""
        return replace(self, rtol=max(self.rtol, min(softness, 0.999) ** 0.5))


@dataclass(frozen=True)
class Damp(Filter):
    """``f(s) = s / (s^2 + damping * s_max^2)``: Levenberg-Marquardt, natural gradient in sample space.

    Args:
        damping: >= 0.
        rtol: in [0, 1); with 0 a Cholesky factorisation of the damped matrix does.
    """

    damping: float = 1e-3
    rtol: float = 0.0

    def __post_init__(self) -> None:
        check_rtol(self.rtol)
        if not 0.0 <= self.damping < float("inf"):
            raise ArgumentError(
                f"expected damping >= 0, as a fraction of the largest eigenvalue, got {self.damping}; 1e-6 is usual"
            )

    def __call__(self, s: Tensor) -> Tensor:
        """The damped inverse."""
        return s / (s.square() + self.damping * s[0].square())

    @property
    def softness(self) -> float:
        """The damping."""
        return self.damping

    def softened(self, softness: float) -> Filter:
        """With another damping."""
        return replace(self, damping=softness)


@dataclass(frozen=True)
class Power(Filter):
    """``f(s) = s^exponent``: -1 is the pseudo-inverse, -1/2 the half-inverse, 1 gradient descent.

    Args:
        exponent: any.
        rtol: in [0, 1).
    """

    exponent: float = -0.5
    rtol: float = 1e-6

    def __post_init__(self) -> None:
        check_rtol(self.rtol)

    def __call__(self, s: Tensor) -> Tensor:
        """The power."""
        return s**self.exponent

    def softened(self, softness: float) -> Filter:
        """Cut off earlier."""
        return replace(self, rtol=max(self.rtol, min(softness, 0.999) ** 0.5))


def check_rtol(rtol: float) -> None:
    """Raise an :class:`ArgumentError` unless ``0 <= rtol < 1``."""
    if not 0.0 <= rtol < 1.0:
        raise ArgumentError(f"expected rtol in [0, 1), got {rtol}; 1e-3 is usual, 1e-8 for small float64 problems")


def filtered(filter_: Filter, singular_values: Tensor, floor: float) -> tuple[Tensor, int]:
    """``f(S)``, zero where dropped, and how many are kept.

    Args:
        filter_: the filter.
        singular_values: descending.
        floor: relative size of the noise in them; what is below is dropped too.
    """
    count = int((singular_values > max(filter_.rtol, floor) * singular_values[0]).sum())
    values = torch.zeros_like(singular_values)
    if count:
        values[:count] = filter_(singular_values[:count])
    return values, int(values.count_nonzero())
