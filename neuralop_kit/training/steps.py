"""How an optimizer is asked to step: with a gradient, a closure, or a residual vector.

An optimizer declares what its ``step`` needs by a class attribute:

    takes_residual = True     step(residual_fn): residual_fn() is a signed real vector; Gauss-Newton, Sven
    takes_closure = True      step(closure): closure() is the loss, with gradients when they are enabled; L-BFGS, SPSA
    neither                   step(): after backward; Adam and most others

torch's own LBFGS, which declares nothing, is known by its ``step`` having no default for ``closure``.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.training import distributed


@dataclass(frozen=True)
class BatchObjective:
    """What one batch asks an optimizer to reduce.

    Args:
        loss: mean loss over this process's samples, with its graph.
        residual: signed real vector of this batch, with its graph.
        num_samples, num_joined: samples of this process, and of all processes together.
    """

    loss: Callable[[], Tensor]
    residual: Callable[[], Tensor]
    num_samples: int
    num_joined: int

    @property
    def share(self) -> float:
        """Weight that turns the mean over processes of local means, which DDP forms, into the mean over samples."""
        return self.num_samples * distributed.world_size() / self.num_joined

    def joined(self, loss: Tensor) -> Tensor:
        """Mean loss over the samples of all processes, the same number on each of them."""
        return distributed.sum_over_ranks(loss.detach() * (self.num_samples / self.num_joined))


class Step(ABC):
    """One optimizer step on one batch; called with its objective, returns this process's mean loss before the step."""

    def __init__(self, optimizer: Optimizer, *, clip_gradient: float | None, scaler: torch.amp.GradScaler) -> None:
        self.optimizer = optimizer
        self.clip_gradient = clip_gradient
        self.scaler = scaler

    @abstractmethod
    def __call__(self, objective: BatchObjective) -> Tensor:
        """Take the step."""

    def clip(self) -> None:
        """Shorten the gradient to the norm ``clip_gradient``, over all parameters together."""
        if self.clip_gradient is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_gradient)

    def refuse(self, reason: str) -> ArgumentError:
        """The error for a setting that this kind of step cannot honour."""
        return ArgumentError(
            f"expected a setting that {type(self.optimizer).__name__} can honour, got {reason}; leave it out"
        )


class GradientStep(Step):
    """Backward, clip, ``optimizer.step()``."""

    def __call__(self, objective: BatchObjective) -> Tensor:
        """Take the step."""
        self.optimizer.zero_grad()
        loss = objective.loss()
        self.scaler.scale(loss * objective.share).backward()
        if self.clip_gradient is not None:
            self.scaler.unscale_(self.optimizer)
            self.clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()


class ClosureStep(Step):
    """``optimizer.step(closure)``; the closure skips the backward pass when gradients are disabled."""

    def __init__(self, optimizer: Optimizer, *, clip_gradient: float | None, scaler: torch.amp.GradScaler) -> None:
        super().__init__(optimizer, clip_gradient=clip_gradient, scaler=scaler)
        if scaler.is_enabled():
            raise self.refuse("fp16 loss scaling, which does not go with closures")

    def __call__(self, objective: BatchObjective) -> Tensor:
        """Take the step."""
        before: list[Tensor] = []

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = objective.loss()
            if torch.is_grad_enabled():
                (loss * objective.share).backward()
                self.clip()
            if not before:
                before.append(loss.detach())
            # A line search must see the same value in every process.
            return objective.joined(loss)

        self.optimizer.step(closure)  # type: ignore[arg-type]
        return before[0]


class ResidualStep(Step):
    """``optimizer.step(residual_fn)``; the loss, for the record, costs one more forward pass."""

    def __init__(self, optimizer: Optimizer, *, clip_gradient: float | None, scaler: torch.amp.GradScaler) -> None:
        super().__init__(optimizer, clip_gradient=clip_gradient, scaler=scaler)
        if scaler.is_enabled():
            raise self.refuse("fp16 loss scaling, which does not go with residuals")
        if clip_gradient is not None:
            raise self.refuse("clip_gradient, as it forms no gradient")
        if distributed.world_size() > 1:
            raise self.refuse("several processes, whose residuals it would have to join")

    def __call__(self, objective: BatchObjective) -> Tensor:
        """Take the step."""
        with torch.no_grad():
            before = objective.loss().detach()
        self.optimizer.step(objective.residual)  # type: ignore[arg-type]
        return before


def step_for(optimizer: Optimizer, *, clip_gradient: float | None, scaler: torch.amp.GradScaler) -> Step:
    """The kind of step that the optimizer declares; see the top of this file."""
    kind: type[Step] = GradientStep
    if getattr(optimizer, "takes_residual", False):
        kind = ResidualStep
    elif getattr(optimizer, "takes_closure", False) or _requires_closure(optimizer):
        kind = ClosureStep
    return kind(optimizer, clip_gradient=clip_gradient, scaler=scaler)


def _requires_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
