"""Slopes inside cells from the differences to both neighbours: second order where smooth, none where it would ring."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Limiter(ABC):
    """Elementwise mean of two neighbouring differences; leaves have no state."""

    @abstractmethod
    def __call__(self, backward: Tensor, forward: Tensor) -> Tensor:
        """Slope (times the spacing) from ``u_i - u_(i-1)`` and ``u_(i+1) - u_i``."""


@dataclass(frozen=True)
class Central(Limiter):
    """``(a + b)/2``: no limiting; for smooth solutions only, where it has the full order."""

    def __call__(self, backward: Tensor, forward: Tensor) -> Tensor:
        """The arithmetic mean."""
        return (backward + forward) / 2


@dataclass(frozen=True)
class Minmod(Limiter):
    """The smaller one, 0 where signs differ: the most careful, and the most smearing.

    >>> Minmod()(torch.tensor([1.0, 1.0]), torch.tensor([3.0, -1.0]))
    tensor([1., 0.])
    """

    def __call__(self, backward: Tensor, forward: Tensor) -> Tensor:
        """The smaller in size."""
        smaller = torch.minimum(backward.abs(), forward.abs())
        return torch.where(backward * forward > 0, torch.sign(backward) * smaller, 0.0)


@dataclass(frozen=True)
class VanLeer(Limiter):
    """``2ab/(a+b)``, the harmonic mean, 0 where signs differ. Source: van Leer (1974), J. Comput. Phys. 14."""

    def __call__(self, backward: Tensor, forward: Tensor) -> Tensor:
        """The harmonic mean."""
        product = backward * forward
        total = torch.where(product > 0, backward + forward, 1.0)
        return torch.where(product > 0, 2 * product / total, 0.0)


@dataclass(frozen=True)
class MonotonizedCentral(Limiter):
    """``(a+b)/2``, but at most ``2a`` and ``2b``: sharp and still monotone. Source: van Leer (1977)."""

    def __call__(self, backward: Tensor, forward: Tensor) -> Tensor:
        """The arithmetic mean, limited."""
        bound = 2 * torch.minimum(backward.abs(), forward.abs())
        size = torch.minimum((backward + forward).abs() / 2, bound)
        return torch.where(backward * forward > 0, torch.sign(backward) * size, 0.0)
