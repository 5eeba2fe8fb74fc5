"""MixtureOfExperts: one constraint, solved on every part of the domain by itself."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from neuralop_kit.constraints.collocation import AllPoints, Collocation
from neuralop_kit.constraints.conditions import WallRows
from neuralop_kit.constraints.interface import Interface, Separate
from neuralop_kit.constraints.least_squares import LeastSquaresConstraint
from neuralop_kit.constraints.partition import Assignment
from neuralop_kit.constraints.precision import in_single_at_least
from neuralop_kit.constraints.ranks import OneRank, Ranks
from neuralop_kit.constraints.solution import ExpertsInfo, ExpertSolution, largest_jump
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.optimization.coupled import CoupledProblem
from neuralop_kit.solvers.optimization.levenberg_marquardt import LeastSquaresInfo
from neuralop_kit.solvers.optimization.pointwise import LinearRows

_SEPARATE, _ALL_POINTS, _ONE_RANK = Separate(), AllPoints(), OneRank()


class MixtureOfExperts(nn.Module):
    """Output layer that solves a constraint on every part of the domain, with coefficients of its own.

        u = offset + sum_k chi_k(x) sum_n w_kn b_n(x),     w_k = argmin of the constraint over the points of part k

    All parts of all items are one batch of problems, differentiated exactly. The basis is differentiated globally, so
    stencils see across borders. One expert is the constraint itself.

    Args:
        constraint: what is solved; its ``num_points`` is not used here, see ``collocation``.
        partition: :class:`Partition` into boxes, or :class:`RandomAssignment` as a control.
        interface: :class:`Separate`, :class:`Overlap` or :class:`Coupled`.
        collocation: points of every expert, drawn anew at every call, the same for all items: :class:`AllPoints`,
            :class:`EqualPoints`, :class:`ProportionalPoints`.
        global_conditions: give every expert the rows of all conditions, as published, instead of those at its own
            points of the walls.
        ranks: where experts are solved: :class:`OneRank`, or :class:`ExpertParallel` over several processes.

    Shape: ``(batch, num_basis, *space) -> (batch, 1, *space)``, and an :class:`ExpertsInfo` with a status for every
    item and expert. Any resolution that gives every part a point.

    Source: Chalapathi, Du and Krishnapriyan (2024), ICLR, arXiv 2402.13412; interfaces and uneven parts are ours.

    >>> from neuralop_kit.constraints import AtStart, Coupled, Partition
    >>> from neuralop_kit import Domain
    >>> domain = Domain.box((3.0,), boundary="dirichlet", nodes="vertex")
    >>> decay = LeastSquaresConstraint(lambda u, u_x: u_x + u, domain, conditions=[AtStart("initial", 0, target=1.0)])
    >>> layer = MixtureOfExperts(decay, Partition(domain, (3,)), interface=Coupled(10.0))
    >>> x = domain.coordinates((97,), dtype=torch.float64)
    >>> u, info = layer(torch.stack([x**k for k in range(4)], dim=1))
    >>> (u - torch.exp(-x)).abs().max().item() < 0.01, info.status
    (True, tensor([[0, 0, 0]]))
    """

    def __init__(
        self,
        constraint: LeastSquaresConstraint,
        partition: Assignment,
        *,
        interface: Interface = _SEPARATE,
        collocation: Collocation = _ALL_POINTS,
        global_conditions: bool = False,
        ranks: Ranks = _ONE_RANK,
    ) -> None:
        super().__init__()
        if partition.domain != constraint.domain:
            raise ArgumentError(
                f"expected one domain, got a partition of {partition.domain} and a constraint on {constraint.domain}; "
                "give both the same"
            )
        self.constraint, self.partition, self.interface = constraint, partition, interface
        self.collocation, self.global_conditions, self.ranks = collocation, global_conditions, ranks

    def forward(
        self,
        basis: Tensor,
        *,
        offset: Tensor | None = None,
        coefficients: Mapping[str, Tensor | float] | None = None,
        targets: Mapping[str, Tensor] | None = None,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ExpertsInfo]:
        """Solve and combine; arguments as in :class:`LeastSquaresConstraint`, see also :meth:`solve`."""
        solution = self.solve(
            basis, offset=offset, coefficients=coefficients, targets=targets, start=start, generator=generator
        )
        return solution.field(), solution.info

    @in_single_at_least
    def solve(
        self,
        basis: Tensor,
        *,
        offset: Tensor | None = None,
        coefficients: Mapping[str, Tensor | float] | None = None,
        targets: Mapping[str, Tensor] | None = None,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> ExpertSolution:
        """The solution before it is joined: for the residual of the joined field, and the coefficients.

        Args:
            basis, offset, coefficients, targets: as in :class:`LeastSquaresConstraint`.
            start: of the coefficients, ``(batch, num_basis)``, or ``(batch, experts, num_basis)``.
            generator: of the points, on the device of the basis; None takes every expert's first points.
        """
        shape, constraint = basis.shape[2:], self.constraint
        terms = constraint.assemble_terms(basis)
        data = constraint.equation.data(basis, coefficients)
        members = self.interface.members(self.partition, shape, basis)
        own = self.ranks.own(self.partition.num_experts, basis.device)
        points, is_real = self.collocation.choose(members.flatten(1), generator=generator)
        points, is_real = points[own], is_real[own]
        walls = constraint.assemble_rows(basis, offset=offset, targets=targets)
        weights = is_real * is_real.sum(dim=1, keepdim=True).to(basis.dtype).rsqrt()
        offsets = None if offset is None else constraint.assemble_terms(offset).flatten(3).squeeze(2)
        problem, begin = constraint.local_problem(
            _per_expert(terms.flatten(3).mT, points, dim=2),
            offsets=None if offsets is None else _per_expert(offsets, points, dim=2),
            data=[_per_expert(d.flatten(1).expand(len(basis), -1), points, dim=1) for d in data],
            rows=LinearRows.join(*(self._rows(rows, members[own]) for rows in walls)) if walls else None,
            weights=weights.repeat(len(basis), 1),
            start=None if start is None else _starts(start, own),
        )
        meets = self.partition.interfaces(shape, device=basis.device)
        coupling = self.interface.coupling(basis.flatten(2), meets, self.partition.num_experts)
        if coupling is not None:
            if len(own) != self.partition.num_experts:
                raise ArgumentError(
                    "expected experts that are independent of each other when several ranks share them, got "
                    f"{self.interface}; distribute the batch instead, or take Separate or Overlap"
                )
            joined = CoupledProblem(problem, len(own), coupling)
            w, info = constraint.minimize(joined, begin.reshape(len(basis), len(own) * begin.shape[1]))
        else:
            w, info = self.ranks.together(lambda: constraint.minimize(problem, begin))
        w = self.ranks.gather(w.reshape(len(basis), len(own), begin.shape[1]), self.partition.num_experts)
        with torch.no_grad():
            jump = largest_jump(w, basis, meets)
        return ExpertSolution(
            coefficients=w,
            info=self._report(info, jump),
            equation=constraint.equation,
            assignment=self.partition,
            interface=self.interface,
            basis=basis,
            terms=terms,
            offset=offset,
            data=data,
            walls=walls,
        )

    def _rows(self, rows: WallRows, members: Tensor) -> LinearRows:
        """Rows of one condition for every item and expert; those at points of others are zero."""
        condition = rows.condition
        wall = members.select(1 + condition.axis, -1 if condition.at_stop else 0)
        own = wall.reshape(len(members), -1).to(rows.matrix.dtype)
        if self.global_conditions:
            own = torch.ones_like(own)
        scale = condition.weight * own * own.sum(dim=1, keepdim=True).clamp_min(1).rsqrt()
        matrix = scale[..., None] * rows.matrix.unsqueeze(1).flatten(1, -2).unsqueeze(1)
        target = scale * rows.target.unsqueeze(-1).flatten(1).unsqueeze(1)
        return LinearRows(matrix.flatten(0, 1), target.flatten(0, 1))

    def _report(self, info: LeastSquaresInfo, jump: Tensor) -> ExpertsInfo:
        """The report of all experts, on every rank; experts that were solved together share one."""
        batch, num_experts = len(jump), self.partition.num_experts
        number = len(self.ranks.own(num_experts, jump.device))
        values = {
            name: self.ranks.gather_report(
                value.reshape(batch, len(value) // batch if batch else 1).expand(-1, number), num_experts
            )
            for name, value in vars(info).items()
        }
        return ExpertsInfo(**values, jump=jump)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.partition}, interface={self.interface}, collocation={self.collocation}"


def _per_expert(values: Tensor, points: Tensor, *, dim: int) -> Tensor:
    """Values at every expert's points, item and expert folded: axis ``dim`` of ``(batch, ..., points, ...)``."""
    picked = values.index_select(dim, points.flatten()).unflatten(dim, points.shape)
    return picked.movedim(dim, 1).flatten(0, 1)


def _starts(start: Tensor, own: Tensor) -> Tensor:
    """Starting points of one's own experts, item and expert folded."""
    each = start.unsqueeze(1).expand(-1, len(own), -1) if start.ndim == 2 else start[:, own]
    return each.flatten(0, 1)
