"""PowerPropSGD: gradient descent on the roots of the weights; large ones move fast, small ones stay small."""

from torch import Tensor
from torch.optim.optimizer import ParamsT

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

    >>> import torch
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
        if not 1.0 <= group["alpha"] < float("inf"):
            raise ArgumentError(f"expected alpha >= 1, got {group['alpha']}; 2 is a good value, 1 is gradient descent")

    def update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor], states: list[State]) -> None:
        """One step."""
        alpha = group["alpha"]
        for parameter, gradient in zip(map(real_view, parameters), map(real_view, gradients), strict=True):
            theta = parameter.to(state_dtype(parameter)) * (1 - group["lr"] * group["weight_decay"])
            root = theta.abs() ** (1 / alpha)
            before = theta.sign() * root
            after = before - group["lr"] * alpha * root ** (alpha - 1) * gradient
            # As a difference, so that the rounding of root and power cancels and a rate of zero moves nothing.
            change = after * after.abs() ** (alpha - 1) - before * before.abs() ** (alpha - 1)
            parameter.copy_(theta + change)
