"""LeastSquaresConstraint: the combination of learned basis functions that obeys a differential equation best.

For layers that solve the same constraint on parts of the domain, the work comes in pieces that fit together:

    terms  = constraint.assemble_terms(basis)        (batch, num_terms, num_basis, *space)   differentiated globally
    walls  = constraint.assemble_rows(basis)         one WallRows per condition, (batch, *wall, num_basis)
    data   = constraint.equation.data(basis, ...)    coordinates and coefficients, each (batch or 1, *space)
    w, info = constraint.solve_local(terms, ...)     any batch of problems: items, subdomains, both folded into one axis

``solve_local`` takes terms of shape ``(problems, num_terms, num_points, num_basis)``: points before functions.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.constraints.conditions import Condition, WallRows
from neuralop_kit.constraints.equation import Equation
from neuralop_kit.constraints.functions import CoordinateFunction, terms_at, trace_at
from neuralop_kit.constraints.policies import FailurePolicy, Mask
from neuralop_kit.constraints.precision import in_single_at_least
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.optimization.implicit import Differentiation, Reattachment
from neuralop_kit.solvers.optimization.levenberg_marquardt import LeastSquaresInfo, LevenbergMarquardt
from neuralop_kit.solvers.optimization.pointwise import LinearRows, PointwiseProblem, PointwiseResidual
from neuralop_kit.solvers.optimization.problem import LeastSquaresProblem
from neuralop_kit.solvers.optimization.transforms import refuse_vmap

_SOLVER, _DIFFERENTIATION, _POLICY = LevenbergMarquardt(), Reattachment(), Mask()


class LeastSquaresConstraint(nn.Module):
    """Output layer that combines learned functions so that a differential equation holds as well as they allow.

        u = offset + sum_n w_n b_n,     w = argmin  mean |phi(u, u_t, u_xx, ...)|^2 + conditions + ridge |w|^2

    One nonlinear least-squares problem per item, all in one batch, differentiated exactly by the implicit function
    theorem. "Hard" means the smallest residual in the span of the basis, not zero.

    Args:
        residual: a function whose arguments name what it needs, see :class:`Equation`; or an :class:`Equation`.
        domain: where the basis lives; time may be one of its axes.
        conditions: initial and boundary values as rows, :class:`AtStart` and :class:`AtStop`.
        num_points: collocation points drawn anew at every call, the same for all items; None for all points.
        ridge: relative to the mean squared column of the Jacobian at the start, non-negative. Good values: 1e-12 to
            1e-6; more for a basis that is nearly dependent.
        start: value of every coefficient at the beginning, where none are given.
        solver: tolerance and number of iterations.
        differentiation: how derivatives are made.
        policy: what becomes of items that fail: :class:`Mask`, :class:`Raise`, :class:`Damp`, :class:`Fallback`.

    Shape: ``(batch, num_basis, *space) -> (batch, 1, *space)``, and a :class:`LeastSquaresInfo`. Any resolution.

    Raises:
        ArgumentError: a number is out of range, names do not fit. ShapeError: tensors do not fit.

    Source: Negiar et al. (2023), arXiv 2207.08675; Chalapathi et al. (2024).

    >>> from neuralop_kit.constraints import AtStart
    >>> domain = Domain.box((1.0,), boundary="dirichlet", nodes="vertex")
    >>> layer = LeastSquaresConstraint(lambda u, u_x: u_x + u, domain, conditions=[AtStart("initial", 0, target=1.0)])
    >>> x = domain.coordinates((65,), dtype=torch.float64)
    >>> u, info = layer(torch.stack([x**k for k in range(8)], dim=1))
    >>> (u - torch.exp(-x)).abs().max().item() < 1e-4, info.converged
    (True, tensor([True]))
    """

    def __init__(
        self,
        residual: PointwiseResidual | Equation,
        domain: Domain,
        *,
        conditions: Sequence[Condition] = (),
        num_points: int | None = None,
        ridge: float = 1e-12,
        start: float = 0.0,
        solver: LevenbergMarquardt = _SOLVER,
        differentiation: Differentiation = _DIFFERENTIATION,
        policy: FailurePolicy = _POLICY,
    ) -> None:
        super().__init__()
        if not ridge >= 0 or (num_points is not None and num_points < 1):
            raise ArgumentError(f"expected ridge >= 0 and num_points >= 1, got {ridge} and {num_points}; correct them")
        self.equation = residual if isinstance(residual, Equation) else Equation(residual, domain)
        self.domain, self.conditions = domain, tuple(conditions)
        self.num_points, self.ridge, self.start = num_points, ridge, start
        self.solver, self.differentiation, self.policy = solver, differentiation, policy

    @in_single_at_least
    def forward(
        self,
        basis: Tensor,
        *,
        offset: Tensor | None = None,
        coefficients: Mapping[str, Tensor | float] | None = None,
        targets: Mapping[str, Tensor] | None = None,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, LeastSquaresInfo]:
        """Solve and combine.

        Args:
            basis: functions, ``(batch, num_basis, *space)``.
            offset: a part of ``u`` that is given, such as a lifting of boundary values, ``(batch, 1, *space)``.
            coefficients: values of the residual's other arguments, by name, see :meth:`Equation.data`.
            targets: of the conditions, by name, see :meth:`Condition.rows`.
            start: of the coefficients, ``(batch, num_basis)``.
            generator: of the collocation points.
        """
        terms = self.assemble_terms(basis)
        offsets = None if offset is None else self.assemble_terms(offset).flatten(3).squeeze(2)
        data = [value.flatten(1) for value in self.equation.data(basis, coefficients)]
        chosen = self._points(math.prod(basis.shape[2:]), generator, basis.device)
        walls = [rows.flat() for rows in self.assemble_rows(basis, offset=offset, targets=targets)]
        w, info = self.solve_local(
            _pick(terms.flatten(3), chosen).mT,
            offsets=None if offsets is None else _pick(offsets, chosen),
            data=[_pick(value, chosen) for value in data],
            rows=LinearRows.join(*walls) if walls else None,
            start=start,
        )
        u = torch.einsum("bn,bn...->b...", w, basis).unsqueeze(1)
        return u if offset is None else u + offset, info

    def solve_functions(
        self,
        function: CoordinateFunction,
        points: Tensor,
        *,
        walls: Mapping[str, Tensor] | None = None,
        coefficients: Mapping[str, Tensor | float] | None = None,
        targets: Mapping[str, Tensor] | None = None,
        start: Tensor | None = None,
    ) -> tuple[Tensor, LeastSquaresInfo]:
        """Coefficients of functions that can be evaluated anywhere; all derivatives by automatic differentiation.

        Args:
            function: from coordinates ``(number, num_dims)`` to values ``(batch, number, num_basis)``, such as a
                network that maps every point by itself.
            points: of collocation, ``(num_points, num_dims)``.
            walls: points of every condition, by its name, ``(number, num_dims)``.
            coefficients: as in :meth:`forward`, with ``num_points`` in the place of ``*space``.
            targets: of the conditions, by name, ``(batch,)`` or ``(batch, number)``.
            start: of the coefficients, ``(batch, num_basis)``.
        """
        terms = terms_at(self.equation.terms, function, points)
        like = points.new_empty(len(terms), 1, len(points))
        data = self.equation.data(like, coefficients, coordinates=points.mT)
        given, places = self._by_name("targets", targets), self._by_name("walls", walls)
        rows = []
        for condition in self.conditions:
            if condition.name not in places:
                raise ArgumentError(f"expected points for condition {condition.name!r}, got none; add them to walls")
            matrix = trace_at(condition, function, places[condition.name])
            rows.append(condition.with_target(matrix, given.get(condition.name)).flat())
        linear = LinearRows.join(*rows) if rows else None
        return self.solve_local(terms, data=data, rows=linear, start=start)

    def assemble_terms(self, basis: Tensor) -> Tensor:
        """All terms of all functions: ``(batch, num_basis, *space) -> (batch, num_terms, num_basis, *space)``."""
        return self.equation.terms(basis)

    def assemble_rows(
        self, basis: Tensor, *, offset: Tensor | None = None, targets: Mapping[str, Tensor] | None = None
    ) -> list[WallRows]:
        """Rows of all conditions, see :meth:`Condition.rows`."""
        given = self._by_name("targets", targets)
        return [c.rows(basis, self.domain, target=given.get(c.name), offset=offset) for c in self.conditions]

    def solve_local(
        self,
        terms: Tensor,
        *,
        offsets: Tensor | None = None,
        data: Sequence[Tensor] = (),
        rows: LinearRows | None = None,
        weights: Tensor | None = None,
        start: Tensor | None = None,
    ) -> tuple[Tensor, LeastSquaresInfo]:
        """Coefficients ``(problems, num_basis)`` of any batch of problems, and the report, see `local_problem`."""
        return self.minimize(
            *self.local_problem(terms, offsets=offsets, data=data, rows=rows, weights=weights, start=start)
        )

    def local_problem(
        self,
        terms: Tensor,
        *,
        offsets: Tensor | None = None,
        data: Sequence[Tensor] = (),
        rows: LinearRows | None = None,
        weights: Tensor | None = None,
        start: Tensor | None = None,
    ) -> tuple[PointwiseProblem, Tensor]:
        """Any batch of problems, and where their solution begins.

        Args:
            terms: ``(problems, num_terms, num_points, num_basis)``.
            offsets: terms of the given part, ``(problems, num_terms, num_points)``.
            data: coordinates and coefficients as :meth:`Equation.data` lists them, ``(problems or 1, num_points)``.
            rows: of the conditions, weights multiplied in, ``(problems, num_rows, num_basis)``.
            weights: of the points; by default ``num_points^(-1/2)``, which makes the sum of squares a mean. Problems
                with fewer points than others have zeros at the end and, there, copies of a point they have.
            start: ``(problems, num_basis)``.
        """
        if weights is None:
            weights = terms.new_full((terms.shape[0], terms.shape[2]), terms.shape[2] ** -0.5)
        if start is None:
            start = terms.new_full((terms.shape[0], terms.shape[3]), self.start)
        if tuple(start.shape) != (terms.shape[0], terms.shape[3]):
            raise ShapeError(f"expected start of shape {(terms.shape[0], terms.shape[3])}, got {tuple(start.shape)}")
        problem = PointwiseProblem(
            self.equation, terms, offsets=offsets, coefficients=data, weights=weights, linear=rows
        )
        return problem.with_ridge(self._ridge(problem, start.detach())) if self.ridge > 0 else problem, start

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _ridge(self, problem: PointwiseProblem, start: Tensor) -> Tensor:
        """Relative to the columns, so that rescaling the basis does not change the solution."""
        ridge = _mean_squares(problem, start) * self.ridge
        refuse_vmap(ridge)
        finite = ridge.isfinite()
        if finite.all():
            return ridge
        # A gradient of zero, taken through the NaN of a failed item, would spoil all weights behind it.
        index = finite.nonzero().squeeze(1)
        healthy = _mean_squares(problem.take(index), start.index_select(0, index)) * self.ridge
        return ridge.detach().index_copy(0, index, healthy)

    # The iteration looks at values; what is compiled around it stays so.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def minimize(self, problem: LeastSquaresProblem, start: Tensor) -> tuple[Tensor, LeastSquaresInfo]:
        """Coefficients of a batch of problems, as solver and policy make them, and the report."""
        minimum = self.solver.minimize(problem, start)
        return self.policy.finish(problem, start, minimum, self.differentiation), minimum.info

    def _by_name(self, kind: str, given: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """What was given for conditions; an error for names that no condition has."""
        unknown = set(given or {}) - {condition.name for condition in self.conditions}
        if unknown:
            raise ArgumentError(
                f"expected {kind} of the conditions {[c.name for c in self.conditions]}, got {sorted(unknown)}; "
                "correct the names"
            )
        return dict(given or {})

    def _points(self, total: int, generator: torch.Generator | None, device: torch.device) -> Tensor | None:
        """Numbers of the collocation points, or None for all."""
        if self.num_points is None or self.num_points >= total:
            return None
        source = torch.device("cpu") if generator is None else generator.device
        return torch.randperm(total, generator=generator, device=source)[: self.num_points].to(device)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.equation.terms}, conditions={[c.name for c in self.conditions]}, policy={self.policy}"


def _mean_squares(problem: PointwiseProblem, start: Tensor) -> Tensor:
    """Of the columns of the Jacobian, for each problem."""
    return problem.rows(start)[1].square().sum(dim=(1, 2)) / start.shape[1]


def _pick(values: Tensor, index: Tensor | None) -> Tensor:
    """Some entries of the last axis."""
    return values if index is None else values.index_select(-1, index)
