"""Muon: momentum, orthogonalised; one matrix per weight, or one complex matrix per Fourier mode."""

from collections import defaultdict

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.base import Group, State, check_fractions
from neuralop_kit.optim.matrices import MatrixOptimizer, orthogonalize


class Muon(MatrixOptimizer):
    """Steepest descent in the spectral norm: the momentum is replaced by its polar factor.

        m <- b m + (1 - b) g,    u = b m + (1 - b) g   (Nesterov)
        W <- W (1 - lr * weight_decay) - lr * 0.2 sqrt(max(rows, columns)) * orthogonalize(u)

    The factor gives matrices the root mean square step of Adam, so that one ``lr`` serves matrices and vectors; vectors
    (biases, norms) go by Adam. Convolution kernels are flattened to one row per output channel. Complex weights are a
    stack of matrices, one per mode, orthogonalised each by itself and with ``X^H``: the step turns with the phases of
    the gradient and commutes with unitary maps of either channel space.

    Args:
        params: parameters or groups; complex weights stored real go into a group with ``complex_weights=True``.
        lr: step size, >= 0.
        momentum: b in [0, 1).
        weight_decay: decoupled, >= 0.
        nesterov: look one gradient ahead.
        num_iterations: Newton-Schulz steps, >= 1.
        adam_betas, eps: of Adam for the vectors.
        complex_weights: the parameters hold complex numbers as a trailing axis of 2.
        maximize: climb instead of descend.
        foreach: orthogonalise weights of equal shape together; False takes them one by one.

    Good values: lr and weight decay of AdamW; momentum 0.95. First and last layers may do better with plain Adam.
    Source: Jordan et al. (2024), "Muon: an optimizer for hidden layers"; the factor is of Liu et al. (2025),
    "Muon is scalable for LLM training", eq. 4. ``torch.optim.Muon`` iterates in bfloat16 and rejects complex weights.

    >>> layer = torch.nn.Linear(4, 3)
    >>> optimizer = Muon(layer.parameters(), lr=1e-2)
    >>> layer(torch.ones(2, 4)).square().sum().backward()
    >>> _ = optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        nesterov: bool = True,
        num_iterations: int = 5,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        complex_weights: bool = False,
        maximize: bool = False,
        foreach: bool = True,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov,
            "num_iterations": num_iterations, "adam_betas": adam_betas, "eps": eps, "complex_weights": complex_weights,
            "maximize": maximize, "foreach": foreach,
        }  # fmt: skip
        super().__init__(params, defaults)

    def check_group(self, group: Group) -> None:
        """The momentum is in [0, 1)."""
        super().check_group(group)
        check_fractions("momentum", [group["momentum"]])

    def matrix_state(self, zeros: Tensor, group: Group) -> State:
        """One momentum."""
        return {"momentum": torch.zeros_like(zeros)}

    def directions(self, group: Group, gradients: list[Tensor], states: list[State]) -> list[Tensor | None]:
        """Scaled polar factors of the momenta."""
        b = group["momentum"]
        momenta = [state["momentum"] for state in states]
        for momentum, gradient in zip(momenta, gradients, strict=True):
            momentum.lerp_(gradient, 1 - b)
        looks = [g.lerp(m, b) for g, m in zip(gradients, momenta, strict=True)] if group["nesterov"] else momenta
        factors = polar_factors(looks, group)
        return [0.2 * max(factor.shape[-2:]) ** 0.5 * factor for factor in factors]


def polar_factors(stacks: list[Tensor], group: Group) -> list[Tensor]:
    """:func:`orthogonalize` of each stack; of all stacks of equal matrices in one go where the group says foreach."""
    alike: dict[object, list[int]] = defaultdict(list)
    for i, stack in enumerate(stacks):
        alike[(stack.shape[1:], stack.dtype, stack.device) if group["foreach"] else i].append(i)
    factors = list(stacks)
    for indices in alike.values():
        joint = orthogonalize(torch.cat([stacks[i] for i in indices]), steps=group["num_iterations"])
        for i, factor in zip(indices, joint.split([len(stacks[i]) for i in indices]), strict=True):
            factors[i] = factor
    return factors
