"""Parameters as stacks of matrices, complex where they are complex, and the polar factor by Newton-Schulz."""

from abc import abstractmethod

import torch
from torch import Tensor

from neuralop_kit.optim.adam import adam_direction, adam_state
from neuralop_kit.optim.base import Group, KitOptimizer, State, check_fractions, descend, real_view, state_dtype
from neuralop_kit.solvers.errors import ArgumentError


def complex_view(tensor: Tensor, group: Group) -> Tensor:
    """What a tensor stands for: complex numbers where its group says so, else itself. To be read, not to be written."""
    if not group.get("complex_weights") or tensor.is_complex():
        return tensor
    if tensor.ndim == 0 or tensor.shape[-1] != 2:
        raise ArgumentError(
            f"expected a trailing axis of 2 in a group with complex_weights=True, got shape {tuple(tensor.shape)}; "
            "put real parameters into a group of their own"
        )
    # Gradients come with any layout, and only some of them can be viewed; compilers do not see where a storage begins.
    viewable = not torch.compiler.is_compiling() and tensor.storage_offset() % 2 == 0 and tensor.is_contiguous()
    return torch.view_as_complex(tensor if viewable else tensor.clone(memory_format=torch.contiguous_format))


def as_matrices(tensor: Tensor) -> Tensor:
    """A tensor of two or more axes as ``(stack, rows, columns)``.

    Complex weights hold one matrix per mode, in their last two axes. A real tensor is one matrix: its first axis by all
    others, so that a convolution kernel has one row per output channel.
    """
    if tensor.is_complex():
        return tensor.reshape(-1, tensor.shape[-2], tensor.shape[-1])
    return tensor.flatten(1).unsqueeze(0)


def orthogonalize(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """The polar factor of each matrix, nearly: singular values go to [0.68, 1.14], singular vectors stay.

        X <- a X + (b A + c A^2) X,   A = X X^H,   (a, b, c) = (3.4445, -4.7750, 2.0315)

    starting from ``X / (|X|_F + 1e-7)``, so that of a matrix shorter than 1e-7 less comes out. Products with ``X^H``,
    not ``X^T``, make it equivariant under unitary maps from either side, hence under phases. A zero matrix stays zero.

    Args:
        matrices: ``(..., rows, columns)``, real or complex.
        steps: iterations; 5 bring singular values down to 1 % of the Frobenius norm into that range.

    Source: Jordan et al. (2024), "Muon"; the coefficients are theirs.

    >>> values = torch.linalg.svdvals(orthogonalize(torch.diag(torch.tensor([1.0, 0.5, 0.05]))))
    >>> bool(((values > 0.65) & (values < 1.2)).all())
    True
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mH if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mH
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mH if tall else x


class MatrixOptimizer(KitOptimizer):
    """Base of optimizers that treat a weight as a matrix, or as one complex matrix per mode; vectors go by Adam.

    A leaf gives the state and the direction of a stack of matrices ``(stack, rows, columns)``. Groups carry, besides
    the options of the leaf, ``lr``, ``weight_decay``, ``adam_betas``, ``eps`` and ``complex_weights``.
    """

    needs_whole = "treats every weight as one matrix"

    def check_group(self, group: Group) -> None:
        """Adam's betas are in [0, 1)."""
        super().check_group(group)
        check_fractions("adam_betas", group["adam_betas"])

    def init_state(self, parameter: Tensor, group: Group) -> State:
        """Of the leaf for matrices, of Adam for vectors."""
        zeros = complex_view(torch.zeros_like(parameter, dtype=state_dtype(parameter)), group)
        return self.matrix_state(as_matrices(zeros), group) if zeros.ndim >= 2 else adam_state(zeros)

    @abstractmethod
    def matrix_state(self, zeros: Tensor, group: Group) -> State:
        """The state of a stack of matrices, given as zeros of its shape and dtype."""

    @abstractmethod
    def directions(self, group: Group, gradients: list[Tensor], states: list[State]) -> list[Tensor | None]:
        """Where each stack of matrices is to move, to be multiplied by ``-lr``; None where it is to stay."""

    def update(self, group: Group, parameters: list[Tensor], gradients: list[Tensor], states: list[State]) -> None:
        """One step: matrices by the rule of the leaf, vectors by Adam."""
        numbers = [complex_view(g.to(state_dtype(p)), group) for g, p in zip(gradients, parameters, strict=True)]
        matrices = [i for i, g in enumerate(numbers) if g.ndim >= 2]
        found = self.directions(group, [as_matrices(numbers[i]) for i in matrices], [states[i] for i in matrices])
        directions = dict(zip(matrices, found, strict=True))
        for i, (parameter, gradient, state) in enumerate(zip(parameters, numbers, states, strict=True)):
            if i not in directions:
                directions[i] = adam_direction(state, gradient, group["adam_betas"], group["eps"])
            direction = directions[i]
            if direction is not None:
                direction = direction.reshape(gradient.shape)
                self.move(group, parameter, direction if parameter.is_complex() else real_view(direction))

    def move(self, group: Group, parameter: Tensor, direction: Tensor) -> None:
        """Decoupled weight decay, then the step."""
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        descend(parameter, direction, group["lr"])
