"""Smooth windows over overlapping boxes, which sum to one, and their derivatives."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from neuralop_kit.constraints.partition import Partition
from neuralop_kit.solvers.domain import Axis
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.nodes import Device

# Coefficients, lowest first, of the polynomials from 0 to 1 whose first p derivatives vanish at both ends.
_STEPS = {1: (0.0, 0.0, 3.0, -2.0), 2: (0.0, 0.0, 0.0, 10.0, -15.0, 6.0)}


@dataclass(frozen=True)
class Windows:
    """A partition of unity: ``sum_k chi_k = 1``, with ``chi_k`` one inside its box and zero ``width/2`` outside.

        chi_k = S((x - a_k) / width + 1/2) - S((x - b_k) / width + 1/2)          for the box (a_k, b_k), per axis

    and products over the axes; ``S`` is the polynomial step with ``smoothness`` continuous derivatives. On periodic
    axes the windows go around. At walls nothing is faded.

    Args:
        partition: the boxes.
        width: of the strips in which neighbours overlap, per axis, in the unit of the domain; positive, at most the
            length of the shortest box.
        smoothness: 1 (``3 s^2 - 2 s^3``) or 2 (``6 s^5 - 15 s^4 + 10 s^3``). Take the order of the equation.

    Raises:
        ArgumentError: the smoothness is neither 1 nor 2. DomainError: a width does not fit its axis.

    >>> from neuralop_kit import Domain
    >>> windows = Windows(Partition(Domain.box((1.0,)), (2,)), width=(0.5,))
    >>> windows((5,), orders=(0,))[0]
    tensor([1.0000, 1.0000, 0.5000, 0.0000, 0.0000], dtype=torch.float64)
    """

    partition: Partition
    width: tuple[float, ...]
    smoothness: int = 2

    def __post_init__(self) -> None:
        if self.smoothness not in _STEPS:
            raise ArgumentError(f"expected a smoothness of 1 or 2, got {self.smoothness}; 2 serves second derivatives")
        partition = self.partition
        for axis, cuts, width in zip(partition.domain.axes, partition.cuts, self.width, strict=True):
            shortest = min(b - a for a, b in pairwise((axis.start, *cuts, axis.stop)))
            if cuts and not 0 < width <= shortest * (1 + 1e-12):
                raise DomainError(
                    f"expected a positive overlap of at most the shortest box, {shortest:g}, got {width:g}; narrow it"
                )

    def __call__(self, shape: Sequence[int], *, orders: Sequence[int], device: Device = None) -> Tensor:
        """Derivatives of all windows, of the given order along each axis: float64, ``(experts, *shape)``."""
        product = torch.ones((1,), dtype=torch.float64, device=device)
        for index, (n, order) in enumerate(zip(shape, orders, strict=True)):
            line = self._along(index, n, order, device)
            product = product.unsqueeze(-1).unsqueeze(1) * line.view(1, -1, *[1] * index, n)
            product = product.flatten(0, 1)
        return product

    def _along(self, index: int, num_points: int, order: int, device: Device) -> Tensor:
        """Windows of one axis, ``(parts, num_points)``."""
        axis, cuts = self.partition.domain.axes[index], self.partition.cuts[index]
        x = self.partition.domain.axis_coordinates(index, num_points, device=device)
        if not cuts:
            return torch.full_like(x, float(order == 0)).unsqueeze(0)
        steps = [self._step(x, axis, cut, self.width[index], order) for cut in cuts]
        if axis.is_periodic:
            # The first box begins where the last one ends; one period later the step has risen once more.
            begin = self._step(x, axis, axis.start, self.width[index], order)
            end = self._step(x, axis, axis.stop, self.width[index], order)
        else:
            begin, end = torch.full_like(x, float(order == 0)), torch.zeros_like(x)
        return torch.stack([a - b for a, b in pairwise([begin, *steps, end])])

    def _step(self, x: Tensor, axis: Axis, cut: float, width: float, order: int) -> Tensor:
        """``S`` around a cut, with its periodic images; those that have risen for good differ by constants only."""
        value = self._smooth((x - cut) / width + 0.5, order) / width**order
        if axis.is_periodic:
            for image in (cut - axis.length, cut + axis.length):
                value = value + self._smooth((x - image) / width + 0.5, order) / width**order
        return value

    def _smooth(self, s: Tensor, order: int) -> Tensor:
        """Derivative of the polynomial step with respect to ``s``."""
        coefficients = list(_STEPS[self.smoothness])
        for _ in range(order):
            coefficients = [i * c for i, c in enumerate(coefficients)][1:]
        inside = s.clamp(0, 1)
        value = torch.zeros_like(s)
        for c in reversed(coefficients):
            value = value * inside + c
        return value if order == 0 else torch.where((s > 0) & (s < 1), value, 0.0)
