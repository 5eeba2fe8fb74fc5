"""SOAP: Adam in the eigenbasis of Shampoo; complex weights mode by mode."""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.adam import adam_direction, adam_state
from neuralop_kit.optim.base import Group, State, check_fractions, descend
from neuralop_kit.optim.matrices import MatrixOptimizer
from neuralop_kit.solvers.errors import ArgumentError


class SOAP(MatrixOptimizer):
    """Adam on rotated gradients: the rotations diagonalise the second moments of rows and columns.

        L <- b L + (1 - b) G G^H,    R <- b R + (1 - b) G^H G,    L = Q_L diag Q_L^H,  R = Q_R diag Q_R^H
        W <- W - lr * Q_L adam(Q_L^H G Q_R) Q_R^H,    then  W <- W (1 - lr * weight_decay)

    The first step only starts L and R and moves no matrix. Later steps use the old bases, then update L and R; every
    ``period`` steps the bases follow by one power iteration and a QR factorisation, the first moment is rotated along,
    the second is kept. Complex weights are a stack of matrices, one per mode, each with its own bases; the second
    moment of a complex number is real, so the step is equivariant under phases. Vectors go by Adam. A side of more than
    ``max_size`` rows or columns is not rotated. Where a first gradient does not span the space, its basis is arbitrary.

    Memory: 2 (rows^2 + columns^2) numbers per matrix beyond Adam's. Time: some products of these sizes per step.

    Args:
        params: parameters or groups; complex weights stored real go into a group with ``complex_weights=True``.
        lr: step size, >= 0.
        betas: of the moments, in [0, 1).
        factor_beta: b of L and R, in [0, 1); by default the second of ``betas``.
        weight_decay: decoupled, >= 0.
        period: steps between two refreshes of the bases, >= 1.
        max_size: largest side that is rotated.
        adam_betas, eps: of Adam for the vectors; ``eps`` also in the rotated Adam.
        complex_weights: the parameters hold complex numbers as a trailing axis of 2.
        maximize: climb instead of descend.

    Good values: lr 3e-3, betas (0.95, 0.95), period 10; for PINNs period 2.
    Source: Vyas et al. (2024), "SOAP: improving and stabilizing Shampoo using Adam", algorithm 3.

    >>> layer = torch.nn.Linear(4, 3)
    >>> optimizer = SOAP(layer.parameters(), lr=3e-3)
    >>> layer(torch.ones(2, 4)).square().sum().backward()
    >>> _ = optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        factor_beta: float | None = None,
        weight_decay: float = 0.0,
        period: int = 10,
        max_size: int = 10_000,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        complex_weights: bool = False,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "factor_beta": betas[1] if factor_beta is None else factor_beta,
            "weight_decay": weight_decay, "period": period, "max_size": max_size, "adam_betas": adam_betas, "eps": eps,
            "complex_weights": complex_weights, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def check_group(self, group: Group) -> None:
        """Betas are in [0, 1), the period at least 1."""
        super().check_group(group)
        check_fractions("betas", [*group["betas"], group["factor_beta"]])
        if group["period"] < 1:
            raise ArgumentError(f"expected period >= 1, got {group['period']}; 10 is usual, 2 for PINNs")

    def matrix_state(self, zeros: Tensor, group: Group) -> State:
        """Adam's moments and, for each side that is rotated, its factor and its basis, empty as yet."""
        state = adam_state(zeros)
        for side, size in zip(("rows", "columns"), zeros.shape[-2:], strict=True):
            if size <= group["max_size"]:
                state[f"factor_{side}"] = zeros.new_zeros(len(zeros), size, size)
        return state

    def directions(self, group: Group, gradients: list[Tensor], states: list[State]) -> list[Tensor | None]:
        """Adam's directions in the old bases; then factors and bases follow."""
        return [self._direction(group, g, state) for g, state in zip(gradients, states, strict=True)]

    def _direction(self, group: Group, gradient: Tensor, state: State) -> Tensor | None:
        if "started" not in state:
            state["started"] = True
            _follow(state, gradient, group["factor_beta"])
            for side in _sides(state):
                factor = state[f"factor_{side}"]
                # Of a gradient that is not finite there are no eigenvectors; the factor stays as it is and will tell.
                known = torch.where(factor.isfinite().all(), factor, torch.zeros_like(factor))
                state[f"basis_{side}"] = torch.linalg.eigh(known).eigenvectors.flip(-1)
            return None
        direction = _turn_back(state, adam_direction(state, _turn(state, gradient), group["betas"], group["eps"]))
        _follow(state, gradient, group["factor_beta"])
        if state["step"] % group["period"] == 0:
            _refresh(state)
        return direction

    def move(self, group: Group, parameter: Tensor, direction: Tensor) -> None:
        """The step, then the decay, as in the authors' code."""
        descend(parameter, direction, group["lr"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])


def _sides(state: State) -> list[str]:
    """The sides that are rotated."""
    return [side for side in ("rows", "columns") if f"factor_{side}" in state]


def _turn(state: State, matrices: Tensor) -> Tensor:
    """``Q_L^H X Q_R``."""
    x = state["basis_rows"].mH @ matrices if "basis_rows" in state else matrices
    return x @ state["basis_columns"] if "basis_columns" in state else x


def _turn_back(state: State, matrices: Tensor) -> Tensor:
    """``Q_L X Q_R^H``."""
    x = state["basis_rows"] @ matrices if "basis_rows" in state else matrices
    return x @ state["basis_columns"].mH if "basis_columns" in state else x


def _follow(state: State, gradient: Tensor, beta: float) -> None:
    """Advance the second moments of rows and columns."""
    for side in _sides(state):
        product = gradient @ gradient.mH if side == "rows" else gradient.mH @ gradient
        state[f"factor_{side}"].lerp_(product, 1 - beta)


def _refresh(state: State) -> None:
    """One power iteration and QR per side, sorted by estimated eigenvalue; the first moment keeps its meaning."""
    moment = _turn_back(state, state["moment"])
    for side in _sides(state):
        basis, factor = state[f"basis_{side}"], state[f"factor_{side}"]
        product = factor @ basis
        order = (basis.conj() * product).sum(dim=-2).real.argsort(dim=-1, descending=True)
        columns = order.unsqueeze(-2).expand_as(product)
        state[f"basis_{side}"] = torch.linalg.qr(product.gather(-1, columns)).Q
        along_rows = order.unsqueeze(-1) if side == "rows" else order.unsqueeze(-2)
        state["square"] = state["square"].gather(-2 if side == "rows" else -1, along_rows.expand_as(state["square"]))
    state["moment"] = _turn(state, moment)
