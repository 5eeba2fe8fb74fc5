"""Bilinear finite elements (Q1) on a rectangle: element integrals by Gauss points, as nine-point matrices."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.pde.nine_point import OFFSETS, NinePointMatrix

# Gauss's three points and weights on (0, 1): exact to degree 5.
POINTS = tuple(0.5 + 0.5 * t for t in (-math.sqrt(0.6), 0.0, math.sqrt(0.6)))
WEIGHTS = (5 / 18, 8 / 18, 5 / 18)


@dataclass(frozen=True)
class BilinearElements:
    """Elements between the vertex nodes of a box in two dimensions; float64.

    Args:
        domain: a box of two axes with vertex nodes.
        shape: nodes per axis.
        device: where to compute.
    """

    domain: Domain
    shape: tuple[int, int]
    device: Device = None

    def quadrature_lines(self) -> tuple[Tensor, Tensor]:
        """Coordinates of the Gauss points along each axis, three per element, ``(3 (n - 1),)``."""
        offsets = torch.tensor(POINTS, dtype=torch.float64, device=self.device)
        lines = []
        for axis, (n, h) in enumerate(zip(self.shape, self._spacing, strict=True)):
            left = self.domain.axis_coordinates(axis, n, device=self.device)[:-1]
            lines.append((left[:, None] + h * offsets).flatten())
        return lines[0], lines[1]

    def quadrature_points(self) -> Tensor:
        """The same as a grid, ``(2, 3 (n_x - 1), 3 (n_y - 1))``."""
        return torch.stack(torch.meshgrid(*self.quadrature_lines(), indexing="ij"))

    def interpolate(self, u: Tensor) -> Tensor:
        """Nodal fields ``(batch, n_x, n_y)`` at the Gauss points."""
        values, _ = self._shape_functions()
        for dim in (-2, -1):
            ends = torch.stack([u.narrow(dim, 0, u.shape[dim] - 1), u.narrow(dim, 1, u.shape[dim] - 1)], dim=-1)
            at_points = (ends @ values).movedim(-1, dim)
            u = at_points.flatten(-3, -2) if dim == -2 else at_points.flatten(-2)
        return u

    def matrix(self, along_x: Tensor, along_y: Tensor, mass: Tensor) -> NinePointMatrix:
        """``integral of  along_x u_x v_x + along_y u_y v_y + mass u v``.

        Args:
            along_x, along_y, mass: at the Gauss points, ``(batch or 1, 3 (n_x - 1), 3 (n_y - 1))``.
        """
        (mass_x, stiff_x), (mass_y, stiff_y) = self._element_tables(0), self._element_tables(1)
        local = self._local(along_x, stiff_x, mass_y) + self._local(along_y, mass_x, stiff_y)
        local = local + self._local(mass, mass_x, mass_y)
        sums: dict[tuple[int, ...], Tensor] = {}
        for ax in (0, 1):
            for bx in (0, 1):
                for ay in (0, 1):
                    for by in (0, 1):
                        part = pad(local[:, ax, bx, ay, by], (ay, 1 - ay, ax, 1 - ax))
                        offset = (bx - ax, by - ay)
                        sums[offset] = part + sums[offset] if offset in sums else part
        return NinePointMatrix(torch.stack([sums[offset] for offset in OFFSETS], dim=1))

    def load(self, source: Tensor) -> Tensor:
        """``integral of f v`` for nodal ``f``, ``(batch, n_x, n_y)``."""
        one, zero = self._constant(1.0), self._constant(0.0)
        return self.matrix(zero, zero, one).apply(source)

    def edge_load(self, flux: Tensor, axis: int) -> Tensor:
        """``integral of g v`` over one wall, from nodal ``g``, ``(batch, n)``; ``axis`` is the one along the wall."""
        h, right, left = self._spacing[axis], flux[..., 1:], flux[..., :-1]
        return h / 6 * (pad(2 * left + right, (0, 1)) + pad(left + 2 * right, (1, 0)))

    def edge_matrix(self, weight: Tensor, axis: int) -> Tensor:
        """``integral of k u v`` over one wall, from nodal ``k``: bands ``(batch, 3, n)`` for neighbours -1, 0, +1."""
        values, _ = self._shape_functions()
        mass, _ = self._element_tables(axis)
        at_points = torch.stack([weight[..., :-1], weight[..., 1:]], dim=-1) @ values
        local = torch.einsum("zxp,abp->zabx", at_points, mass.to(weight.dtype))
        below, above = pad(local[:, 1, 0], (1, 0)), pad(local[:, 0, 1], (0, 1))
        middle = pad(local[:, 0, 0], (0, 1)) + pad(local[:, 1, 1], (1, 0))
        return torch.stack([below, middle, above], dim=1)

    @property
    def _spacing(self) -> tuple[float, ...]:
        return self.domain.spacing(self.shape)

    def _constant(self, value: float) -> Tensor:
        size = [1, *(3 * (n - 1) for n in self.shape)]
        return torch.full(size, value, dtype=torch.float64, device=self.device)

    def _shape_functions(self) -> tuple[Tensor, Tensor]:
        """Hat functions ``(2, 3)`` at the Gauss points of an element, and the weights."""
        t = torch.tensor(POINTS, dtype=torch.float64, device=self.device)
        return torch.stack([1 - t, t]), torch.tensor(WEIGHTS, dtype=torch.float64, device=self.device)

    def _element_tables(self, axis: int) -> tuple[Tensor, Tensor]:
        """What each Gauss point adds to ``integral N_a N_b`` and ``integral N'_a N'_b``, ``(2, 2, 3)`` each."""
        values, weights = self._shape_functions()
        h, sign = self._spacing[axis], torch.tensor([-1.0, 1.0], dtype=torch.float64, device=self.device)
        mass = h * weights * values[:, None] * values
        return mass, weights / h * sign[:, None, None] * sign[:, None]

    def _local(self, weight: Tensor, table_x: Tensor, table_y: Tensor) -> Tensor:
        """Element matrices ``(batch, a_x, b_x, a_y, b_y, elements_x, elements_y)`` of one term."""
        cells = weight.unflatten(-1, (-1, 3)).unflatten(-3, (-1, 3))
        half = torch.einsum("zxpyq,cdq->zxpycd", cells, table_y.to(weight.dtype))
        return torch.einsum("zxpycd,abp->zabcdxy", half, table_x.to(weight.dtype))
