"""Sums of slopes with the numbers of a tableau."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.ode.tableau import Row


@dataclass(frozen=True)
class WeightedSum:
    """A sum in which all weights are relative to the largest one.

        sum_i weights_i x_i = unit * (x_first + sum_i ratio_i x_i)

    The bracket is one operation per weight that is not zero, less one; whoever scales it by a step size takes ``unit``
    along.

    Args:
        unit, first: the weight of the largest size, and its place.
        others: places and ratios of those that are not zero.

    >>> WeightedSum.of((1.0, 0.0, -4.0))
    WeightedSum(unit=-4.0, first=2, others=((0, -0.25),))
    """

    unit: float
    first: int
    others: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, weights: Row) -> "WeightedSum":
        """Of weights that are not all zero."""
        first, *others = by_size(weights)
        return cls(weights[first], first, tuple((i, weights[i] / weights[first]) for i in others))

    def bracket(self, terms: Sequence[Tensor]) -> Tensor:
        """The sum divided by ``unit``."""
        total = terms[self.first]
        for i, ratio in self.others:
            total = torch.add(total, terms[i], alpha=ratio)
        return total


@dataclass(frozen=True)
class Contrast:
    """A sum whose weights cancel: how far one term is from a mean of the others.

        sum_i weights_i x_i = unit * (x_first - mean),   mean <- mean + share_i (x_i - mean),  beginning at x_second

    Costs what the sum costs, but rounds the differences of the terms and not the terms: exactly zero where all are
    equal, where a sum in float32 would be an error estimate of its own.

    Args:
        unit, first: the weight of the largest size, and its place.
        second: where the mean begins.
        others: places and shares, from the largest weight to the smallest.

    >>> Contrast.of((-1.0, -3.0, 4.0))
    Contrast(unit=4.0, first=2, second=1, others=((0, 0.25),))
    """

    unit: float
    first: int
    second: int
    others: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, weights: Row) -> "Contrast":
        """Of weights with sum zero, at least two of which are not zero."""
        first, second, *others = by_size(weights)
        sums = itertools.accumulate(weights[i] for i in (second, *others))
        next(sums)
        return cls(weights[first], first, second, tuple((i, weights[i] / s) for i, s in zip(others, sums, strict=True)))

    def bracket(self, terms: Sequence[Tensor]) -> Tensor:
        """The sum divided by ``unit``."""
        mean = terms[self.second]
        for i, share in self.others:
            mean = torch.lerp(mean, terms[i], share)
        return terms[self.first] - mean


def by_size(weights: Row) -> list[int]:
    """Places of the weights that are not zero, the largest first."""
    return sorted((i for i, weight in enumerate(weights) if weight), key=lambda i: -abs(weights[i]))


def add_up(start: Tensor | None, weights: Row, terms: list[Tensor]) -> Tensor:
    """``start + sum_i weights_i terms_i``, one fused multiply-add per weight that is not zero."""
    total = start
    for weight, term in zip(weights, terms, strict=False):
        if weight:
            total = term * weight if total is None else torch.add(total, term, alpha=weight)
    if total is None:
        return torch.zeros_like(terms[0])
    return total
