"""Steps on the roots of the weights: large ones move fast, small ones stay small."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, StateDict

from neuralop_kit.optim.base import Group, KitOptimizer, State, real_view, state_dtype
from neuralop_kit.solvers.errors import ArgumentError


class PowerPropSGD(KitOptimizer):
    """Gradient descent on ``phi`` with ``theta = phi |phi|^(alpha - 1)``: a preconditioner that keeps weights sparse.

        phi+ = phi - lr * alpha |phi|^(alpha - 1) g,       theta+ = phi+ |phi+|^(alpha - 1)

    which is, to first order in lr, ``theta - lr alpha^2 |theta|^(2 (alpha - 1) / alpha) g``: each weight has a step
    size of its own that grows with its size. ``phi`` is recomputed from ``theta``, so there is no state. Real and
    imaginary parts of complex weights are weights of their own.

    Args:
        params: parameters or groups.
        lr: step size, >= 0.
        alpha: >= 1; 1 is gradient descent. A weight that is exactly zero stays zero for alpha > 1.
        weight_decay: decoupled, >= 0.
        maximize: climb instead of descend.

    Good values: alpha 2 to 4.
    Source: Schwarz et al. (2021), "Powerpropagation", eq. 1; as a preconditioner Pascanu et al. (2025).

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
    >>> optimizer = PowerPropSGD([weight], lr=0.125, alpha=2.0)
    >>> weight.sum().backward()
    >>> _ = optimizer.step()
    >>> weight.data
    tensor([0.5625, 0.0000])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        *,
        alpha: float = 2.0,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "weight_decay": weight_decay, "maximize": maximize})

    def check_group(self, group: Group) -> None:
        """The power is at least 1."""
        super().check_group(group)
        _check_power("alpha", group["alpha"])

    def update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor], states: list[State]) -> None:
        """One step."""
        for parameter, gradient in zip(map(real_view, parameters), map(real_view, gradients), strict=True):
            theta = parameter.to(state_dtype(parameter)) * (1 - group["lr"] * group["weight_decay"])
            parameter.copy_(_moved(theta, -group["lr"] * gradient.to(theta.dtype), group["alpha"]))


class PowerProp(Optimizer):
    """The same preconditioner on top of any optimizer: what the base adds to a weight is done to its root.

        base step:  theta + d       phi+ = phi + alpha |phi|^(alpha - 1) d,       theta+ = phi+ |phi+|^(alpha - 1)

    with ``theta = phi |phi|^(alpha - 1)``; to first order ``theta + alpha^2 |theta|^(2 (alpha - 1) / alpha) d``. Around
    gradient descent it is :class:`PowerPropSGD`. Moments are those of the gradient with respect to ``theta``: an Adam
    on ``phi`` would divide by the size of its gradient, and so by one of the two factors ``alpha |phi|^(alpha - 1)``.
    Made for bases that take each weight by itself (Adam, Lion, SGD with momentum).

    Args:
        base: an optimizer that steps from ``p.grad``; its groups are shared, so schedulers work on either.
        alpha: >= 1, for groups of the base without a ``"power"`` of their own; 1 is the base, bit by bit. A weight that
            is exactly zero stays zero for alpha > 1: biases and the like are best in a group with ``"power": 1.0``.

    Raises:
        ArgumentError: alpha is below 1, or the base does not step from gradients.

    A weight decay of the base is part of what it adds. Memory: one copy of the weights, during the step only.
    Good values: alpha 1.5 to 2, and rates of the base divided by ``alpha^2`` or more: steps grow with the weights.
    Source: Pascanu et al. (2025); Schwarz et al. (2021), "Powerpropagation", train by momentum and Adam on ``phi``.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 0.0]))
    >>> optimizer = PowerProp(torch.optim.Adam([weight], lr=0.125), alpha=2.0)
    >>> weight.sum().backward()
    >>> _ = optimizer.step()
    >>> weight.data
    tensor([0.5625, 0.0000])
    """

    def __init__(self, base: Optimizer, alpha: float = 2.0) -> None:
        if not isinstance(base, Optimizer) or getattr(base, "step_kind", "gradient") != "gradient":
            raise ArgumentError(
                f"expected an optimizer that steps from p.grad, got {type(base).__name__}; wrap SGD, Adam or Lion"
            )
        self.base, self.alpha = base, alpha
        # The very same group objects: what a scheduler writes here, the base reads.
        super().__init__(base.param_groups, base.defaults)
        self._share()

    def _share(self) -> None:
        """Groups and states are those of the base."""
        self.param_groups, self.state = self.base.param_groups, self.base.state
        for group in self.param_groups:
            group.setdefault("power", self.alpha)
            _check_power("power", group["power"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the base, done to the roots."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rows = [(p, group["power"]) for group in self.param_groups for p in group["params"] if p.grad is not None]
        starts = [(p, power, p.detach().clone()) for p, power in rows if power != 1.0]
        self.base.step()
        for parameter, power, start in starts:
            dtype = state_dtype(real_view(parameter))
            before, after = (real_view(t).to(dtype) for t in (start, parameter))
            real_view(parameter).copy_(_moved(before, after - before, power))
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self.base.zero_grad(set_to_none)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group to the base, and so to both; its power is ``alpha`` if it does not say otherwise."""
        if any(param_group is group for group in self.base.param_groups):
            super().add_param_group(param_group)
        else:
            self.base.add_param_group(param_group)
            self._share()

    def state_dict(self) -> StateDict:
        """The state of the base; it has none of its own."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load what :meth:`state_dict` gave, or that of a bare base."""
        self.base.load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "base": self.base, "alpha": self.alpha}


def _moved(theta: Tensor, change: Tensor, alpha: float) -> Tensor:
    """``theta`` after its root went where ``theta`` was to go by ``change``, by the chain rule."""
    root = theta.abs() ** (1 / alpha)
    before = theta.sign() * root
    after = before + alpha * root ** (alpha - 1) * change
    # As a difference, so that the rounding of root and power cancels and no change moves nothing.
    return theta + (after * after.abs() ** (alpha - 1) - before * before.abs() ** (alpha - 1))


def _check_power(name: str, alpha: float) -> None:
    """Raise an :class:`ArgumentError` unless ``1 <= alpha < inf``."""
    if not 1.0 <= alpha < float("inf"):
        raise ArgumentError(f"expected {name} >= 1, got {alpha}; 2 is a good value, 1 changes nothing")
