"""Newton steps at the end of a least-squares solve, which bring the gradient down to rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.optimization.hessian import HessianFactor
from neuralop_kit.solvers.optimization.problem import LeastSquaresProblem
from neuralop_kit.solvers.optimization.steps import ExactHessian, Linearization, NormalEquations


@dataclass(frozen=True)
class Final:
    """What is returned; the factor of the Hessian, and cost, gradient and squared columns there."""

    w: Tensor
    factor: HessianFactor
    linearization: Linearization

    @staticmethod
    def at(problem: LeastSquaresProblem, w: Tensor) -> Final:
        """Everything anew."""
        linearization = ExactHessian().linearize(problem, w)
        return Final(w, HessianFactor.of(linearization.matrix), linearization)


def polished(problem: LeastSquaresProblem, w: Tensor, mask: Tensor, max_steps: int) -> Final:
    """Newton steps with one Hessian, each kept where the gradient gets smaller; and everything at the end."""
    first = Final.at(problem, w)
    factor, gradient = first.factor, first.linearization.gradient
    may_move = mask & factor.is_definite
    for _ in range(max_steps):
        trial = w - factor.solve(gradient)
        new = problem.gradient(trial)
        better = may_move & ((factor.scale * new).norm(dim=-1) < (factor.scale * gradient).norm(dim=-1))
        w = torch.where(better.unsqueeze(-1), trial, w)
        gradient = torch.where(better.unsqueeze(-1), new, gradient)
    moved = (w - first.w).norm(dim=-1)
    if (moved > torch.finfo(w.dtype).eps ** (2 / 3) * w.norm(dim=-1)).any():
        return Final.at(problem, w)
    linearization = first.linearization if not moved.any() else NormalEquations().linearize(problem, w)
    return Final(w, factor, linearization)
