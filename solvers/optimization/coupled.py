"""Least-squares problems that would be independent, were it not for a few linear rows between them."""

import torch
from torch import Tensor

from neuralop_kit.solvers.optimization.pointwise import LinearRows
from neuralop_kit.solvers.optimization.problem import LeastSquaresProblem
from neuralop_kit.solvers.optimization.products import times


class CoupledProblem(LeastSquaresProblem):
    """Several problems per item, joined:  ``F(w) = sum_k F_k(w_k) + 1/2 |C w - d|^2``,  ``w = (w_1, ..., w_K)``.

    Hessian and ``J^T J`` are block diagonal but for ``C^T C``, so that the blocks cost what they cost alone, and a step
    one dense factorisation of size ``K * num_unknowns``: for a few thousand unknowns per item, not more.

    Args:
        blocks: ``F_k``, a problem of batch ``batch * num_blocks``, the blocks of an item next to each other.
        num_blocks: K.
        coupling: ``C`` and ``d``, of shapes ``(batch, num_rows, num_blocks * num_unknowns)`` and ``(batch, num_rows)``.
    """

    def __init__(self, blocks: LeastSquaresProblem, num_blocks: int, coupling: LinearRows) -> None:
        self.blocks, self.num_blocks, self.coupling = blocks, num_blocks, coupling

    def rows(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`LeastSquaresProblem`."""
        residual, jacobian = self.blocks.rows(self._apart(w))
        residuals = [self._join(residual), self.coupling.residual(w)]
        return torch.cat(residuals, dim=1), torch.cat([self._diagonal(jacobian), self.coupling.matrix], dim=1)

    def normal_equations(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`LeastSquaresProblem`."""
        return self._joined(w, *self.blocks.normal_equations(self._apart(w)))

    def newton_equations(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See :class:`LeastSquaresProblem`."""
        cost, gradient, square, hessian = self.blocks.newton_equations(self._apart(w))
        return *self._joined(w, cost, gradient, square), self._diagonal(hessian) + self._square()

    def gradient(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`."""
        return self._join(self.blocks.gradient(self._apart(w))) + self._pull(self.coupling.residual(w))

    def second_order(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`."""
        return self._diagonal(self.blocks.second_order(self._apart(w)))

    def take(self, index: Tensor) -> "CoupledProblem":
        """See :class:`LeastSquaresProblem`."""
        inner = (index[:, None] * self.num_blocks + torch.arange(self.num_blocks, device=index.device)).flatten()
        return CoupledProblem(self.blocks.take(inner), self.num_blocks, self.coupling.take(index))

    def detach(self) -> "CoupledProblem":
        """See :class:`LeastSquaresProblem`."""
        return CoupledProblem(self.blocks.detach(), self.num_blocks, self.coupling.detach())

    def _joined(self, w: Tensor, cost: Tensor, gradient: Tensor, square: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normal equations of the whole from those of the blocks."""
        rest = self.coupling.residual(w)
        total = cost.view(-1, self.num_blocks).sum(dim=1) + 0.5 * rest.square().sum(dim=1)
        return total, self._join(gradient) + self._pull(rest), self._diagonal(square) + self._square()

    def _apart(self, w: Tensor) -> Tensor:
        """``(batch, K * n) -> (batch * K, n)``."""
        return w.reshape(w.shape[0] * self.num_blocks, w.shape[1] // self.num_blocks)

    def _join(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`_apart`."""
        return x.reshape(-1, self.num_blocks * x.shape[1])

    def _diagonal(self, blocks: Tensor) -> Tensor:
        """``(batch * K, m, n)`` as block diagonal matrices ``(batch, K * m, K * n)``."""
        apart = blocks.unflatten(0, (-1, self.num_blocks)).movedim(1, -1)
        return torch.diag_embed(apart, dim1=1, dim2=3).flatten(3, 4).flatten(1, 2)

    def _pull(self, rest: Tensor) -> Tensor:
        """``C^T`` times rows."""
        return times(self.coupling.matrix.mT, rest)

    def _square(self) -> Tensor:
        """``C^T C``."""
        return self.coupling.matrix.mT @ self.coupling.matrix
