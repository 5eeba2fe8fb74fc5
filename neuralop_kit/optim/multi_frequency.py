"""MultiFrequency: groups of weights that move at frequencies of their own, on top of any optimizer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, StateDict

from neuralop_kit.optim.base import state_dtype
from neuralop_kit.solvers.errors import ArgumentError


class MultiFrequency(Optimizer):
    """Continuum memory: group ``l`` of the base moves only every ``C_l``-th step, by the sum of its gradients since.

        step t:   s_l <- s_l + g_l;    if t = 0 mod C_l:  the base steps group l with s_l as its gradient, s_l <- 0

    All gradients of a period are taken at the same weights of that group. Slow groups keep what fast ones forget.

    Args:
        base: an optimizer that steps from ``p.grad``; its groups are shared, so schedulers work on either.
        periods: ``C_l``, one per group of the base, at least 1; 1 everywhere is the base, bit by bit. They become
            ``group["period"]``; a group that is added later may bring its own.

    Raises:
        ArgumentError: the periods do not fit the groups, or the base does not step from gradients.

    Memory: one copy of the weights of the groups with periods above 1. Good values: ratios of 4 between neighbouring
    groups, slowest for what should last longest; divide the learning rate of a group by its period to keep its pace.
    Source: Behrouz et al. (2025), "Nested learning", eq. 71, as an optimizer.

    >>> fast, slow = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    >>> base = torch.optim.SGD([{"params": [fast]}, {"params": [slow]}], lr=1.0)
    >>> optimizer = MultiFrequency(base, (1, 2))
    >>> for _ in range(3):
    ...     fast.grad, slow.grad = torch.ones(1), torch.ones(1)
    ...     _ = optimizer.step()
    >>> fast.data, slow.data
    (tensor([-3.]), tensor([-2.]))
    """

    def __init__(self, base: Optimizer, periods: Sequence[int]) -> None:
        if not isinstance(base, Optimizer) or getattr(base, "step_kind", "gradient") != "gradient":
            raise ArgumentError(
                f"expected an optimizer that steps from p.grad, got {type(base).__name__}; wrap SGD, Adam or Lion"
            )
        if len(periods) != len(base.param_groups) or min(periods, default=0) < 1:
            raise ArgumentError(
                f"expected one period >= 1 for each of {len(base.param_groups)} groups, got {tuple(periods)}; "
                "make the groups when you build the base"
            )
        self.base = base
        for group, period in zip(base.param_groups, periods, strict=True):
            group["period"] = int(period)
        # The very same group objects: what a scheduler writes here, the base reads.
        super().__init__(base.param_groups, base.defaults)
        self.param_groups = base.param_groups
        self._count = 0

    # torch traces a step of its optimizers without keeping what it sets on them: the count would stand still.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take in the gradients, and move the groups whose time has come."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._count += 1
        gradients = [(p, p.grad) for group in self.param_groups for p in group["params"]]
        for group in self.param_groups:
            if group["period"] > 1:
                for parameter in group["params"]:
                    self._take_in(parameter, is_due=self._count % group["period"] == 0)
        try:
            self.base.step()
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
        return loss

    @torch.no_grad()
    def _take_in(self, parameter: Tensor, *, is_due: bool) -> None:
        """Add the gradient to the sum, and show the base the sum or nothing."""
        state = self.state[parameter]
        if parameter.grad is not None:
            gradient = parameter.grad.to(state_dtype(parameter), copy=True)
            state["sum"] = state["sum"] + gradient if "sum" in state else gradient
        total = state.pop("sum", None) if is_due else None
        parameter.grad = None if total is None else total.to(parameter.dtype)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients; the sums stay."""
        self.base.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base, and so to both; its period is 1 if it does not say otherwise."""
        if any(param_group is group for group in self.base.param_groups):
            super().add_param_group(param_group)
        else:
            self.base.add_param_group({"period": 1, **param_group})

    def state_dict(self) -> StateDict:
        """The state of the base, the sums of unfinished periods, and where in them we are."""
        sums = {i: self.state[p]["sum"] for i, p in enumerate(self._parameters()) if "sum" in self.state[p]}
        own = {"count": self._count, "sums": sums}
        return {**self.base.state_dict(), "multi_frequency": own}

    @torch.no_grad()
    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load what :meth:`state_dict` gave."""
        if "multi_frequency" not in state_dict:
            raise ArgumentError(
                "expected a state dict of MultiFrequency, got that of another optimizer; load it into `base`"
            )
        own = state_dict["multi_frequency"]
        self.base.load_state_dict({name: value for name, value in state_dict.items() if name != "multi_frequency"})
        self.param_groups = self.base.param_groups
        self._count = own["count"]
        self.state.clear()
        parameters = self._parameters()
        for index, total in own["sums"].items():
            self.state[parameters[index]]["sum"] = total.to(parameters[index].device, copy=True)

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def __getstate__(self) -> dict[str, Any]:
        names = ("base", "_count")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in names}}
