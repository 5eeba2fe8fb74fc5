"""Coarsening of a conductance network along one axis: nodes pair up, resistors combine in series and in parallel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.pde.network import ConductanceNetwork


@dataclass(frozen=True)
class Pairing:
    """How values move between a network and its half along one axis.

    A coarse node sits in the middle of the resistor that joins its two fine nodes; fine values follow from the coarse
    ones on both sides by the voltage divider, which is linear interpolation where the coefficient is constant and
    keeps the flux continuous where it jumps. :meth:`restrict` is the transpose of :meth:`prolong`.

    Args:
        dim: the axis among the dimensions of a tensor ``(batch, *shape)``.
        num_fine: nodes of the fine network; when odd, the last one stays alone.
        from_left: weight of coarse node I-1 in the first fine node of I, per coarse face.
        from_right: weight of coarse node I in the second fine node of I-1, per coarse face.
    """

    dim: int
    num_fine: int
    from_left: Tensor
    from_right: Tensor

    def prolong(self, coarse: Tensor) -> Tensor:
        """Fine values from coarse values."""
        n, dim = self.num_fine, self.dim
        num_coarse, num_pairs = (n + 1) // 2, n // 2
        shape = list(coarse.shape)
        shape[dim] = n
        fine = coarse.new_empty(shape)
        first, second = every_other(fine, dim, 0), every_other(fine, dim, 1)
        torch.addcmul(coarse, self.from_left.narrow(dim, 0, num_coarse), coarse, value=-1, out=first)
        own = coarse.narrow(dim, 0, num_pairs)
        torch.addcmul(own, self.from_right.narrow(dim, 1, num_pairs), own, value=-1, out=second)
        joints = num_coarse - 1
        first.narrow(dim, 1, joints).addcmul_(self.from_left.narrow(dim, 1, joints), coarse.narrow(dim, 0, joints))
        second.narrow(dim, 0, joints).addcmul_(self.from_right.narrow(dim, 1, joints), coarse.narrow(dim, 1, joints))
        return fine

    def restrict(self, fine: Tensor) -> Tensor:
        """Sums of fine values, weighted as :meth:`prolong` weights."""
        n, dim = self.num_fine, self.dim
        num_coarse, num_pairs = (n + 1) // 2, n // 2
        first, second = every_other(fine, dim, 0), every_other(fine, dim, 1)
        coarse = torch.addcmul(first, self.from_left.narrow(dim, 0, num_coarse), first, value=-1)
        own = coarse.narrow(dim, 0, num_pairs)
        own.add_(second).addcmul_(self.from_right.narrow(dim, 1, num_pairs), second, value=-1)
        joints = num_coarse - 1
        coarse.narrow(dim, 0, joints).addcmul_(self.from_left.narrow(dim, 1, joints), first.narrow(dim, 1, joints))
        coarse.narrow(dim, 1, joints).addcmul_(self.from_right.narrow(dim, 1, joints), second.narrow(dim, 0, joints))
        return coarse


def pair_nodes(network: ConductanceNetwork, axis: int) -> tuple[ConductanceNetwork, Pairing]:
    """The network with half the nodes along ``axis``, and the transfer to it.

    Along ``axis`` a coarse resistor is half of the resistor inside the pair on its left, the one between the pairs, and
    half of the one inside the pair on its right, in series. Across ``axis`` the resistors of a pair are in parallel.
    Both are exact for layers; for a constant coefficient this is the scheme of the coarse grid itself.
    """
    dim, n = 1 + axis, network.shape[axis]
    along = network.conductances[axis]
    between = every_other(along, dim, 0)
    half_inside = 0.5 / every_other(along.narrow(dim, 1, n - 1), dim, 0)
    edge = torch.zeros_like(along.narrow(dim, 0, 1))
    if n % 2:
        # The last node is alone: no resistor inside, and the wall is its own.
        between = torch.cat([between, along.narrow(dim, n, 1)], dim)
        half_inside = torch.cat([half_inside, edge], dim)
    left, right = torch.cat([edge, half_inside], dim), torch.cat([half_inside, edge], dim)
    series = between / (1 + between * (left + right))
    conductances = [series if other == axis else _in_parallel(c, dim) for other, c in enumerate(network.conductances)]
    spacing = [2 * h if other == axis else h for other, h in enumerate(network.spacing)]
    return ConductanceNetwork(conductances, spacing), Pairing(dim, n, right * series, left * series)


def _in_parallel(conductance: Tensor, dim: int) -> Tensor:
    """Conductances of the two nodes of a pair, added."""
    total = every_other(conductance, dim, 0).clone()
    second = every_other(conductance, dim, 1)
    total.narrow(dim, 0, second.shape[dim]).add_(second)
    return total


def every_other(u: Tensor, dim: int, start: int) -> Tensor:
    """The view ``u[..., start::2, ...]`` along ``dim``."""
    return u[(slice(None),) * dim + (slice(start, None, 2),)]
