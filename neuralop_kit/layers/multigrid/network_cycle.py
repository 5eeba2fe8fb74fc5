"""A symmetric multigrid cycle for conductance networks that autograd can follow, with given weights."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from neuralop_kit.layers.multigrid.cycles import run_cycle
from neuralop_kit.solvers.pde.network import ConductanceNetwork, sum_of_fluxes
from neuralop_kit.solvers.pde.pairing import Pairing, pair_nodes

# Networks of at most so many nodes are solved by elimination.
DENSE_NODES = 16


class NetworkCycle:
    """``v = M f`` with ``M`` close to the inverse of a network: V-cycle, weighted Jacobi sweeps, weighted correction.

    Symmetric, and positive definite as long as the sweeps of no level amplify: ``|prod_k (1 - w_k x)| < 1`` on (0, 2].

    Args:
        network: one per item of a batch.
        factors: ``w`` of the sweeps per level, coarse to fine, ``(levels, batch, sweeps)``; finer ones share the last.
        corrections: factors of the coarse corrections, ``(levels, batch)``.
    """

    last_level = 0

    def __init__(self, network: ConductanceNetwork, *, factors: Tensor, corrections: Tensor) -> None:
        chain: list[tuple[ConductanceNetwork, list[Pairing]]] = []
        while math.prod(network.shape) > DENSE_NODES:
            coarse, pairings = network, []
            for axis in _strong_axes(network):
                coarse, pairing = pair_nodes(coarse, axis)
                pairings.append(pairing)
            chain.append((network, pairings))
            network = coarse
        # The variant that does not raise: a bad item becomes NaN and leaves its neighbours alone.
        self.coarsest, _ = torch.linalg.cholesky_ex(_dense(network))
        # Level 0 is the coarsest; it has no sweeps.
        self.networks = [network] + [fine for fine, _ in reversed(chain)]
        self.pairings: list[list[Pairing]] = [[]] + [pairings for _, pairings in reversed(chain)]
        self.inverse_diagonals = [1 / _diagonal(network) for network in self.networks]
        self.factors, self.corrections = factors, corrections

    def __call__(self, f: Tensor) -> Tensor:
        """One cycle from zero, ``(batch, *shape)``."""
        return run_cycle(self, len(self.networks) - 1, f, None, "V")

    def pre_smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor:
        """Sweeps in their order."""
        return self._sweep(level, f, u, self._own(self.factors, level).unbind(-1))

    def post_smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor:
        """Sweeps in the opposite order, which makes the cycle symmetric."""
        return self._sweep(level, f, u, self._own(self.factors, level).flip(-1).unbind(-1))

    def solve_coarsest(self, f: Tensor, u: Tensor | None) -> Tensor:
        """Elimination; the guess does not matter."""
        return torch.cholesky_solve(f.flatten(1).unsqueeze(-1), self.coarsest).view(f.shape)

    def residual(self, level: int, f: Tensor, u: Tensor) -> Tensor:
        """``f - A u``."""
        return f - sum_of_fluxes(self.networks[level].fluxes(u))

    def restrict(self, level: int, residual: Tensor) -> Tensor:
        """Transposed prolongation, so loads add up."""
        for pairing in self.pairings[level]:
            residual = _restrict(pairing, residual)
        return residual

    def prolong(self, level: int, correction: Tensor) -> Tensor:
        """By the voltage divider along each axis, times the level's factor."""
        correction = correction * _per_item(self._own(self.corrections, level), correction)
        for pairing in reversed(self.pairings[level]):
            correction = _prolong(pairing, correction)
        return correction

    def _own(self, weights: Tensor, level: int) -> Tensor:
        return weights[min(level, len(weights)) - 1]

    def _sweep(self, level: int, f: Tensor, u: Tensor | None, factors: tuple[Tensor, ...]) -> Tensor:
        for factor in factors:
            step = self.inverse_diagonals[level] * _per_item(factor, f)
            u = step * f if u is None else u + step * self.residual(level, f, u)
        if u is None:
            raise RuntimeError("expected a sweep, got none; this is a bug in neuralop_kit")
        return u


def _per_item(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _strong_axes(network: ConductanceNetwork) -> list[int]:
    """Axes to coarsen: those with more than one node whose spacing is within a factor 1.5 of the smallest."""
    wide = [axis for axis, n in enumerate(network.shape) if n > 1]
    smallest = min(network.spacing[axis] for axis in wide)
    return [axis for axis in wide if network.spacing[axis] < 1.5 * smallest]


def _diagonal(network: ConductanceNetwork) -> Tensor:
    """As the network's own, which is computed on demand under a lock that compilers cannot follow."""
    total = torch.zeros_like(network.conductances[0].narrow(1, 0, network.shape[0]))
    for axis, (c, n) in enumerate(zip(network.conductances, network.shape, strict=True)):
        total = total + c.narrow(1 + axis, 0, n) + c.narrow(1 + axis, 1, n)
    return total


def _dense(network: ConductanceNetwork) -> Tensor:
    """The matrix of a small network, ``(batch, nodes, nodes)``."""
    nodes = math.prod(network.shape)
    like = network.conductances[0]
    batch = like.shape[0]
    unit = torch.eye(nodes, dtype=like.dtype, device=like.device).view(nodes, *network.shape)
    several = ConductanceNetwork([c.repeat_interleave(nodes, 0) for c in network.conductances], network.spacing)
    columns = sum_of_fluxes(several.fluxes(unit.repeat(batch, *[1] * network.num_dims)))
    return columns.reshape(batch, nodes, nodes).mT


def _prolong(pairing: Pairing, coarse: Tensor) -> Tensor:
    """Differentiable :meth:`Pairing.prolong`."""
    dim, count = pairing.dim, coarse.shape[pairing.dim]
    beyond = _pad(coarse, dim, 1, 1)  # the walls' zero
    left, right = beyond.narrow(dim, 0, count), beyond.narrow(dim, 2, count)
    first = torch.lerp(coarse, left, pairing.from_left.narrow(dim, 0, count))
    second = torch.lerp(coarse, right, pairing.from_right.narrow(dim, 1, count))
    return torch.stack([first, second], dim + 1).flatten(dim, dim + 1).narrow(dim, 0, pairing.num_fine)


def _restrict(pairing: Pairing, fine: Tensor) -> Tensor:
    """Transpose of :func:`_prolong`."""
    dim = pairing.dim
    if fine.shape[dim] % 2:
        fine = _pad(fine, dim, 0, 1)
    first, second = fine.unflatten(dim, (-1, 2)).unbind(dim + 1)
    count = first.shape[dim]
    to_left = first * pairing.from_left.narrow(dim, 0, count)
    to_right = second * pairing.from_right.narrow(dim, 1, count)
    own = first - to_left + second - to_right
    from_right = _pad(to_left.narrow(dim, 1, count - 1), dim, 0, 1)
    from_left = _pad(to_right.narrow(dim, 0, count - 1), dim, 1, 0)
    return own + from_right + from_left


def _pad(u: Tensor, dim: int, before: int, after: int) -> Tensor:
    return functional.pad(u, [0, 0] * (u.ndim - 1 - dim) + [before, after])
