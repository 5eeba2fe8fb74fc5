"""Descent from exact directional derivatives, in forward mode."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.optim.optimizer import ParamsT
from torch.overrides import TorchFunctionMode

from neuralop_kit.optim.base import as_written
from neuralop_kit.optim.noise import Noise, Rademacher
from neuralop_kit.optim.zeroth_order import LossFunction, ZerothOrder, single_loss


class ForwardGradient(ZerothOrder):
    """Exact directional derivatives by forward-mode differentiation: no backward pass, no stored activations.

        g = 1/n sum_i (grad L . z_i) z_i

    Unbiased, without a radius; the variance is that of :class:`SPSA`. Every operation in the loss needs a forward
    derivative; compiled code has none, and a compiled network runs as it was written.

    Args:
        params, lr, num_samples, weight_decay, generator: see :class:`ZerothOrder`.
        noise: by default random signs.

    Source: Baydin et al. (2022), "Gradients without backpropagation".

    >>> weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    >>> optimizer = ForwardGradient([weight], lr=0.1)
    >>> losses = [optimizer.step(lambda: weight.square().sum()) for _ in range(50)]
    >>> bool(losses[-1] < 0.1)
    True
    """

    needs_whole = "follows the parameters themselves through the loss"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        *,
        num_samples: int = 1,
        noise: Noise | None = None,
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            params, lr, num_samples=num_samples, noise=noise or Rademacher(), exact=True, weight_decay=weight_decay,
            generator=generator,
        )  # fmt: skip

    def probe(self, function: LossFunction, seeds: list[int]) -> tuple[Tensor, list[Tensor]]:
        """One forward pass per direction."""
        losses, slopes = [], []
        for seed in seeds:
            with forward_ad.dual_level():
                duals = {id(p): forward_ad.make_dual(p.detach(), z) for p, z in self.directions(seed)}
                with _Replace(duals):
                    value = single_loss(as_written(function)())
                loss, slope = forward_ad.unpack_dual(value)
            losses.append(loss.double())
            slopes.append(torch.zeros_like(losses[-1]) if slope is None else slope.double() / len(seeds))
        return torch.stack(losses).mean(), slopes


class _Replace(TorchFunctionMode):
    """Every operation on a parameter is done with what stands in for it."""

    def __init__(self, replacements: dict[int, Tensor]) -> None:
        super().__init__()
        self.replacements = replacements

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*self._swap(args), **self._swap(kwargs or {}))

    def _swap(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.replacements.get(id(value), value)
        if isinstance(value, dict):
            return {name: self._swap(item) for name, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._swap(item) for item in value)
        return value
