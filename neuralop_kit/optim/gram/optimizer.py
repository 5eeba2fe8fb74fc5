"""GramOptimizer: one step of the Gram family, from a residual function to new weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.base import KitOptimizer, StepKind, check_fractions
from neuralop_kit.optim.gram.control import StepControl
from neuralop_kit.optim.gram.engines import Automatic, Engine
from neuralop_kit.optim.gram.filters import Filter
from neuralop_kit.optim.gram.problem import LinearProblem
from neuralop_kit.optim.gram.residual import ResidualFunction, check_weights
from neuralop_kit.solvers.errors import ArgumentError, NonFiniteError


@dataclass(frozen=True)
class StepInfo:
    """What became of the last step.

    Args:
        status: "moved"; "stayed", as no step lowered the loss or could; or "refused", as the residual or its
            derivatives were not finite.
        loss, new_loss: before and after; ``new_loss`` is NaN where the control did not look.
        step_size: the factor that the control chose.
        rank: number of singular values that the step used.
        num_rows, num_parameters: shape of the Jacobian.
        num_trials: calls of the residual function after the first.
        reason: of a refusal, or of staying.
    """

    status: str
    loss: float
    new_loss: float
    step_size: float = 0.0
    rank: int = 0
    num_rows: int = 0
    num_parameters: int = 0
    num_trials: int = 0
    reason: str = ""


class GramOptimizer(KitOptimizer):
    """Base of the family ``step = V f(S) U^T r``, with the Jacobian ``J = U S V^T`` of a vector of residuals r.

    The loss is ``0.5 |r|^2``. A leaf is a filter f; all else is shared: engines that give J, controls of the step, and
    momentum on the increment:

        phi <- mu phi + J^+ (r - mu J phi),    theta <- theta - size * lr * (phi + weight_decay * theta)

    with ``J^+ = V f(S) U^T`` and the size that the control chooses; where it asks for it along a parabola instead of a
    line, see :class:`~neuralop_kit.optim.gram.path.Path`. ``size * phi`` is remembered, and nothing after a step that
    stayed. ``lr`` and ``weight_decay`` may differ between groups. :attr:`info` says what became of the last step.

    Batch norms in training mode couple all rows: J then takes a pass for each, and their running statistics take in
    every call, also of trials that are not gone; set them anew after training, or put such layers in evaluation mode.
    Dropout is refused.

    Args:
        params: parameters or groups.
        lr: factor on the step, >= 0.
        filter_: f; see :mod:`neuralop_kit.optim.gram.filters`.
        control: see :mod:`neuralop_kit.optim.gram.control`.
        engine: see :mod:`neuralop_kit.optim.gram.engines`; by default the cheapest one that is exact.
        weights: weight of each named block of residuals.
        momentum: mu in [0, 1).
        max_norm: length that a whole step ``lr * phi``, without its bend, is cut to; None for no limit.
        weight_decay: >= 0.
    """

    step_kind: ClassVar[StepKind] = "residual"
    _step_supports_amp_scaling = False
    needs_whole = "takes all weights as one vector"
    instead = (
        "shard the model by hand and use engine=Sharded(), or keep it whole on every rank and use engine=DataParallel()"
    )

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        filter_: Filter,
        control: StepControl,
        engine: Engine | None,
        weights: Mapping[str, float] | None,
        momentum: float = 0.0,
        max_norm: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        check_fractions("momentum", [momentum])
        check_weights(weights)
        self.filter, self.control, self.engine = filter_, control, engine or Automatic()
        self.weights = dict(weights) if weights else None
        self.momentum, self.max_norm = momentum, max_norm
        self.info: StepInfo | None = None
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: ResidualFunction | None = None) -> Any:  # type: ignore[override]
        """One step.

        Args:
            closure: returns the signed residuals, a tensor ``(rows,)`` or a dict of named ones, with their graph; gives
                the same residuals for the same weights. It is called again for every trial step, and for differences
                by controls that ask for curvature. What it raises goes through, with the weights as they were.

        Returns:
            The loss before the step, a float64 scalar; NaN where the step was refused, with the weights as they were.

        Raises:
            ArgumentError: no function, or one that does not return residuals.
            ShapeError: a scalar loss where the vector of residuals is needed.
        """
        if closure is None:
            raise ArgumentError(
                f"expected a residual function, got none; call {type(self).__name__}.step(lambda: residual(model, x))"
            )
        problem = LinearProblem(self, closure)
        try:
            problem.linearize()
        except NonFiniteError as error:
            self.info = StepInfo("refused", float("nan"), float("nan"), reason=str(error))
            return torch.tensor(float("nan"), dtype=torch.float64)
        try:
            choice = self.control.choose(problem, self.state[problem.parameters[0]])
        except BaseException:
            # Of a trial that failed nothing may remain, whatever the caller makes of the error.
            problem.restore()
            raise
        self.info = StepInfo(
            status="stayed" if choice.path is None else "moved", loss=problem.loss, new_loss=choice.loss,
            step_size=choice.size, rank=problem.system.rank, num_rows=problem.jacobian.num_rows,
            num_parameters=problem.jacobian.num_columns, num_trials=problem.num_trials, reason=choice.reason,
        )  # fmt: skip
        problem.accept(choice)
        return torch.tensor(problem.loss, dtype=torch.float64)
