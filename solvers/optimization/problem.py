"""What a least-squares solver asks of a batch of problems, and the problem made of any residual function."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.optimization.products import times


class LeastSquaresProblem(ABC):
    """A batch of independent problems ``min_w F(w) = 1/2 |r(w)|^2``, one per item.

    Coefficients ``w`` have shape ``(batch, num_unknowns)``. Item ``i`` of whatever a method returns depends on item
    ``i`` of ``w`` alone. :meth:`gradient` and :meth:`hessian_product` are differentiable with respect to ``w`` and to
    all data of the problem; the implicit function theorem asks for no more.
    """

    @abstractmethod
    def rows(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Residual ``r``, shape ``(batch, num_rows)``, and Jacobian, ``(batch, num_rows, num_unknowns)``."""

    @abstractmethod
    def gradient(self, w: Tensor) -> Tensor:
        """``J^T r``, shape ``(batch, num_unknowns)``."""

    @abstractmethod
    def second_order(self, w: Tensor) -> Tensor:
        """``sum_i r_i r_i''``: what the exact Hessian has beyond ``J^T J``, ``(batch, num_unknowns, num_unknowns)``."""

    @abstractmethod
    def take(self, index: Tensor) -> "LeastSquaresProblem":
        """The problems of some items; ``index`` is int64, shape ``(number,)``."""

    @abstractmethod
    def detach(self) -> "LeastSquaresProblem":
        """The same problem, cut off from the graph that made its data."""

    def normal_equations(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``F``, ``J^T r`` and ``J^T J``; leaves with a cheaper way than :meth:`rows` override this."""
        residual, jacobian = self.rows(w)
        return 0.5 * residual.square().sum(dim=-1), times(jacobian.mT, residual), jacobian.mT @ jacobian

    def newton_equations(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``F``, ``J^T r``, ``J^T J`` and the exact Hessian; leaves that share work between them override this."""
        cost, gradient, square = self.normal_equations(w)
        return cost, gradient, square, square + self.second_order(w)

    def hessian(self, w: Tensor) -> Tensor:
        """Exact second derivative of ``F``, shape ``(batch, num_unknowns, num_unknowns)``."""
        return self.newton_equations(w)[3]

    def hessian_product(self, w: Tensor, direction: Tensor) -> Tensor:
        """``H(w) direction``, shape ``(batch, num_unknowns)``."""
        return grad(lambda v: (self.gradient(v) * direction).sum())(w)


class DenseProblem(LeastSquaresProblem):
    """Any residual function, with dense Jacobians by forward mode: ``num_unknowns`` tangents at once.

    Args:
        residual: ``(batch, num_unknowns) -> (batch, num_rows)``, items independent of each other, and written in
            operations that ``torch.func`` understands. Signed, never squared: a squared residual has a Jacobian that
            vanishes at the solution. Tensors that it closes over receive gradients through :class:`Reattachment`.
        batch: number of items that the function is called with.

    Raises:
        ShapeError: the residual has another shape.
    """

    def __init__(self, residual: Callable[[Tensor], Tensor], batch: int) -> None:
        self.residual, self.batch = residual, batch

    def rows(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`LeastSquaresProblem`."""
        residual = self.residual(w)
        if residual.ndim != 2 or residual.shape[0] != w.shape[0]:
            raise ShapeError(
                f"expected a residual of shape ({w.shape[0]}, num_rows), got {tuple(residual.shape)}; "
                "flatten all rows of an item into one axis"
            )
        columns = vmap(lambda e: jvp(self.residual, (w,), (e.expand_as(w),))[1])(_unit_vectors(w))
        return residual, columns.permute(1, 2, 0)

    def gradient(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`."""
        return grad(lambda v: 0.5 * self.residual(v).square().sum())(w)

    def second_order(self, w: Tensor) -> Tensor:
        """See :class:`LeastSquaresProblem`."""
        residual = self.residual(w)
        slopes = grad(lambda v: (residual * self.residual(v)).sum())
        return vmap(lambda e: jvp(slopes, (w,), (e.expand_as(w),))[1])(_unit_vectors(w)).permute(1, 2, 0)

    def take(self, index: Tensor) -> "DenseProblem":
        """The function alone knows its data: it is still called on all items, and some are picked."""

        def picked(w: Tensor) -> Tensor:
            everybody = w[:1].expand(self.batch, -1).index_copy(0, index, w)
            return self.residual(everybody).index_select(0, index)

        return DenseProblem(picked, len(index))

    def detach(self) -> "DenseProblem":
        """Itself: what the function closes over is out of reach."""
        return self


def _unit_vectors(w: Tensor) -> Tensor:
    return torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
