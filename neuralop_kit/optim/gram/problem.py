"""The problem of one step of the Gram family: directions, trials and the move."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuralop_kit.optim.base import real_view, state_dtype
from neuralop_kit.optim.gram.control import Choice
from neuralop_kit.optim.gram.filters import Filter
from neuralop_kit.optim.gram.path import LONGEST_BEND, Path
from neuralop_kit.optim.gram.residual import ResidualFunction, differentiable, joined, residual_blocks
from neuralop_kit.optim.gram.systems import factorize
from neuralop_kit.optim.gram.vjp import real_size
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.randomness import global_states

if TYPE_CHECKING:
    from neuralop_kit.optim.gram.optimizer import GramOptimizer

# Losses of two calls may differ by some units more than the rounding of one.
_LOST_UNITS = 100.0
# Of a whole step, for second differences of the residual along it.
_SPACING = 0.03


class LinearProblem:
    """The problem of one step, linearised at the present weights, as a step control sees it.

    Args:
        optimizer: whose step it is.
        function: the residual function.
    """

    def __init__(self, optimizer: "GramOptimizer", function: ResidualFunction) -> None:
        self.optimizer, self.function, self.filter = optimizer, differentiable(function), optimizer.filter
        rows = [(p, group) for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        if not rows:
            raise ArgumentError("expected parameters with requires_grad, got none; unfreeze some of them")
        self.parameters = [p for p, _ in rows]
        self.rates, self.decays = (_per_weight(rows, name) for name in ("lr", "weight_decay"))
        self.num_trials = 0

    def linearize(self) -> None:
        """Residual, Jacobian and its factorisation."""
        before = global_states(self.parameters[0].device)
        try:
            with torch.enable_grad():
                self.r, self.jacobian = self.optimizer.engine.linearize(
                    self.function, self.parameters, self.optimizer.weights
                )
        except RuntimeError as error:
            # Told by the message: to look for it in the graph would take time in every step.
            if "sparse" not in str(error).lower():
                raise
            raise ArgumentError("expected dense gradients, got sparse ones; make tables with sparse=False") from error
        after = global_states(self.parameters[0].device)
        self.draws = not all(map(torch.equal, before, after))
        self.loss = 0.5 * self.r.square().sum().item()
        self.system = factorize(self.jacobian, self.filter.rtol)

    @cached_property
    def start(self) -> list[Tensor]:
        """The weights before the first move; copied no earlier, as the Gram matrix needs the memory before."""
        return [real_view(p.detach()).clone() for p in self.parameters]

    def path(self, filter_: Filter) -> Path:
        """The line along the displacement by a whole step: momentum, rates, limit and decay included."""
        previous, limit = self._previous_increment(), self.optimizer.max_norm
        if previous is None:
            increment = self.system.solve(self.r, filter_)
        else:
            increment = previous + self.system.solve(self.r - self.jacobian.times(previous), filter_)
        if self.optimizer.momentum:
            self.increment, increment = increment, increment.clone()
        step = increment.mul_(-self.rates)
        if limit is not None:
            step *= limit / self.optimizer.engine.norm(step).clamp_min(limit)
        if self.decays.any():
            step -= self.rates * self.decays * torch.cat([start.flatten().double() for start in self.start])
        return Path(self.optimizer.engine.agreed(step))

    def bent(self, path: Path, filter_: Filter) -> Path:
        """The line as a parabola, from two calls of the residual; as it is where they do not show that it bends."""
        engine, line = self.optimizer.engine, Path(path.direction)
        ahead, behind = (engine.whole(self._residual(line, size)) for size in (_SPACING, -_SPACING))
        difference = ahead - 2 * self.r + behind
        # What is not finite is no size either. All processes must do the same.
        size = engine.agreed(difference.norm())
        if not (4 * self.residual_rounding < size) & (size < float("inf")):
            return line
        bend = self.system.solve(-0.5 / _SPACING**2 * difference, filter_)
        # The direction knows the rates already; but weights that stand still are not to move now.
        bend = engine.agreed(bend.mul_(self.rates / self.rates.max()))
        lengths = engine.norm(line.direction), engine.norm(bend)
        return Path(line.direction, bend, LONGEST_BEND * lengths[0] / lengths[1].clamp_min(1e-300))

    def trial(self, path: Path, size: float) -> float:
        """The loss on the path; infinite where the residual is not finite."""
        loss = self.optimizer.engine.total(self._residual(path, size)).item()
        return loss if loss < float("inf") else float("inf")

    def _residual(self, path: Path, size: float) -> Tensor:
        """The residual on the path, as this process sees it."""
        if self.draws and not self.num_trials:
            self._check_repeats()
        self.num_trials += 1
        self._place(path, size)
        return self._evaluate()

    def _evaluate(self) -> Tensor:
        """The residual at the present weights."""
        with torch.enable_grad():
            return joined(residual_blocks(self.function(), self.optimizer.weights))

    def _check_repeats(self) -> None:
        """Raise an :class:`ArgumentError` if another call at the same weights gives another loss.

        Asked only of functions that draw random numbers: with a seed of their own each time they may.
        """
        loss = self.optimizer.engine.total(self._evaluate()).item()
        tolerance = max(self.jacobian.factor_eps, torch.finfo(torch.float64).eps) ** 0.5
        if abs(loss - self.loss) > tolerance * self.loss + _LOST_UNITS * self.rounding.item():
            raise ArgumentError(
                f"expected the same residual from two calls of the residual function, got losses {self.loss:.6g} and "
                f"{loss:.6g} after it drew random numbers; draw points outside of it, and switch dropout off by "
                "model.eval()"
            )

    def predicted(self, path: Path, size: float) -> float:
        """The loss of the linear model there."""
        return 0.5 * (self.r + size * self.jacobian.times(path.direction)).square().sum().item()

    def slope(self, path: Path) -> float:
        """The derivative of the loss at the beginning of the path."""
        return torch.dot(self.r, self.jacobian.times(path.direction)).item()

    def promises_nothing(self, path: Path) -> bool:
        """Whether the linear model promises less, at the best size up to one, than the rounding of the loss."""
        image = self.jacobian.times(path.direction)
        slope, curvature = torch.dot(self.r, image).abs(), image.square().sum()
        size = (slope / curvature.clamp_min(1e-300)).clamp_max(1.0)
        gain = size * (slope - 0.5 * size * curvature)
        # Also what is not a number is no promise. All processes must do the same.
        return not self.optimizer.engine.agreed((gain > self.rounding).double()).item()

    @cached_property
    def rounding(self) -> Tensor:
        """Of the loss: ``d |r| / sqrt(rows) + d^2 / 2`` with the rounding d of r; errors of rows are independent."""
        error = self.residual_rounding
        return error * (self.r.norm() / len(self.r) ** 0.5 + 0.5 * error)

    @cached_property
    def residual_rounding(self) -> Tensor:
        """``eps (|r| + |J theta|)``: that of the weights is in it, as every evaluation has it."""
        theta = torch.cat([start.flatten().double() for start in self.start])
        eps = max(self.jacobian.factor_eps, torch.finfo(torch.float64).eps)
        return eps * (self.r.norm() + self.jacobian.times(theta).norm())

    def accept(self, choice: Choice) -> None:
        """Move to where the control chose to go, and remember the increment; the linear problem is given up."""
        # It is the largest thing in memory.
        del self.system, self.jacobian
        if choice.path is None:
            self.restore()
            for parameter in self.parameters:
                # A memory that leads nowhere would do so again in the next step, however soft the filter.
                self.optimizer.state[parameter].pop("increment", None)
            return
        self._place(choice.path, choice.size)
        if self.optimizer.momentum:
            sizes = [real_size(p) for p in self.parameters]
            for parameter, part in zip(self.parameters, self.increment.split(sizes), strict=True):
                # What was gone, not what was proposed: else a short step leaves a memory far longer than itself.
                self.optimizer.state[parameter]["increment"] = (choice.size * part).to(
                    state_dtype(real_view(parameter))
                )

    def restore(self) -> None:
        """Write the weights as they were before the first trial."""
        for parameter, start in zip(self.parameters, self.start, strict=True):
            real_view(parameter.data).copy_(start)

    def _previous_increment(self) -> Tensor | None:
        """``mu phi``; None in the first step and without momentum."""
        states = [self.optimizer.state[p] for p in self.parameters]
        if not self.optimizer.momentum or not any("increment" in state for state in states):
            return None
        found = zip(self.parameters, states, strict=True)
        parts = [state["increment"].double() if "increment" in state else _constant(p, 0.0) for p, state in found]
        return self.optimizer.momentum * torch.cat(parts)

    def _place(self, path: Path, size: float) -> None:
        """Write all weights: the start plus the displacement, added in float64 and rounded once."""
        parts = path.displacement(size).split([real_size(p) for p in self.parameters])
        for parameter, start, part in zip(self.parameters, self.start, parts, strict=True):
            torch.add(start, part.view(start.shape), out=real_view(parameter.data))


def _per_weight(rows: list[tuple[Tensor, dict[str, Any]]], name: str) -> Tensor:
    """An option of the groups for each weight, or one number if all groups agree."""
    device = rows[0][0].device
    if all(group is rows[0][1] for _, group in rows):
        return torch.as_tensor(rows[0][1][name], dtype=torch.float64, device=device)
    values = [torch.as_tensor(group[name], dtype=torch.float64, device=device) for _, group in rows]
    return torch.cat([value.expand(real_size(p)) for (p, _), value in zip(rows, values, strict=True)])


def _constant(parameter: Tensor, value: Any) -> Tensor:
    """One number for each real of a parameter, float64."""
    number = torch.as_tensor(value, dtype=torch.float64, device=parameter.device)
    return number.expand(real_size(parameter))
