"""How an optimizer is asked to step: with a gradient, a closure, a residual vector, or the bare loss.

An optimizer declares by its attribute ``step_kind`` what its ``step`` is to be given:

    gradient    nothing: ``backward`` comes first; Adam and most others
    closure     a function that clears the gradients, runs ``backward`` and returns the loss; L-BFGS
    residual    a function that returns the signed residual vector; Gauss-Newton, Sven
    value       a function that returns the loss, without ``backward``; SPSA, evolution strategies

torch's optimizers declare nothing; its LBFGS is known by its ``step`` having no default for ``closure``. An optimizer
that keeps other weights during training than it means (NVRM, schedule-free ones) has methods ``train()``, ``eval()``.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
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
        device: where the model is.
    """

    loss: Callable[[], Tensor]
    residual: Callable[[], Tensor]
    num_samples: int
    num_joined: int
    device: torch.device

    @property
    def share(self) -> float:
        """Weight that turns the mean over processes of local means, which DDP forms, into the mean over samples."""
        return self.num_samples * distributed.world_size() / self.num_joined

    def repeatable(self) -> "BatchObjective":
        """The same, where every call sees the random numbers of the first: a line search needs one function.

        Torch's streams are meant. Later calls leave them alone, so that the optimizer's own draws go on.
        """
        start: list[Tensor] = []

        def repeat(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
            def call() -> Tensor:
                now = _streams(self.device)
                if not start:
                    start.extend(now)
                    return function()
                _set_streams(self.device, start)
                try:
                    return function()
                finally:
                    _set_streams(self.device, now)

            return call

        return replace(self, loss=repeat(self.loss), residual=repeat(self.residual))

    def joined(self, loss: Tensor) -> Tensor:
        """Mean loss over the samples of all processes, the same number on each of them."""
        return distributed.sum_over_ranks(loss.detach() * (self.num_samples / self.num_joined))


def check_parameters(optimizer: Optimizer, model: nn.Module) -> None:
    """Raise an :class:`ArgumentError` where optimizer and model share no parameter: nothing would be learned."""
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if given and given.isdisjoint(id(p) for p in model.parameters()):
        raise ArgumentError(
            "expected an optimizer of the model's parameters, got one of other parameters; make it from "
            "model.parameters() of this very model"
        )


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
            f"expected a setting that {type(self.optimizer).__name__} can honour, got {reason}; leave that out"
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
    """``optimizer.step(closure)``; the closure runs once or often, with gradients or, in a line search, without."""

    def __init__(self, optimizer: Optimizer, *, clip_gradient: float | None, scaler: torch.amp.GradScaler) -> None:
        super().__init__(optimizer, clip_gradient=clip_gradient, scaler=scaler)
        if scaler.is_enabled():
            raise self.refuse("fp16 loss scaling, which does not go with closures")

    def __call__(self, objective: BatchObjective) -> Tensor:
        """Take the step."""
        objective = objective.repeatable()
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


class FunctionStep(Step):
    """``optimizer.step(function)`` without a backward pass; the loss, for the record, costs one more forward pass."""

    def __init__(self, optimizer: Optimizer, *, clip_gradient: float | None, scaler: torch.amp.GradScaler) -> None:
        super().__init__(optimizer, clip_gradient=clip_gradient, scaler=scaler)
        if scaler.is_enabled():
            raise self.refuse("fp16 loss scaling, which goes with gradients only")
        if clip_gradient is not None:
            raise self.refuse("clip_gradient, as it forms no gradient")

    @abstractmethod
    def function(self, objective: BatchObjective) -> Callable[[], Tensor]:
        """What the optimizer is given."""

    def __call__(self, objective: BatchObjective) -> Tensor:
        """Take the step."""
        objective = objective.repeatable()
        with torch.no_grad():
            before = objective.loss().detach()
        self.optimizer.step(self.function(objective))  # type: ignore[arg-type]
        return before


class ValueStep(FunctionStep):
    """The function is the loss, joined over all processes, so that each of them takes the same step."""

    def function(self, objective: BatchObjective) -> Callable[[], Tensor]:
        """The loss."""
        return lambda: objective.joined(objective.loss())


class ResidualStep(FunctionStep):
    """The function is the residual vector, with its graph."""

    def __init__(self, optimizer: Optimizer, *, clip_gradient: float | None, scaler: torch.amp.GradScaler) -> None:
        super().__init__(optimizer, clip_gradient=clip_gradient, scaler=scaler)
        if distributed.world_size() > 1:
            raise self.refuse("several processes, whose residuals it would have to join")

    def function(self, objective: BatchObjective) -> Callable[[], Tensor]:
        """The residual."""
        return objective.residual


def _streams(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_streams(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


STEP_KINDS: dict[str, type[Step]] = {
    "gradient": GradientStep,
    "closure": ClosureStep,
    "residual": ResidualStep,
    "value": ValueStep,
}


def step_for(optimizer: Optimizer, *, clip_gradient: float | None, scaler: torch.amp.GradScaler) -> Step:
    """The kind of step that the optimizer declares; see the top of this file.

    Raises:
        ArgumentError: an unknown kind, or a setting that this kind cannot honour.
    """
    # Asked of the class, as a learning-rate schedule wraps the method of the object.
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    undeclared = "closure" if closure is not None and closure.default is closure.empty else "gradient"
    kind = getattr(optimizer, "step_kind", undeclared)
    if kind not in STEP_KINDS:
        raise ArgumentError(f"expected a step_kind among {sorted(STEP_KINDS)}, got {kind!r}; declare one of these")
    if clip_gradient is not None and not clip_gradient > 0:
        raise ArgumentError(f"expected clip_gradient > 0 or None, got {clip_gradient}; 1.0 is usual")
    return STEP_KINDS[kind](optimizer, clip_gradient=clip_gradient, scaler=scaler)


@contextmanager
def training_weights(optimizer: Optimizer) -> Iterator[None]:
    """The weights that the optimizer trains with inside the block, those that it means after it."""
    _call(optimizer, "train")
    try:
        yield
    finally:
        _call(optimizer, "eval")


@contextmanager
def clean_weights(optimizer: Optimizer) -> Iterator[None]:
    """Inside :func:`training_weights`: the weights that the optimizer means, to be evaluated and saved."""
    _call(optimizer, "eval")
    try:
        yield
    finally:
        _call(optimizer, "train")


def _call(optimizer: Optimizer, method: str) -> None:
    if hasattr(optimizer, "train") and hasattr(optimizer, "eval"):
        getattr(optimizer, method)()
