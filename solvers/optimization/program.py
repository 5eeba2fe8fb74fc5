"""A batch of convex quadratic programs: its data, its optimality conditions, its units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.optimization.products import times


@dataclass(frozen=True)
class QuadraticProgram:
    """``min 1/2 x.Q x + f.x  subject to  A x = b,  G x <= h``, one per item; constraints may be none in number.

    Args:
        Q: ``(batch, n, n)``, symmetric positive semidefinite.
        f: ``(batch, n)``.
        A, b: ``(batch, p, n)`` and ``(batch, p)``.
        G, h: ``(batch, q, n)`` and ``(batch, q)``.
    """

    Q: Tensor
    f: Tensor
    A: Tensor
    b: Tensor
    G: Tensor
    h: Tensor

    @staticmethod
    def of(
        Q: Tensor, f: Tensor, A: Tensor | None, b: Tensor | None, G: Tensor | None, h: Tensor | None
    ) -> QuadraticProgram:
        """Data that broadcast over the batch of ``f``, with missing constraints filled in by none."""
        if f.ndim != 2:
            raise ShapeError(f"expected f of shape (batch, n), got {tuple(f.shape)}; add a batch axis: f[None]")
        batch, n = f.shape
        return QuadraticProgram(
            _broadcast("Q", Q, (batch, n, n)),
            f,
            *_rows("A", A, "b", b, batch, n, f),
            *_rows("G", G, "h", h, batch, n, f),
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All data, in order."""
        return self.Q, self.f, self.A, self.b, self.G, self.h

    def detach(self) -> QuadraticProgram:
        """Cut off from the graph."""
        return QuadraticProgram(*(t.detach() for t in self.tensors))

    def take(self, index: Tensor) -> QuadraticProgram:
        """The programs of some items."""
        return QuadraticProgram(*(t.index_select(0, index) for t in self.tensors))

    def is_valid(self) -> Tensor:
        """Whether all data are finite and ``Q`` is positive semidefinite up to rounding, ``(batch,)``."""
        finite = torch.stack([t.isfinite().flatten(1).all(dim=1) for t in self.tensors]).all(dim=0)
        size = self.Q.diagonal(dim1=-2, dim2=-1).abs().amax(dim=-1)
        shift = 1e3 * torch.finfo(size.dtype).eps * size + torch.finfo(size.dtype).tiny
        matrix = torch.where(finite.view(-1, 1, 1), self.Q + torch.diag_embed(shift[:, None].expand_as(self.f)), 0.0)
        return finite & (torch.linalg.cholesky_ex(matrix)[1] == 0) | finite & (self.Q == 0).flatten(1).all(dim=1)

    def where(self, mask: Tensor) -> QuadraticProgram:
        """The program where the mask holds, else one with the solution zero."""
        zeros = [torch.where(mask.view(-1, *[1] * (t.ndim - 1)), t, 0.0) for t in self.tensors]
        identity = torch.eye(self.Q.shape[-1], dtype=self.Q.dtype, device=self.Q.device)
        zeros[0] = torch.where(mask.view(-1, 1, 1), zeros[0], identity)
        return QuadraticProgram(*zeros)

    def normalized(self) -> tuple[QuadraticProgram, Tensor, Tensor]:
        """The same program with rows of length one and an objective of order one; and the units of ``y`` and ``z``.

        The multipliers of that program, times these units, are those of this one.
        """
        rows_a, rows_g = _lengths(self.A), _lengths(self.G)
        size = _or_one(torch.maximum(_largest(self.Q.flatten(1)), _largest(self.f)))
        program = QuadraticProgram(
            self.Q / size[:, None, None],
            self.f / size[:, None],
            self.A / rows_a[..., None],
            self.b / rows_a,
            self.G / rows_g[..., None],
            self.h / rows_g,
        )
        return program, size[:, None] / rows_a, size[:, None] / rows_g

    def size(self) -> Tensor:
        """Of what order ``x`` may be expected to be, ``(batch,)``: right-hand sides, or ``|f| / |Q|``; else one."""
        curvature = _largest(self.Q.flatten(1))
        free = torch.where(curvature > 0, _largest(self.f) / curvature, 0.0)
        return _or_one(torch.stack([_largest(self.b), _largest(self.h), free]).amax(dim=0))

    def stationarity(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """``Q x + f + A^T y + G^T z``, zero at the optimum."""
        return times(self.Q, x) + self.f + times(self.A.mT, y) + times(self.G.mT, z)

    def error(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """How far ``(x, y, z)`` is from optimal, ``(batch,)``: the largest of four relative errors.

        Stationarity, relative to its parts; equalities and inequalities, relative to the sizes of ``x`` and the right-
        hand sides; signs of ``z`` and complementarity ``z_i (h - G x)_i``, relative to both. For normalized programs.
        """
        parts = (times(self.Q, x), self.f, times(self.A.mT, y), times(self.G.mT, z))
        force = _or_one(torch.stack([_largest(part) for part in parts]).amax(dim=0))
        size = torch.maximum(_largest(x), self.size())
        slack = self.h - times(self.G, x)
        errors = (
            _largest(self.stationarity(x, y, z)) / force,
            _largest(times(self.A, x) - self.b) / size,
            _largest(slack.clamp_max(0.0)) / size,
            _largest(z.clamp_max(0.0)) / force,
            _largest(torch.minimum(slack / size[:, None], z / force[:, None])),
        )
        return torch.stack(errors).amax(dim=0)


def _largest(values: Tensor) -> Tensor:
    """Largest absolute entry of each item; zero if there is none."""
    return torch.nn.functional.pad(values.abs(), (0, 1)).amax(dim=-1)


def _or_one(values: Tensor) -> Tensor:
    """A unit to measure in, where zero is none."""
    return torch.where(values > 0, values, 1.0)


def _lengths(matrix: Tensor) -> Tensor:
    """Norms of rows, one for rows of zeros."""
    return _or_one(matrix.norm(dim=-1))


def _rows(
    name: str, matrix: Tensor | None, side: str, right: Tensor | None, batch: int, n: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """One kind of constraints, broadcast."""
    if (matrix is None) != (right is None):
        raise ShapeError(f"expected both {name} and {side}, or none of them, got one; pass the other")
    if matrix is None or right is None:
        return like.new_zeros(batch, 0, n), like.new_zeros(batch, 0)
    number = matrix.shape[-2] if matrix.ndim >= 2 else 0
    return _broadcast(name, matrix, (batch, number, n)), _broadcast(side, right, (batch, number))


def _broadcast(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tensor.ndim > len(shape) or any(
        size not in (1, wanted) for size, wanted in zip(tensor.shape[::-1], shape[::-1], strict=False)
    ):
        raise ShapeError(f"expected {name} of shape {shape}, or without batch, got {tuple(tensor.shape)}; reshape it")
    return tensor.expand(shape)
