"""Regularizers that integrate a property of the field along the solution: TayNODE and RNODE, for comparison."""

import math
from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from neuralop_kit.neural_ode.node import Field, NeuralODE
from neuralop_kit.neural_ode.regularizers import Weight, check_weight, mean_of_rows, weight_at
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode.solution import Solution


class IntegralRegularizer(ABC):
    """``weight * mean over samples of integral of q(t, u(t)) dt``, carried along as one more component of the state.

    The mean is that of the samples which arrived; it is zero where none did.

    Args:
        weight: a number >= 0, or a schedule.
    """

    def __init__(self, weight: Weight) -> None:
        check_weight(weight)
        self.weight = weight

    @abstractmethod
    def integrand(self, field: Field, u0: Tensor, generator: torch.Generator | None) -> Field:
        """``(t, u) -> q``, ``(batch,)``; made anew for every solve, so that it may draw random numbers once."""

    def solve(
        self,
        node: NeuralODE,
        u0: Tensor,
        t: Tensor,
        *,
        progress: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Solution, Tensor]:
        """The node's solution at the times ``t`` and the penalty; statistics are those of the larger system."""
        integrand = self.integrand(node.field, u0, generator)

        def larger(time: Tensor, state: Tensor) -> Tensor:
            time = time if time.ndim == 0 else time.reshape(-1, *[1] * (u0.ndim - 1))
            u = state[:, :-1].reshape(u0.shape)
            return torch.cat([node.field(time, u).flatten(1), integrand(time, u)[:, None]], dim=1)

        state = torch.cat([u0.flatten(1), u0.new_zeros(len(u0), 1)], dim=1)
        solution = node.solve(larger, state, t)
        ys = solution.ys[..., :-1].reshape(len(solution.ys), *u0.shape)
        penalty = mean_of_rows(solution.ys[-1, :, -1], solution.stats.converged) * weight_at(self.weight, progress)
        return replace(solution, ys=ys, last_y=solution.last_y[:, :-1].reshape(u0.shape)), penalty


class TayNODE(IntegralRegularizer):
    """Small derivatives of order K of the solution: ``q = |d^K u / dt^K|^2``, its mean over the components.

    Derivatives by nested forward mode: the cost of an evaluation grows like ``2^K``.

    Args:
        weight: a number >= 0, or a schedule.
        order: K, at least 1. One less than the order of the error estimate that it stands for makes sense.

    Good values: K = 2 or 3, weight 0.01. Published: MNIST 80
    evaluations at 1.2 times, PhysioNet 167 at 7 times the time of training without it.
    Source: Kelly et al. (2020), arXiv 2007.04504, eq. 4.

    >>> from neuralop_kit.neural_ode import Autonomous
    >>> node = NeuralODE(lambda t, u: u)
    >>> _, penalty = TayNODE(1.0, order=3).solve(node, torch.ones(2, 1), torch.tensor([0.0, 1.0]))
    >>> round(penalty.item(), 3) == round((math.exp(2) - 1) / 2, 3)
    True
    """

    def __init__(self, weight: Weight, *, order: int = 3) -> None:
        super().__init__(weight)
        if order < 1:
            raise ArgumentError(f"expected order >= 1, got {order}; 2 or 3 are usual")
        self.order = order

    def integrand(self, field: Field, u0: Tensor, generator: torch.Generator | None) -> Field:
        """Mean square of the derivative."""
        derivative = field
        for _ in range(self.order - 1):
            derivative = total_derivative(derivative, field)
        return lambda t, u: derivative(t, u).square().flatten(1).mean(dim=1)


class RNODE(IntegralRegularizer):
    """Straight paths: ``q = kinetic |f|^2 + jacobian |e^T df/du|^2``, means over the components.

    ``e`` is a random vector of normal numbers, the same along one solve: the second term estimates the squared
    Frobenius norm of the Jacobian.

    Args:
        weight: a number >= 0, or a schedule; multiplies both terms.
        kinetic, jacobian: shares of the terms, >= 0.

    Good values: both about 0.01.
    Source: Finlay et al. (2020), arXiv 2002.02798, section 4; Hutchinson (1990).

    >>> node = NeuralODE(lambda t, u: torch.full_like(u, 3.0) + 0 * u)
    >>> _, penalty = RNODE(1.0, kinetic=0.5).solve(node, torch.ones(2, 1), torch.tensor([0.0, 1.0]))
    >>> round(penalty.item(), 4)
    4.5
    """

    def __init__(self, weight: Weight = 1.0, *, kinetic: float = 0.01, jacobian: float = 0.01) -> None:
        super().__init__(weight)
        if min(kinetic, jacobian) < 0:
            raise ArgumentError(f"expected shares >= 0, got {kinetic} and {jacobian}; correct them")
        self.kinetic, self.jacobian = kinetic, jacobian

    def integrand(self, field: Field, u0: Tensor, generator: torch.Generator | None) -> Field:
        """Both terms."""
        device = u0.device if generator is None else generator.device
        probe = torch.randn(u0.shape, generator=generator, device=device, dtype=u0.dtype).to(u0.device)

        def both(t: Tensor, u: Tensor) -> Tensor:
            slope, pull, *_ = torch.func.vjp(lambda v: field(t, v), u)
            energy = slope.square().flatten(1).mean(dim=1)
            return self.kinetic * energy + self.jacobian * pull(probe)[0].square().flatten(1).mean(dim=1)

        return both


class Steer:
    """Train with random end times: ``T ~ uniform(T - width, T + width)``; at test time the end is what it is.

    Args:
        width: positive, less than the distance of the last time from the one before.

    Raises:
        ArgumentError: the width is not positive, or, when called, reaches the time before the last.

    Good values: half the length of the interval for classification.
    Source: Ghosh et al. (2020), arXiv 2006.10711, eq. 4.

    >>> t = Steer(0.5)(torch.tensor([0.0, 1.0]), generator=torch.Generator().manual_seed(0))
    >>> bool(0.5 < t[1] < 1.5)
    True
    """

    def __init__(self, width: float) -> None:
        if not (math.isfinite(width) and width > 0):
            raise ArgumentError(f"expected a positive width, got {width}; leave Steer out for fixed times")
        self.width = width

    def __call__(self, t: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Times with another last one, ``(num_times,)``."""
        if t.ndim != 1 or len(t) < 2 or not (t[-1] - t[-2]).abs() > self.width:
            raise ArgumentError(
                f"expected times (num_times,) with a last interval longer than {self.width}, got {t[-2:].tolist()}"
            )
        device = None if generator is None else generator.device
        share = 2 * torch.rand(1, generator=generator, device=device).to(t) - 1
        return torch.cat([t[:-1], t[-1:] + self.width * share])


def total_derivative(quantity: Field, field: Field) -> Field:
    """``d/dt q(t, u(t))`` along ``du/dt = field(t, u)``, by one product with the Jacobian."""

    def derivative(t: Tensor, u: Tensor) -> Tensor:
        return torch.func.jvp(quantity, (t, u), (torch.ones_like(t), field(t, u)))[1]

    return derivative
