"""Randomized: the leading singular vectors of a Jacobian at the price of a few backward passes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.optim.gram.engines import Engine, Linearization
from neuralop_kit.optim.gram.jacobian import LowRankJacobian
from neuralop_kit.optim.gram.passes import ColumnPasses, OnceError, Passes, RowPasses
from neuralop_kit.optim.gram.residual import (
    ResidualFunction,
    Weights,
    check_graph,
    finite,
    finite_jacobian,
    joined,
    residual_blocks,
)
from neuralop_kit.solvers.errors import ArgumentError


class Randomized(Engine):
    """The leading part of the Jacobian by randomised subspace iteration; the Jacobian itself is never formed.

        Q = orth(J^T Omega),   repeated:  Q = orth(J^T orth(J Q));      J ~ (J Q) Q^T

    with ``rank + oversampling`` random columns in ``Omega``. Every product with ``J^T`` is a backward pass, every one
    with ``J`` a backward pass through that: ``2 (1 + power_iterations) (rank + oversampling)`` passes whatever the
    number of rows, and as many vectors of the length of the parameters in memory. Only approximate, unlike the other
    engines: singular values and vectors are good where the spectrum falls off; take ``Sven(max_rank=rank)`` with it.

    Args:
        rank: number of singular values that are wanted, at least 1.
        oversampling: further columns, >= 0.
        power_iterations: >= 0; each makes the tail of the spectrum ``(s_j / s_k)^2`` times less visible.
        memory_budget: bytes that a temporary may take.
        seed: of the random columns; the same every step, so that steps are reproducible.

    Raises:
        ArgumentError: at the first step, if the residual cannot be differentiated twice.

    Good values: oversampling 5, power_iterations 1.
    Source: Halko, Martinsson and Tropp (2011), SIAM Review 53, algorithm 4.4; for this purpose Bright-Thonney et al.
    (2026), section 3.

    >>> from neuralop_kit.optim import Sven
    >>> model = torch.nn.Linear(3, 1)
    >>> x, y = torch.rand(8, 3), torch.rand(8)
    >>> optimizer = Sven(model.parameters(), lr=1.0, max_rank=2, engine=Randomized(2))
    >>> loss = optimizer.step(lambda: model(x).squeeze(1) - y)
    >>> optimizer.info.rank
    2
    """

    def __init__(
        self,
        rank: int,
        *,
        oversampling: int = 5,
        power_iterations: int = 1,
        memory_budget: int = 2**30,
        seed: int = 0,
    ) -> None:
        super().__init__(memory_budget=memory_budget)
        if rank < 1 or min(oversampling, power_iterations) < 0:
            raise ArgumentError(
                f"expected rank >= 1, oversampling >= 0 and power_iterations >= 0, got {rank}, {oversampling} and "
                f"{power_iterations}; half the batch, 5 and 1 are good values"
            )
        self.rank, self.oversampling, self.power_iterations, self.seed = rank, oversampling, power_iterations, seed

    def linearize(self, function: ResidualFunction, parameters: Sequence[Tensor], weights: Weights) -> Linearization:
        """See :class:`Engine`."""
        blocks = residual_blocks(function(), weights)
        check_graph(blocks)
        r = finite(joined(blocks))
        rows = torch.cat(list(blocks.values()))
        try:
            left, basis = self._leading(RowPasses(rows, parameters), ColumnPasses(rows, parameters))
        except OnceError as error:
            raise ArgumentError(
                "expected a residual that can be differentiated twice, got a function in it that cannot; use BatchedVJP"
            ) from error
        eps = torch.finfo(rows.dtype).eps
        return r, LowRankJacobian(left, basis, factor_eps=eps, memory_budget=self.memory_budget)

    def _leading(self, by_rows: RowPasses, by_columns: ColumnPasses) -> tuple[Tensor, Tensor]:
        """``J Q`` and ``Q``."""
        width = min(self.rank + self.oversampling, by_rows.count, by_rows.length)
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.randn(by_rows.count, width, generator=generator, dtype=torch.float64)
        basis = _orthonormal(self._products(by_rows, start.to(by_rows.device)))
        for _ in range(self.power_iterations):
            image = _orthonormal(self._products(by_columns, basis))
            basis = _orthonormal(self._products(by_rows, image))
        return finite_jacobian(self._products(by_columns, basis)), basis

    def _products(self, passes: Passes, columns: Tensor) -> Tensor:
        """J, or its transpose, with several vectors, as many at once as fit the budget; float64."""
        step = max(self.memory_budget // passes.pass_bytes(), 1)
        parts = columns.T.to(passes.input_dtype).split(step)
        return torch.cat([passes.combinations(part) for part in parts]).T.double()


def _orthonormal(columns: Tensor) -> Tensor:
    return torch.linalg.qr(columns).Q
