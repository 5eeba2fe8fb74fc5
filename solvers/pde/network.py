"""A grid of nodes joined by conductances: what every second-order scheme for -div(a grad u) becomes."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor


class ConductanceNetwork:
    """The symmetric matrix of a resistor network on a d-dimensional grid, one per item of a batch.

        (A u)_i = sum over the 2d faces of node i of  c_face (u_i - u_neighbour)

    Neighbours beyond a wall have the value 0. A conductance is coefficient * area / distance; at a wall that carries
    no flux it is 0. With positive conductances, and one wall that does carry flux, ``A`` is positive definite.

    Args:
        conductances: one tensor per axis, shape ``(batch, *faces)``: along its own axis one face more than nodes.
        spacing: distance of neighbouring nodes per axis; says which axes are strongly coupled, nothing else.
    """

    def __init__(self, conductances: Sequence[Tensor], spacing: Sequence[float]) -> None:
        self.conductances = tuple(conductances)
        self.spacing = tuple(spacing)

    @property
    def num_dims(self) -> int:
        """Number of space axes."""
        return len(self.conductances)

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes per axis."""
        return tuple(c.shape[1 + axis] - 1 for axis, c in enumerate(self.conductances))

    @cached_property
    def diagonal(self) -> Tensor:
        """Sum of the conductances around each node, shape ``(batch, *shape)``."""
        total = torch.zeros((), dtype=self.conductances[0].dtype, device=self.conductances[0].device)
        for axis, (c, n) in enumerate(zip(self.conductances, self.shape, strict=True)):
            total = total + c.narrow(1 + axis, 0, n) + c.narrow(1 + axis, 1, n)
        return total

    def apply(self, u: Tensor) -> Tensor:
        """``A u``, shape ``(..., batch, *shape)`` as ``u``; not recorded by autograd (:meth:`fluxes` is)."""
        return self._add_neighbours(self.diagonal * u, u, -1.0)

    def residual(self, rhs: Tensor, u: Tensor) -> Tensor:
        """``rhs - A u`` in one pass less than :meth:`apply` and a subtraction."""
        return self._add_neighbours(torch.addcmul(rhs, self.diagonal, u, value=-1), u, 1.0)

    def _add_neighbours(self, out: Tensor, u: Tensor, factor: float) -> Tensor:
        """Add ``factor * conductance * neighbour`` over all faces between nodes, in place."""
        for axis, (c, n) in enumerate(zip(self.conductances, self.shape, strict=True)):
            # Counted from the end, so that further leading axes of u broadcast.
            dim = axis - self.num_dims
            inner = c.narrow(dim, 1, n - 1)
            out.narrow(dim, 1, n - 1).addcmul_(inner, u.narrow(dim, 0, n - 1), value=factor)
            out.narrow(dim, 0, n - 1).addcmul_(inner, u.narrow(dim, 1, n - 1), value=factor)
        return out

    def differences(self, u: Tensor) -> tuple[Tensor, ...]:
        """``u_(i) - u_(i-1)`` across every face, 0 beyond the walls; one tensor ``(batch, *faces)`` per axis."""
        result = []
        for dim in range(1, 1 + self.num_dims):
            outside = torch.zeros_like(u.narrow(dim, 0, 1))
            result.append(torch.diff(u, dim=dim, prepend=outside, append=outside))
        return tuple(result)

    def fluxes(self, u: Tensor) -> tuple[Tensor, ...]:
        """Flux through every face in the direction of its axis, ``-c (u_(i) - u_(i-1))``."""
        return tuple(-c * jump for c, jump in zip(self.conductances, self.differences(u), strict=True))

    def to(self, dtype: torch.dtype) -> "ConductanceNetwork":
        """The same network in another precision."""
        return ConductanceNetwork([c.to(dtype) for c in self.conductances], self.spacing)

    def is_finite(self) -> Tensor:
        """Which items have finite conductances, bool, ``(batch,)``."""
        return torch.stack([c.isfinite().flatten(1).all(dim=1) for c in self.conductances]).all(dim=0)

    def is_positive(self) -> Tensor:
        """Which items have finite conductances, positive between nodes and >= 0 at walls, bool, ``(batch,)``."""
        positive = self.is_finite()
        for axis, (c, n) in enumerate(zip(self.conductances, self.shape, strict=True)):
            inner = c.narrow(1 + axis, 1, n - 1)
            positive = positive & (c >= 0).flatten(1).all(dim=1) & (inner > 0).flatten(1).all(dim=1)
        return positive


def sum_of_fluxes(fluxes: Sequence[Tensor]) -> Tensor:
    """What leaves each node, minus what enters: the divergence times the node's volume, ``(batch, *shape)``."""
    return torch.stack([torch.diff(flux, dim=1 + axis) for axis, flux in enumerate(fluxes)]).sum(dim=0)
