"""Sven: the truncated pseudo-inverse of the Jacobian of all residuals."""

from collections.abc import Mapping

from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.gram.control import AdaptiveHalving, StepControl
from neuralop_kit.optim.gram.engines import Engine
from neuralop_kit.optim.gram.filters import Truncate
from neuralop_kit.optim.gram.optimizer import GramOptimizer


class Sven(GramOptimizer):
    """Every residual is a condition of its own: the smallest step that meets all of them to first order.

        theta <- theta - lr * size * J^+ r,    J^+ = V S^(-1) U^T on singular values above rtol * s_max

    with fewer rows than parameters the step of least norm that brings every residual to zero, with more the least
    squares solution; both in one step if the residual is linear.

    Args:
        params: parameters or groups.
        lr: factor on the step, >= 0.
        rtol: singular values below this fraction of the largest one are dropped, in [0, 1).
        max_rank: number of singular values that are used at most (k of the paper).
        control: how far to go; by default :class:`AdaptiveHalving`, which shortens a step, and drops more singular
            values for a while, where the residual is far from linear. :class:`FixedStep` is the paper's rule, for data
            with noise; for residuals of differential equations it fails.
        engine: how to get J; by default the cheapest one that is exact.
        weights: weight of each named block of residuals.
        weight_decay: decoupled, >= 0.

    Cost: with layers that can be recorded one forward and one backward pass, and ``rows^2 (width + rows)``; for rtol
    below 1e-6 in float64 a QR factorisation of J instead of its Gram matrix.
    Good values: rtol 1e-3 for data and mini-batches, with ``FixedStep()`` and lr 0.05 to 0.5; rtol 1e-8 for PINNs in
    float64.
    Source: Bright-Thonney et al. (2026), "Sven: singular value descent"; rows here are signed residuals, of which
    the paper takes half the square (``kappa = 2``), whose step is half of this one.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> x, y = torch.rand(8, 2), torch.rand(8)
    >>> optimizer = Sven(model.parameters(), lr=1.0, rtol=1e-3)
    >>> loss = optimizer.step(lambda: model(x).squeeze(1) - y)
    >>> optimizer.info.status
    'moved'
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        rtol: float = 1e-3,
        max_rank: int | None = None,
        control: StepControl | None = None,
        engine: Engine | None = None,
        weights: Mapping[str, float] | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        filter_ = Truncate(rtol=rtol, max_rank=max_rank)
        super().__init__(
            params, lr, filter_=filter_, control=control or AdaptiveHalving(), engine=engine, weights=weights,
            weight_decay=weight_decay,
        )  # fmt: skip
