"""Momentum as a memory that is trained while it is used: the delta rule, and a small network."""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.base import Group, KitOptimizer, State, check_fractions, real_view, state_dtype
from neuralop_kit.optim.sharded import placed_like
from neuralop_kit.solvers.errors import ArgumentError


class DeltaMomentum(KitOptimizer):
    """Momentum that forgets along the gradient it has just seen, and so remembers more directions at once.

        m <- alpha m - s (m g^T) g - g,        s = rate / |g|_F^2,        p <- p + lr m

    Plain momentum adds every gradient to one sum. Here the memory is rewritten by the delta rule: what it held along
    the rows of ``g`` is first taken out by the fraction ``rate``. Weights are matrices ``(shape[0], rest)``; vectors,
    which have one row, are ``(1, size)``.

    Args:
        params: parameters or groups.
        lr: step size, >= 0.
        alpha: what of the memory is kept, in [0, 1); no scheduler cycles it.
        rate: in [0, 1]; 0 is plain (heavy ball) momentum.
        weight_decay: decoupled, >= 0.
        maximize: climb instead of descend.

    Source: Behrouz et al. (2025), "Nested learning", delta momentum. As printed, with ``s = 1``, it is unstable for
    gradients longer than 1; the normalisation and ``rate`` are ours, and so is the sign, which is that of descent.

    >>> weight = torch.nn.Parameter(torch.ones(2, 2))
    >>> optimizer = DeltaMomentum([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> _ = optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        *,
        alpha: float = 0.9,
        rate: float = 0.5,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "rate": rate, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def check_group(self, group: Group) -> None:
        """Both fractions are in range."""
        super().check_group(group)
        check_fractions("alpha", [group["alpha"]])
        if not 0.0 <= group["rate"] <= 1.0:
            raise ArgumentError(f"expected rate in [0, 1], got {group['rate']}; 0.5 is a good value")

    def init_state(self, parameter: Tensor, group: Group) -> State:
        """An empty memory."""
        return {"memory": torch.zeros_like(_rows(parameter), dtype=state_dtype(real_view(parameter)))}

    def update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor], states: list[State]) -> None:
        """One step."""
        for parameter, gradient, state in zip(parameters, gradients, states, strict=True):
            memory = state["memory"]
            g = _rows(gradient).to(memory.dtype)
            scale = group["rate"] / g.square().sum().clamp_min(torch.finfo(g.dtype).tiny)
            forgotten = placed_like(scale * (memory @ g.T) @ g, memory)
            memory.mul_(group["alpha"]).sub_(forgotten).sub_(g)
            _move(parameter, group["lr"] * memory, group)


class DeepMomentum(KitOptimizer):
    """Momentum as a two-layer network that learns, in every step, to answer gradients with their like.

        u = g_i / rms(g)  for every row i,      M(u) = V tanh(U u)
        (U, V) <- alpha (U, V) + (1 - alpha) (U_0, 0) - rate * grad_(U, V) L,      L = mean_i <M(u_i), u_i> / n
        p_i <- p_i + lr * rms(g) * M(u_i)

    The inner objective is the dot product; it is least where the memory answers ``u`` with its opposite. ``V`` holds a
    sum of past gradients under the keys ``tanh(U u)``: a gradient is answered with those past gradients that were like
    it. With a constant key instead, this is plain momentum. One memory per weight, shared by its rows, ``width`` keys.

    Args:
        params: parameters or groups.
        lr: step size, >= 0; the answer has about the length ``rate / (1 - alpha)`` of the gradient.
        alpha: what of the memory is kept, in [0, 1); no scheduler cycles it.
        rate: of the inner gradient step, > 0.
        width: number of keys, at least 1. Memory: ``2 * width`` numbers per column of a weight.
        weight_decay: decoupled, >= 0.
        maximize: climb instead of descend.
        seed: of the first keys.

    The paper leaves the network, its inner learning rate and what rows share unsaid: they are ours. Experimental: we
    know of no problem where it is better than Adam.
    Source: Behrouz et al. (2025), "Nested learning", deep momentum gradient descent.

    >>> weight = torch.nn.Parameter(torch.ones(4, 3))
    >>> optimizer = DeepMomentum([weight], lr=0.1, width=4)
    >>> weight.square().sum().backward()
    >>> _ = optimizer.step()
    """

    needs_whole = "has one memory for all rows of a weight"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        *,
        alpha: float = 0.9,
        rate: float = 0.5,
        width: int = 16,
        weight_decay: float = 0.0,
        maximize: bool = False,
        seed: int = 0,
    ) -> None:
        defaults = {
            "lr": lr, "alpha": alpha, "rate": rate, "width": width, "weight_decay": weight_decay, "maximize": maximize,
            "seed": seed,
        }  # fmt: skip
        super().__init__(params, defaults)

    def check_group(self, group: Group) -> None:
        """Fractions, rate and width are in range."""
        super().check_group(group)
        check_fractions("alpha", [group["alpha"]])
        if not group["rate"] > 0 or group["width"] < 1:
            raise ArgumentError(f"expected rate > 0 and width >= 1, got {group['rate']} and {group['width']}")

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def init_state(self, parameter: Tensor, group: Group) -> State:
        """Random keys of unit length, and nothing under them."""
        size = _rows(parameter).shape[1]
        generator = torch.Generator().manual_seed(group["seed"])
        keys = torch.randn(group["width"], size, generator=generator, dtype=torch.float64)
        keys = torch.nn.functional.normalize(keys, dim=1).to(parameter.device, state_dtype(real_view(parameter)))
        return {"keys": keys, "first_keys": keys.clone(), "values": torch.zeros_like(keys.T)}

    def update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor], states: list[State]) -> None:
        """One step of the memory, one of the weights."""
        alpha, rate = group["alpha"], group["rate"]
        for parameter, gradient, state in zip(parameters, gradients, states, strict=True):
            keys, values = state["keys"], state["values"]
            g = _rows(gradient).to(keys.dtype)
            size = g.square().mean().sqrt()
            u = g / size.clamp_min(torch.finfo(g.dtype).tiny)
            answers = torch.tanh(u @ keys.T)
            values_slope = u.T @ answers / u.numel()
            keys_slope = ((1 - answers.square()) * (u @ values)).T @ u / u.numel()
            values.mul_(alpha).sub_(values_slope, alpha=rate)
            keys.mul_(alpha).add_(state["first_keys"], alpha=1 - alpha).sub_(keys_slope, alpha=rate)
            _move(parameter, group["lr"] * size * torch.tanh(u @ keys.T) @ values.T, group)


def _rows(tensor: Tensor) -> Tensor:
    """A weight as a matrix: one row per output; complex numbers as pairs of reals."""
    flat = real_view(tensor)
    return flat.flatten(1) if flat.ndim > 1 else flat.reshape(1, flat.numel())


def _move(parameter: Tensor, change: Tensor, group: Group) -> None:
    """Decoupled decay, then the change, given as rows."""
    flat = real_view(parameter)
    flat.mul_(1 - group["lr"] * group["weight_decay"])
    flat.add_(change.reshape(flat.shape))
