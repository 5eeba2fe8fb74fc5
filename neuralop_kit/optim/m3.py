"""M3: momentum at two time scales, both orthogonalised."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.adam import squared_modulus
from neuralop_kit.optim.base import Group, State, check_fractions, check_nonnegative
from neuralop_kit.optim.matrices import MatrixOptimizer, orthogonalize
from neuralop_kit.solvers.errors import ArgumentError


class Accumulation(ABC):
    """How the memories of M3 take in what is new; leaves have no state."""

    @abstractmethod
    def add(self, memory: Tensor, value: Tensor, beta: float) -> None:
        """Take ``value`` into ``memory``, in place."""

    @abstractmethod
    def chunk_value(self, total: Tensor, period: int) -> Tensor:
        """What the slow memory takes in, from the sum of the gradients of a chunk."""

    @abstractmethod
    def variance(self, memory: Tensor, beta: float, step: int) -> Tensor:
        """The second moment, from its memory."""

    @abstractmethod
    def factor(self, rows: int, columns: int) -> float:
        """By how much the step of a matrix of this shape is longer."""


class Sums(Accumulation):
    """``M <- M + b X``, as printed: nothing is ever forgotten, and steps shrink like ``1/sqrt(t)``."""

    def add(self, memory: Tensor, value: Tensor, beta: float) -> None:
        """Plain sum."""
        memory.add_(value, alpha=beta)

    def chunk_value(self, total: Tensor, period: int) -> Tensor:
        """The sum."""
        return total

    def variance(self, memory: Tensor, beta: float, step: int) -> Tensor:
        """The memory itself."""
        return memory

    def factor(self, rows: int, columns: int) -> float:
        """None."""
        return 1.0


class Averages(Accumulation):
    """``M <- b M + (1 - b) X``: exponential averages, the second moment with bias correction."""

    def add(self, memory: Tensor, value: Tensor, beta: float) -> None:
        """Exponential average."""
        memory.lerp_(value, 1 - beta)

    def chunk_value(self, total: Tensor, period: int) -> Tensor:
        """The mean."""
        return total / period

    def variance(self, memory: Tensor, beta: float, step: int) -> Tensor:
        """Bias-corrected."""
        return memory / (1 - beta**step)

    def factor(self, rows: int, columns: int) -> float:
        """``sqrt(max(1, rows / columns))``, as for Muon."""
        return max(1.0, rows / max(columns, 1)) ** 0.5


MODES: dict[str, Accumulation] = {"paper": Sums(), "ema": Averages()}


class M3(MatrixOptimizer):
    """Multi-scale momentum: a fast memory every step, a slow one every ``period`` steps, both made orthogonal.

        W <- W (1 - lr * weight_decay) - lr * (O(M1) + alpha * O(M2)) / (sqrt(V) + eps)

        mode       every step                                  after each chunk of ``period`` steps
        "paper"    M1 += b1 g,  V += b2 |g|^2                  M2 += b3 * sum of the chunk's gradients
        "ema"      M1 = b1 M1 + (1 - b1) g,  V alike           M2 = b3 M2 + (1 - b3) * mean of the chunk's gradients

    with ``O`` of :func:`orthogonalize`. In mode "paper" b1 and b3 have no effect, since O does not see scale, and V
    grows without end, so that steps shrink like ``1/sqrt(t)``. Mode "ema" corrects the bias of V and lengthens the step
    of tall matrices by ``sqrt(rows / columns)``; these and the decay are ours. The printed slow sum runs over
    ``period + 1`` gradients; we take ``period``. Complex weights are matrices per mode, as for :class:`Muon`, with a
    real V, hence phase-equivariant. Vectors go by Adam. Memory: five numbers per weight.

    O does not see the scale of the gradient but V does: as gradients shrink, steps of mode "ema" grow, and the loss
    settles at a level set by ``lr``. Let a schedule bring it to zero, or leave V out: without it, and with alpha = 0,
    mode "ema" is Muon without looking ahead, up to the factor of shape.

    Args:
        params: parameters or groups; complex weights stored real go into a group with ``complex_weights=True``.
        lr: step size, >= 0.
        betas: (b1, b2, b3); in [0, 1) in mode "ema", >= 0 in mode "paper".
        alpha: weight of the slow memory, >= 0.
        period: length of a chunk, >= 1.
        mode: "ema" or "paper".
        second_moment: divide by ``sqrt(V) + eps``, as printed; False leaves V out, memory included.
        weight_decay: decoupled, >= 0.
        num_iterations: Newton-Schulz steps, >= 1.
        adam_betas, eps: of Adam for the vectors; ``eps`` also beside sqrt(V).
        complex_weights: the parameters hold complex numbers as a trailing axis of 2.
        maximize: climb instead of descend.

    Good values: the paper gives none; betas (0.95, 0.999, 0.9), alpha 1, period 100 are a beginning. An FNO on Burgers'
    equation came to a relative error of 0.03 without V (lr 1e-2) where mode "ema" with V stopped at 1.3 (lr 1e-5).
    Source: Behrouz et al. (2025), "Nested learning", algorithm 1.

    >>> layer = torch.nn.Linear(4, 3)
    >>> optimizer = M3(layer.parameters(), lr=1e-3, mode="paper")
    >>> layer(torch.ones(2, 4)).square().sum().backward()
    >>> _ = optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float, float] = (0.95, 0.999, 0.9),
        alpha: float = 1.0,
        period: int = 100,
        mode: str = "ema",
        second_moment: bool = True,
        weight_decay: float = 0.0,
        num_iterations: int = 5,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        complex_weights: bool = False,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "alpha": alpha, "period": period, "mode": mode, "second_moment": second_moment,
            "weight_decay": weight_decay, "num_iterations": num_iterations, "adam_betas": adam_betas, "eps": eps,
            "complex_weights": complex_weights, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def check_group(self, group: Group) -> None:
        """The mode exists; betas, alpha and period are in their ranges."""
        super().check_group(group)
        if group["mode"] not in MODES:
            raise ArgumentError(f"expected a mode among {sorted(MODES)}, got {group['mode']!r}; take one of these")
        if group["mode"] == "ema":
            check_fractions("betas", group["betas"])
        check_nonnegative("alpha", group["alpha"])
        if group["period"] < 1:
            raise ArgumentError(f"expected period >= 1, got {group['period']}; 100 is a beginning")

    def matrix_state(self, zeros: Tensor, group: Group) -> State:
        """Two memories, the chunk's sum, the slow direction and a real second moment."""
        names = ("fast", "slow", "chunk", "slow_direction")
        state: State = {"step": 0, **{name: torch.zeros_like(zeros) for name in names}}
        if group["second_moment"]:
            state["square"] = torch.zeros_like(squared_modulus(zeros))
        return state

    def directions(self, group: Group, gradients: list[Tensor], states: list[State]) -> list[Tensor | None]:
        """Both polar factors, over the root of the second moment."""
        return [_direction(group, g, state) for g, state in zip(gradients, states, strict=True)]


def _direction(group: Group, gradient: Tensor, state: State) -> Tensor:
    rule, (b1, b2, b3), steps = MODES[group["mode"]], group["betas"], group["num_iterations"]
    if state["step"] and state["step"] % group["period"] == 0:
        rule.add(state["slow"], rule.chunk_value(state["chunk"], group["period"]), b3)
        state["slow_direction"] = orthogonalize(state["slow"], steps=steps)
        state["chunk"].zero_()
    state["step"] += 1
    state["chunk"].add_(gradient)
    rule.add(state["fast"], gradient, b1)
    joint = orthogonalize(state["fast"], steps=steps).add_(state["slow_direction"], alpha=group["alpha"])
    if group["second_moment"]:
        rule.add(state["square"], squared_modulus(gradient), b2)
        joint.div_(rule.variance(state["square"], b2, state["step"]).sqrt().add_(group["eps"]))
    return joint.mul_(rule.factor(*gradient.shape[-2:]))
