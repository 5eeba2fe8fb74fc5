"""DeltaGD: gradient descent that also forgets along the inputs it has just seen."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuralop_kit.optim.base import Group, KitOptimizer, State, check_nonnegative, descend, state_dtype
from neuralop_kit.optim.sharded import is_sharded, summed_over_processes
from neuralop_kit.solvers.errors import ArgumentError


class DeltaGD(KitOptimizer):
    """Delta gradient descent: each linear layer is a memory of its inputs, rewritten by least squares.

        W+ = argmin_W  1/(2B) sum_b |W x_b + g_b|^2 + 1/(2 lr) |W - W_t|^2  =  (W_t - lr G) (I + lr C)^(-1)

    with the inputs ``x_b`` of the layer, ``B`` of them, their second moment ``C = 1/B sum_b x_b x_b^T``, and the
    gradient ``G``. For one input it is the rule of the paper, ``W (I - e x x^T) - e g x^T`` with
    ``e = lr / (1 + lr |x|^2)``; the paper prints ``lr / (1 + lr)``, which is the case ``|x| = 1``. As lr times C tends
    to zero it becomes gradient descent. Every axis of the input but the last counts into B. Biases and all weights
    outside of linear layers go by gradient descent.

    Args:
        model: its ``nn.Linear`` layers are watched by forward hooks, in training mode and where gradients are enabled;
            :meth:`close` removes the hooks. Inputs of all passes since the last step count, a skipped one among them.
        lr: step size, > 0.
        decay_coef: ``W (I - decay_coef C) - lr G`` instead, explicit in C; unstable where the largest eigenvalue of
            ``decay_coef C`` exceeds 2. The conference version prints 1.
        weight_decay: decoupled, >= 0, on all weights.
        maximize: climb instead of descend.

    In data-parallel training C is that of the joined batch of all processes; with ``fully_shard`` each of them solves
    for its rows of W.

    Cost: one product with and one factorisation of a matrix of the layer's input size, per layer and step.
    Source: Behrouz et al. (2025), "Nested learning", eq. 56-57; the batch form is ours.

    >>> model = nn.Linear(3, 2)
    >>> optimizer = DeltaGD(model, lr=0.1)
    >>> model(torch.ones(5, 3)).square().mean().backward()
    >>> _ = optimizer.step()
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float | Tensor = 1e-2,
        *,
        decay_coef: float | None = None,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentError(
                f"expected a network, got {type(model).__name__}; the rule needs the inputs of its layers: give the "
                "nn.Module itself, not its parameters"
            )
        defaults = {"lr": lr, "decay_coef": decay_coef, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(model.parameters(), defaults)
        self._inputs: dict[Tensor, _SecondMoment] = {}
        # Taken now: while a sharded layer runs, its weight is another tensor, put together for the moment.
        self._weights = {module: module.weight for module in model.modules() if isinstance(module, nn.Linear)}
        self._hooks = [module.register_forward_pre_hook(self._watch) for module in self._weights]

    def check_group(self, group: Group) -> None:
        """The decay coefficient is not negative."""
        super().check_group(group)
        check_nonnegative("decay_coef", group["decay_coef"] or 0.0)

    def __getstate__(self) -> Group:
        # A copy watches the copy of the model.
        names = ("_inputs", "_weights", "_hooks")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in names}}

    def close(self) -> None:
        """Remove the hooks; the model is as before."""
        for hook in self._hooks:
            hook.remove()

    def _watch(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training and torch.is_grad_enabled() and isinstance(module, nn.Linear):
            weight = self._weights[module]
            self._inputs.setdefault(weight, _SecondMoment()).add(inputs[0].detach(), state_dtype(weight))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; inputs seen since the last one are used and forgotten."""
        if closure is not None:
            # What ran before the closure is not part of its gradient.
            self._inputs.clear()
        loss = super().step(closure)
        self._inputs.clear()
        return loss

    def update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor], states: list[State]) -> None:
        """Watched weights by least squares, the others by gradient descent."""
        lr, decay = group["lr"], group["decay_coef"]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.mul_(1 - lr * group["weight_decay"])
            if parameter not in self._inputs:
                descend(parameter, gradient, lr)
                continue
            moment = self._inputs[parameter].mean()
            parameter, gradient = _rows(parameter), _rows(gradient)
            weight, slope = parameter.to(moment.dtype), gradient.to(moment.dtype)
            if decay is None:
                system = torch.eye(len(moment), dtype=moment.dtype, device=moment.device) + lr * moment
                factor = torch.linalg.cholesky_ex(system).L
                parameter.copy_(torch.cholesky_solve((weight - lr * slope).T, factor).T)
            else:
                parameter.copy_(weight - decay * weight @ moment - lr * slope)


class _SecondMoment:
    """Sum of ``x x^T`` and the number of ``x``, over the calls of one layer."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, inputs: Tensor, dtype: torch.dtype) -> None:
        """Take in inputs of shape ``(..., in_features)``."""
        rows = inputs.reshape(-1, inputs.shape[-1]).to(dtype)
        product = rows.T @ rows
        self.total = product if self.total is None else self.total + product
        self.count += len(rows)

    def mean(self) -> Tensor:
        """The mean of ``x x^T``, over all processes."""
        if self.total is None:
            raise ArgumentError("expected inputs of the layer, got none; call the model before the step")
        count = self.total.new_tensor([float(self.count)])
        joined = summed_over_processes(torch.cat([self.total.flatten(), count]))
        return joined[:-1].view(self.total.shape) / joined[-1]


def _rows(weight: Tensor) -> Tensor:
    """The rows of a weight that this process has; writing to them writes to the weight."""
    if not is_sharded(weight):
        return weight
    if any(placement.is_shard() and not placement.is_shard(0) for placement in weight.placements):  # type: ignore[attr-defined]
        raise ArgumentError(
            f"expected whole rows of weights for DeltaGD, got a DTensor with placements {weight.placements}; "  # type: ignore[attr-defined]
            "shard along axis 0, as fully_shard does"
        )
    local: Tensor = weight.to_local()  # type: ignore[attr-defined]
    return local
