"""Brownian motion as a function of time: any query, in any order, always on the same path."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.sde.counters import name_keys, normal_pairs


class BrownianPoint(NamedTuple):
    """The path up to one time: ``value`` W(t) and ``area``, the integral of W from the start to t."""

    value: Tensor
    area: Tensor


class BrownianIncrement(NamedTuple):
    """What a step needs to know of the path: W(t) - W(s), variance h, and the space-time area H, variance h/12.

        H = 1/h * integral_s^t (W(r) - W(s)) dr - (W(t) - W(s)) / 2,      independent of the increment itself

    Both have shape ``(batch, *size)``.
    """

    value: Tensor
    area: Tensor


class BrownianPath(Protocol):
    """What can drive an equation: anything that tells the path and its integral at a time."""

    def at(self, t: Tensor | float, /) -> BrownianPoint:
        """The path at ``t``: one number, or ``(batch,)`` or ``(1,)``."""
        ...


class BrownianTree:
    """A batch of independent Brownian paths on ``[start, stop]``, none of it stored: white noise in a wavelet basis.

        W(t) = integral_start^t sum_nodes (xi_n psi_n + eta_n chi_n) dr

    The basis: on the whole interval the constant and the linear function, and on each node of the binary tree below it
    two functions, linear on either half and orthogonal to all linear functions. Therefore only the ``depth`` nodes
    around ``t`` contribute to ``W(t)`` and to its integral, with weights that are polynomials in the place of ``t`` in
    the node. The normal numbers are hashes of seed, node, sample and element: no state, no recursion, no cache.
    Same seed, same path, whatever was asked before, at any tolerance, for one sample or in a batch of many.

    At the ``2^depth + 1`` ends of the leaves the law is exact, jointly for all of them and for their space-time areas.
    Between them one more pair of numbers makes the law of each single point exact; two points in the same leaf
    know too little of each other. So ``(stop - start) / 2^depth`` should be below the smallest step.

    Args:
        start, stop: times, ``start < stop``.
        size: ``(batch, *event)``, of the state that is driven; one motion for every element.
        generator: where the seed comes from, by default torch's global one; it is used once.
        depth: levels of the tree, 1 to 40. The cost of a query is proportional to it.
        device: where the answers live; by default the CPU.

    Answers are float64, also for states of less precision: areas of short steps are small differences.

    Raises:
        ArgumentError: the interval is empty, there is no batch, or the depth is out of range.

    Source: conditional laws of (W, H) from Foster, Lyons and Oberhauser (2020), SIAM J. Numer. Anal. 58; virtual trees
    from Li et al. (2020), arXiv 2001.01328. The basis is the multiwavelet basis of Alpert (1993) of order 2.

    >>> tree = BrownianTree(0.0, 1.0, (1000, 3), generator=torch.Generator().manual_seed(0))
    >>> increment = tree.increment(0.25, 0.75)
    >>> round(increment.value.var().item(), 1), round(12 * increment.area.var().item(), 1)
    (0.5, 0.5)
    """

    def __init__(
        self,
        start: float,
        stop: float,
        size: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        depth: int = 18,
        device: Device = None,
    ) -> None:
        if not (math.isfinite(start) and math.isfinite(stop) and start < stop):
            raise ArgumentError(
                f"expected finite times with start < stop, got {start} and {stop}; swap or correct them"
            )
        if not size or min(size) < 1:
            raise ArgumentError(
                f"expected a size (batch, *event) of positive numbers, got {tuple(size)}; give the state's shape"
            )
        if not 1 <= depth <= 40:
            raise ArgumentError(f"expected a depth from 1 to 40, got {depth}; 18 resolves a part in 260,000")
        self.start, self.stop, self.depth = float(start), float(stop), depth
        self.size = tuple(size)
        device = torch.device("cpu") if device is None else torch.device(device)
        place = torch.device("cpu") if generator is None else generator.device
        seeds = torch.randint(-(2**62), 2**62, (2,), generator=generator, device=place).tolist()
        self._seed = int(seeds[0])
        elements = torch.arange(math.prod(self.size), device=device).view(self.size[0], -1)
        self._elements = name_keys(elements, int(seeds[1]))
        # Level l has 2^l nodes; they are numbered 2^l, 2^l + 1, ... as in a heap, and the whole interval is number 0.
        self._levels = 2.0 ** torch.arange(depth + 1, dtype=torch.float64, device=device)
        length = self.stop - self.start
        self._polynomials = _polynomials(length, length / self._levels[:-1])

    def at(self, t: Tensor | float) -> BrownianPoint:
        """The path at ``t``: a number, or one per sample, ``(batch,)``; NaN outside of ``[start, stop]``."""
        times = torch.as_tensor(t, dtype=torch.float64, device=self._elements.device).reshape(-1)
        place = (times - self.start) / (self.stop - self.start)
        # At the very end the last node is the right one, and the place in it is 1.
        scaled = self._levels[:, None] * place
        node = torch.minimum(scaled.floor(), self._levels[:, None] - 1).clamp_min_(0)
        names = torch.cat([torch.zeros_like(node[:1]), self._levels[:, None] + node]).long()
        weights = self._weights(place, scaled - node)
        numbers = normal_pairs(name_keys(names, self._seed)[..., None] + self._elements)
        if len(times) == 1:
            value, area = weights.view(2, -1) @ numbers.view(2 * len(names), -1)
        else:
            value, area = (weights.unflatten(0, (2, 2))[..., None] * numbers).sum(dim=(1, 2))
        outside = torch.where((place >= 0) & (place <= 1), 0.0, torch.nan)
        return BrownianPoint(*((x.view(len(times), -1) + outside[:, None]).view(self.size) for x in (value, area)))

    def increment(self, s: Tensor | float, t: Tensor | float) -> BrownianIncrement:
        """What happened from ``s`` to ``t``, two numbers or ``(batch,)`` each, ``s < t``."""
        lengths = torch.as_tensor(t, dtype=torch.float64, device=self._elements.device) - s
        return increment_between(self.at(s), self.at(t), lengths.reshape(-1, *[1] * (len(self.size) - 1)))

    def _weights(self, place: Tensor, inside: Tensor) -> Tensor:
        """Of the two numbers of each node in W(t), and of both in its integral: ``(4, depth + 2, times)``.

        Args:
            place: of t in the whole interval, 0 to 1, ``(times,)``.
            inside: of t in the node of each level, ``(depth + 1, times)``; the last level are the leaves.
        """
        branch = inside[:-1]
        x = torch.cat([place[None], 2 * torch.minimum(branch, 1 - branch)])
        linear, square, cube = self._polynomials
        found = ((cube * x + square) * x + linear) * x
        found[1:3, 1:] *= torch.where(branch < 0.5, 1.0, -1.0)
        return torch.cat([found, _leaf(inside[-1], (self.stop - self.start) / 2**self.depth)[:, None]], dim=1)


def increment_between(left: BrownianPoint, right: BrownianPoint, h: Tensor) -> BrownianIncrement:
    """Increment and space-time area over a step between two known points.

    Args:
        left, right: the path at the ends of the step.
        h: length of the step, positive; broadcasts against the path.
    """
    value = right.value - left.value
    return BrownianIncrement(value, (right.area - left.area) / h - left.value - value / 2)


def _polynomials(length: float, lengths: Tensor) -> Tensor:
    """Coefficients of x, x^2 and x^3 in the weights: of both numbers in W and in its integral; ``(3, 4, nodes, 1)``.

    For the whole interval, first, x is the place of t and the weights are the mean of the path given its W and H:

        v x,   6 a x (1 - x),   L v x^2 / 2,   L a x^2 (3 - 2 x),      v = sqrt(L), a = sqrt(L / 12)

    For a node, x is the distance from its nearer end in units of half its length l. Its left half gets z xi in W and
    (n eta - z xi) / 2 in H, the right half -z xi and -(n eta + z xi) / 2, with z = sqrt(l) / 4, n = sqrt(l / 12). The
    second and the third weight change their sign in the right half:

        z x (3 x - 2),   3 n x (1 - x),   -l z x^2 (1 - x) / 2,   l n x^2 (3 - 2 x) / 4

    Args:
        length: of the whole interval.
        lengths: of the nodes by level, without the leaves, ``(depth,)``.
    """
    v, a = torch.tensor([length, length / 12], dtype=lengths.dtype, device=lengths.device).sqrt()[:, None]
    z, n, zero = lengths.sqrt() / 4, (lengths / 12).sqrt(), torch.zeros_like(lengths)
    nought = torch.zeros_like(v)
    trunk = [[v, 6 * a, nought, nought], [nought, -6 * a, length * v / 2, 3 * length * a],
             [nought, nought, nought, -2 * length * a]]  # fmt: skip
    nodes = [[-2 * z, 3 * n, zero, zero], [3 * z, -3 * n, -lengths * z / 2, 0.75 * lengths * n],
             [zero, zero, lengths * z / 2, -lengths * n / 2]]  # fmt: skip
    rows = [[torch.cat(pair) for pair in zip(*powers, strict=True)] for powers in zip(trunk, nodes, strict=True)]
    return torch.stack([torch.stack(row) for row in rows])[..., None]


def _leaf(x: Tensor, length: float) -> Tensor:
    """The law of one more point in a leaf, beside its mean: W from the first number, the integral from both."""
    left, right = x**3, (1 - x) ** 3
    size = (left + right).sqrt()
    root = (x * (1 - x)).clamp_min(0).sqrt()
    value = size * root
    first = x * value / 2 - left * root / (2 * size)
    second = (3 * left * right).clamp_min(0).sqrt() / (6 * size)
    scale = math.sqrt(length)
    return torch.stack([scale * value, torch.zeros_like(x), length * scale * first, length * scale * second])
