"""Derivatives of sampled functions along one axis of a domain, and their values on its walls."""

import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.layers.constants import constant
from neuralop_kit.solvers.domain import Axis, Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError


class Derivative(ABC):
    """A way to differentiate along one axis; leaves are plain values and hold no resolution."""

    @abstractmethod
    def __call__(self, u: Tensor, domain: Domain, axis: int, *, order: int) -> Tensor:
        """``d^order u / dx_axis^order`` of a field ``(..., *space)``, on the same points."""


@dataclass(frozen=True)
class SpectralDerivative(Derivative):
    """Derivative of the trigonometric interpolant, on periodic axes: exact for what the grid carries.

    The highest mode of an even axis has no partner of opposite sign, so its odd derivatives are zero.

    >>> x = Domain.periodic((2 * torch.pi,)).coordinates((16,), dtype=torch.float64)
    >>> slope = SpectralDerivative()(torch.sin(3 * x), Domain.periodic((2 * torch.pi,)), 0, order=1)
    >>> (slope - 3 * torch.cos(3 * x)).abs().max().item() < 1e-13
    True
    """

    def __call__(self, u: Tensor, domain: Domain, axis: int, *, order: int) -> Tensor:
        """See :class:`Derivative`; a :class:`DomainError` where the axis is not periodic."""
        if not domain.axes[axis].is_periodic:
            raise DomainError(f"expected a periodic axis {axis}, got {domain}; use FiniteDifference there")
        dim = axis - domain.num_dims
        num_points, order = operator.index(u.shape[dim]), operator.index(order)
        if 0 in u.shape:
            return 0 * u  # Fourier transforms refuse an empty batch; it still has a gradient
        symbol = _symbol(num_points, domain.axes[axis].length, order, u.dtype, u.device).view(-1, *[1] * (-1 - dim))
        power = symbol * 1j if order % 2 else symbol
        return torch.fft.irfft(torch.fft.rfft(u, dim=dim) * power, n=num_points, dim=dim)


@dataclass(frozen=True)
class FiniteDifference(Derivative):
    """Centred differences inside, one-sided ones of the same order near walls, wrapped around where periodic.

    Args:
        accuracy: order in the spacing, even and positive. Good values: 2, 4.

    Raises:
        ArgumentError: the accuracy is odd or not positive. DomainError: the axis has fewer points than the stencil.

    Source: weights as in Fornberg (1988), Math. Comp. 51.

    >>> u = torch.arange(6.0) ** 2
    >>> FiniteDifference()(u, Domain.box((5.0,)), 0, order=1)
    tensor([ 0.,  2.,  4.,  6.,  8., 10.])
    """

    accuracy: int = 2

    def __post_init__(self) -> None:
        if self.accuracy < 2 or self.accuracy % 2:
            raise ArgumentError(f"expected an even accuracy of at least 2, got {self.accuracy}; 2 or 4 are usual")

    def __call__(self, u: Tensor, domain: Domain, axis: int, *, order: int) -> Tensor:
        """See :class:`Derivative`."""
        dim = axis - domain.num_dims
        num_points, order = operator.index(u.shape[dim]), operator.index(order)
        half = (order + 1) // 2 + self.accuracy // 2 - 1
        width = max(order + self.accuracy, 2 * half + 1)
        if num_points < width:
            raise DomainError(f"expected at least {width} points on axis {axis}, got {num_points}; refine the grid")
        spacing = domain.axes[axis].spacing(num_points)
        centred = [float(c) / spacing**order for c in stencil(tuple(range(-half, half + 1)), order)]
        if domain.axes[axis].is_periodic:
            shifted = [c * u.roll(half - i, dims=dim) for i, c in enumerate(centred) if c]
            return torch.stack(shifted).sum(dim=0)
        inner = num_points - 2 * half
        inside = torch.stack([c * u.narrow(dim, i, inner) for i, c in enumerate(centred) if c]).sum(dim=0)
        near = _one_sided(order, self.accuracy, half, u.dtype, u.device) / spacing**order
        first, last = u.narrow(dim, 0, near.shape[1]), u.narrow(dim, num_points - near.shape[1], near.shape[1])
        start = _apply(near, first, dim)
        stop = _apply((-1) ** order * near.flip(0, 1), last, dim)
        return torch.cat([start, inside, stop], dim=dim)


def on_wall(u: Tensor, domain: Domain, axis: int, *, at_stop: bool, order: int, accuracy: int = 4) -> Tensor:
    """``d^order u / dx_axis^order`` on one end of an axis, whether that end is a point or not.

    The polynomial through the nearest ``order + accuracy`` points, as many as there are; on ``vertex`` nodes the value
    itself is exact.

    Shape: ``(..., *space) -> (..., *space without axis)``.

    Raises:
        DomainError: the axis is periodic, so that it has no ends.

    >>> on_wall(torch.tensor([0.5, 1.5, 2.5]), Domain.box((3.0,), nodes="cell"), 0, at_stop=True, order=0)
    tensor(3.)
    """
    description = domain.axes[axis]
    if description.is_periodic:
        raise DomainError(
            f"expected an axis with ends, got the periodic axis {axis} of {domain}; it needs no condition"
        )
    dim = axis - domain.num_dims
    num_points = operator.index(u.shape[dim])
    weights = _wall_weights(description, num_points, order, accuracy, u.dtype, u.device)
    if not at_stop:
        return torch.tensordot(u.narrow(dim, 0, len(weights)), weights, dims=([dim], [0]))
    near = u.narrow(dim, num_points - len(weights), len(weights))
    return torch.tensordot(near, (-1) ** order * weights.flip(0), dims=([dim], [0]))


# A compiler looks through the cache, and would trace the computation.
@lru_cache(maxsize=256)
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def stencil(offsets: tuple[float, ...], order: int) -> tuple[float, ...]:
    """Weights with which values at ``offsets`` give the derivative at 0, exact for polynomials they determine.

    >>> stencil((-1, 0, 1), 2)
    (1.0, -2.0, 1.0)
    """
    # Scaled so that the largest offset is one: powers of large offsets would spoil the system.
    scale = max(max(abs(x) for x in offsets), 1.0)
    powers = np.vander(np.asarray(offsets, dtype=np.float64) / scale, increasing=True).T
    wanted = np.zeros(len(offsets))
    wanted[order] = float(np.prod(np.arange(1, order + 1))) / scale**order
    return tuple(float(w) for w in np.round(np.linalg.solve(powers, wanted), 14))


@constant
def _one_sided(order: int, accuracy: int, number: int) -> NDArray[np.float64]:
    """Weights of the first ``number`` points in terms of the ``order + accuracy`` first ones."""
    width = order + accuracy
    rows = [stencil(tuple(float(j - i) for j in range(width)), order) for i in range(number)]
    return np.asarray(rows).reshape(number, width)


@constant
def _wall_weights(axis: Axis, num_points: int, order: int, accuracy: int) -> NDArray[np.float64]:
    """Weights of the points next to the start, in units of the domain."""
    width = min(order + accuracy, num_points)
    offsets = tuple(axis.placement.offset + i for i in range(width))
    return np.asarray(stencil(offsets, order)) / axis.spacing(num_points) ** order


@constant
def _symbol(num_points: int, length: float, order: int) -> NDArray[np.float64]:
    """Real part of ``(i k)^order``, or its imaginary part for odd orders."""
    k: NDArray[np.float64] = np.asarray(2 * np.pi * np.fft.rfftfreq(num_points, d=length / num_points), np.float64)
    if order % 2 and num_points % 2 == 0:
        k[-1] = 0.0
    return (-1.0) ** (order // 2) * k**order


def _apply(matrix: Tensor, u: Tensor, dim: int) -> Tensor:
    """A matrix along one axis."""
    return torch.tensordot(u, matrix, dims=([dim], [1])).movedim(-1, dim)
