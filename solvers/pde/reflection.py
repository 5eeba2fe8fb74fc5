"""Walls without flux as mirrors: an even continuation makes a field periodic."""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Axis, Domain


class EvenExtension:
    """Continues fields evenly across the Neumann walls of a box; periodic axes stay as they are.

    A smooth field with zero slope at a wall stays smooth (its odd derivatives of higher order must vanish there too for
    spectral accuracy, which equations that are invariant under reflection preserve).

    Args:
        domain: any box of periodic and Neumann axes.

    >>> extension = EvenExtension(Domain.box((1.0,), boundary="neumann", nodes="cell"))
    >>> extension.extend(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[1., 2., 3., 3., 2., 1.]]])
    >>> extension.domain.lengths
    (2.0,)
    """

    def __init__(self, domain: Domain) -> None:
        self._mirrored = tuple(axis.boundary == "neumann" for axis in domain.axes)
        self._vertex = tuple(axis.nodes == "vertex" for axis in domain.axes)
        self.domain = Domain([_doubled(axis) if axis.boundary == "neumann" else axis for axis in domain.axes])

    def extend(self, u: Tensor) -> Tensor:
        """The field on the periodic box of up to twice the lengths."""
        dims = range(-len(self._mirrored), 0)
        for dim, mirrored, vertex in zip(dims, self._mirrored, self._vertex, strict=True):
            if mirrored:
                # On vertex nodes the two wall points are their own mirror images.
                image = u.narrow(dim, 1, u.shape[dim] - 2) if vertex else u
                u = torch.cat([u, image.flip(dim)], dim=dim)
        return u

    def restrict(self, u: Tensor, shape: Sequence[int]) -> Tensor:
        """The part of an extended field that lies in the box, of the given shape."""
        for dim, n in zip(range(-len(self._mirrored), 0), shape, strict=True):
            u = u.narrow(dim, 0, n)
        return u


def _doubled(axis: Axis) -> Axis:
    nodes = "left" if axis.nodes == "vertex" else "cell"
    return Axis(axis.start, axis.stop + axis.length, "periodic", nodes)
