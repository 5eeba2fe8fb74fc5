"""Lion: the sign of an interpolated momentum."""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.base import Group, KitOptimizer, State, check_fractions, real_view, state_dtype
from neuralop_kit.optim.matrices import complex_view


class Lion(KitOptimizer):
    """Sign descent with two time scales and one buffer, half the memory of Adam.

        p <- p (1 - lr * weight_decay)
        p <- p - lr * sign(b1 * m + (1 - b1) * g)
        m <- b2 * m + (1 - b2) * g

    Every weight moves by ``lr`` in every step, so the noise floor is of the order of ``lr``: let a schedule bring it
    to zero. A gradient that is not finite makes its weights NaN, as in other optimizers; a bare sign would hide it.

    Args:
        params: parameters or groups.
        lr: step size, >= 0; a number or, for CUDA graphs, a tensor.
        betas: (b1, b2) in [0, 1).
        weight_decay: decoupled, >= 0.
        cautious: move only the weights whose update agrees in sign with the gradient, and rescale to keep the mean.
        phase: complex weights move by ``z/|z|`` instead of the signs of both parts: equivariant under a rotation of
            phase. Complex weights are complex tensors, and real ones in a group with ``complex_weights=True``.
        complex_weights: the parameters hold complex numbers as a trailing axis of 2; matters with ``phase`` only.
        maximize: climb instead of descend.
        foreach: all tensors of a group at once; False takes them one by one, with equal results.

    Nothing waits for the device, so a step can be captured in a CUDA graph, and it compiles.

    Good values: ``lr`` 3 to 10 times smaller and ``weight_decay`` 3 to 10 times larger than for AdamW; betas
    (0.95, 0.98) for stability; batches of 64 or more. For float64 PINNs take the Gram family instead.
    Source: Chen et al. (2023), "Symbolic discovery of optimization algorithms", algorithm 2; the cautious mask is of
    Liang et al. (2024).

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = Lion([weight], lr=0.25)
    >>> weight.square().sum().backward()
    >>> _ = optimizer.step()
    >>> weight.data
    tensor([ 0.7500, -1.7500])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        cautious: bool = False,
        phase: bool = False,
        complex_weights: bool = False,
        maximize: bool = False,
        foreach: bool = True,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "weight_decay": weight_decay, "cautious": cautious, "phase": phase,
            "complex_weights": complex_weights, "maximize": maximize, "foreach": foreach,
        }  # fmt: skip
        super().__init__(params, defaults)

    def check_group(self, group: Group) -> None:
        """Betas are in [0, 1)."""
        super().check_group(group)
        check_fractions("betas", group["betas"])

    def init_state(self, parameter: Tensor, group: Group) -> State:
        """One momentum."""
        return {"momentum": _numbers(torch.zeros_like(parameter, dtype=state_dtype(parameter)), group)}

    def update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor], states: list[State]) -> None:
        """One step, for all tensors at once or one by one."""
        momenta = [state["momentum"] for state in states]
        gradients = [_numbers(g.to(state_dtype(p)), group) for g, p in zip(gradients, parameters, strict=True)]
        parameters = [real_view(p) for p in parameters]
        if group["foreach"]:
            _step(group, parameters, gradients, momenta)
        else:
            for p, g, m in zip(parameters, gradients, momenta, strict=True):
                _step(group, [p], [g], [m])


def _numbers(tensor: Tensor, group: Group) -> Tensor:
    """Of what the sign is taken: a complex number is one number with a phase, or else two reals."""
    return complex_view(tensor, group) if group["phase"] else real_view(tensor)


def _step(group: Group, parameters: list[Tensor], gradients: list[Tensor], momenta: list[Tensor]) -> None:
    """The rule, on lists of tensors."""
    lr, (b1, b2) = group["lr"], group["betas"]
    updates = list(torch._foreach_lerp(momenta, gradients, 1 - b1))
    if group["phase"]:
        updates = [u.sgn() for u in updates]
    else:
        torch._foreach_sign_(updates)
    if group["cautious"]:
        updates = [_cautious(u, g) for u, g in zip(updates, gradients, strict=True)]
    torch._foreach_lerp_(momenta, gradients, 1 - b2)
    # sign(NaN) is 0: without this a weight with a NaN gradient would stand still for ever and nobody would know.
    torch._foreach_add_(updates, momenta, alpha=0.0)
    updates = [real_view(u) for u in updates]
    if group["weight_decay"] != 0:
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
    if isinstance(lr, Tensor):
        torch._foreach_mul_(updates, -lr)
        torch._foreach_add_(parameters, updates)
    else:
        torch._foreach_add_(parameters, updates, alpha=-lr)


def _cautious(update: Tensor, gradient: Tensor) -> Tensor:
    """Entries that do not point against the gradient, rescaled by the share that is kept."""
    agreement = (update * gradient.conj()).real if update.is_complex() else update * gradient
    mask = (agreement > 0).to(gradient.real.dtype if gradient.is_complex() else gradient.dtype)
    return update * (mask / mask.mean().clamp_min(1e-3))
