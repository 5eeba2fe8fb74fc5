"""CvxpyConstraint: whatever disciplined convex programming can express."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralop_kit.solvers.errors import ArgumentError, MissingExtraError, ShapeError
from neuralop_kit.solvers.status import SolveInfo, Status

if TYPE_CHECKING:
    import cvxpy

# Tight enough for the check of feasibility: SCS stops at 1e-4 by itself.
_SOLVER_ARGS: Mapping[str, Any] = {"eps": 1e-9, "max_iters": 100_000}


class CvxpyConstraint(nn.Module):
    """Solves a parametrised convex problem for every item, and checks what comes back.

    The general fallback: total variation, maximum principles, cones. cvxpylayers solves and differentiates, item by
    item on the CPU; every constraint of the problem is then evaluated here, because backends have been seen to ignore
    constraints or to return certificates of infeasibility as if they were solutions. An item that fails is NaN, has no
    derivative, and does not disturb others.

    Args:
        problem: a ``cvxpy.Problem`` that is DPP in its parameters.
        parameters: its parameters, in the order of the arguments of ``forward``.
        variables: what to return, in this order.
        tolerance: largest accepted violation of a constraint, relative to one plus the size of the solution; positive.
        solver: a backend of cvxpylayers, by default its own choice (diffcp with SCS).
        solver_args: for the backend; by default tolerances of 1e-9 for SCS.

    Shape: parameters ``(batch, *parameter.shape)``, or without batch, to a tuple of variables
    ``(batch, *variable.shape)`` and a :class:`SolveInfo` whose ``residual_norm`` is the relative violation.
    The dtype is that of the first argument; the backend works in float64. Derivatives once, in reverse mode.

    Raises:
        MissingExtraError: cvxpy or cvxpylayers is not installed.
        ArgumentError: the problem is not DPP, or the tolerance not positive. ShapeError: an argument does not fit.

    Source: Agrawal et al. (2019), arXiv 1910.12430.

    >>> import cvxpy
    >>> x, z = cvxpy.Variable(3), cvxpy.Parameter(3)
    >>> nearest = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - z)), [x >= 0, cvxpy.sum(x) == 1])
    >>> layer = CvxpyConstraint(nearest, [z], [x])
    >>> (y,), info = layer(torch.tensor([[1.0, 0.5, -2.0]]))
    >>> y.round(decimals=5).abs(), info.converged
    (tensor([[0.7500, 0.2500, 0.0000]]), tensor([True]))
    """

    def __init__(
        self,
        problem: "cvxpy.Problem",
        parameters: Sequence["cvxpy.Parameter"],
        variables: Sequence["cvxpy.Variable"],
        *,
        tolerance: float = 1e-6,
        solver: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        try:
            from cvxpylayers.torch import CvxpyLayer
        except ImportError as error:
            raise MissingExtraError(
                "expected cvxpylayers to be installed, got an ImportError; pip install 'neuralop-kit[convex]'"
            ) from error
        if not tolerance > 0:
            raise ArgumentError(f"expected a positive tolerance, got {tolerance}; 1e-6 goes with the default backend")
        if not problem.is_dpp():
            raise ArgumentError("expected a problem that follows the DPP rules, got another one; see problem.is_dpp()")
        self.problem, self.tolerance = problem, tolerance
        self.parameters_, self.variables = tuple(parameters), tuple(variables)
        self.solver_args = dict(_SOLVER_ARGS if solver_args is None and solver is None else solver_args or {})
        # Kept out of the module's own state: it holds none that is learned.
        self._layer = (CvxpyLayer(problem, list(parameters), list(problem.variables()), solver=solver),)

    def forward(self, *values: Tensor) -> tuple[tuple[Tensor, ...], SolveInfo]:
        """Variables of all items, and what became of each."""
        batch = self._batch(values)
        data = [v.double().expand(batch, *p.shape) for v, p in zip(values, self.parameters_, strict=True)]
        finite = torch.stack([v.isfinite().reshape(batch, -1).all(dim=1) for v in data]).all(dim=0).cpu()
        status = torch.where(finite, int(Status.CONVERGED), int(Status.INVALID_INPUT))
        violation = torch.full((batch,), torch.nan, dtype=torch.float64)
        solved = self._solve(data, finite.nonzero().squeeze(1).tolist())
        for i, solution in solved.items():
            violation[i] = self._violation([v[i] for v in data], solution)
        wrong = ~(violation <= self.tolerance) & finite
        for i in wrong.nonzero().squeeze(1).tolist():
            status[i] = self._reason([v[i] for v in data])
        good = [i for i in solved if not wrong[i]]
        if len(good) < len(solved) and good:
            # Once more without them: backends fail in the backward pass of items that have no solution.
            solved = self._solve(data, good)
        like = values[0]
        results = [self._collect(k, solved, good, batch, like) for k in range(len(self.variables))]
        device = like.device
        info = SolveInfo(status.to(device), torch.zeros_like(status).to(device), violation.to(device, like.dtype))
        return tuple(results), info

    def _batch(self, values: Sequence[Tensor]) -> int:
        """Number of items."""
        expected = [tuple(p.shape) for p in self.parameters_]
        pairs = list(zip(values, expected, strict=False))
        sizes = {len(v) for v, shape in pairs if v.ndim == len(shape) + 1}
        fits = all(tuple(v.shape) == shape or tuple(v.shape[1:]) == shape for v, shape in pairs)
        if len(values) != len(expected) or not fits or len(sizes) > 1:
            raise ShapeError(
                f"expected parameters of shapes {expected}, each with the same batch axis in front or without, "
                f"got {[tuple(v.shape) for v in values]}; reshape them"
            )
        return sizes.pop() if sizes else 1

    def _solve(self, data: Sequence[Tensor], items: Sequence[int]) -> dict[int, tuple[Tensor, ...]]:
        """Solutions by item; all at once, or one by one if the backend refuses the whole batch for one of them."""
        from diffcp import SolverError

        if not items:
            return {}
        (layer,) = self._layer
        index = torch.tensor(list(items), device=data[0].device)
        try:
            columns = layer(*[v.index_select(0, index) for v in data], solver_args=self.solver_args)
        except SolverError:
            if len(items) == 1:
                return {}
            return {i: s for item in items for i, s in self._solve(data, [item]).items()}
        return {i: tuple(column[k] for column in columns) for k, i in enumerate(items)}

    def _violation(self, data: Sequence[Tensor], solution: Sequence[Tensor]) -> float:
        """The largest violation of a constraint or of an attribute of a variable, relative to one plus ``|x|``."""
        size, worst = 1.0, 0.0
        for parameter, value in zip(self.parameters_, data, strict=True):
            parameter.value = value.detach().cpu().numpy()
        for variable, value in zip(self.problem.variables(), solution, strict=True):
            array = value.detach().cpu().numpy()
            if not np.isfinite(array).all():
                return float("inf")
            variable.save_value(array)
            size = max(size, 1.0 + float(np.abs(array).max(initial=0.0)))
            worst = max(worst, float(np.abs(variable.project(array) - array).max(initial=0.0)))
        for constraint in self.problem.constraints:
            worst = max(worst, float(np.max(constraint.violation(), initial=0.0)))
        return worst / size

    def _reason(self, data: Sequence[Tensor]) -> int:
        """What cvxpy itself says of an item whose solution is none."""
        import cvxpy

        for parameter, value in zip(self.parameters_, data, strict=True):
            parameter.value = value.detach().cpu().numpy()
        try:
            self.problem.solve(solver=cvxpy.CLARABEL)
        except cvxpy.SolverError:
            return int(Status.BREAKDOWN)
        reasons = {"infeasible": Status.INFEASIBLE, "unbounded": Status.UNBOUNDED}
        return int(reasons.get(str(self.problem.status), Status.BREAKDOWN))

    def _collect(
        self, k: int, solved: Mapping[int, tuple[Tensor, ...]], good: Sequence[int], batch: int, like: Tensor
    ) -> Tensor:
        """One variable of all items, NaN for those that failed."""
        variable = self.variables[k]
        position = [v.id for v in self.problem.variables()].index(variable.id)
        result = like.new_full((batch, *variable.shape), torch.nan)
        if not good:
            return result
        rows = torch.stack([solved[i][position] for i in good]).to(like)
        return result.index_copy(0, torch.tensor(list(good), device=like.device), rows)
