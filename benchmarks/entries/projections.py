"""Positivity and mass: the projection onto a simplex, against the general layer for convex problems."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import AgainstReference, Comparison, ForwardBackward
from benchmarks.measures import direction_like
from neuralop_kit.solvers.optimization import project_onto_simplex


@dataclass(frozen=True)
class SimplexCase:
    """Random points, and the sum their projections shall have."""

    batch: int
    size: int
    total: float = 1.0

    def inputs(self, generator: torch.Generator) -> tuple[Tensor]:
        """The points, in float64."""
        return (torch.randn(self.batch, self.size, generator=generator, dtype=torch.float64),)


def ours(case: SimplexCase) -> Callable[[Tensor], Tensor]:
    """Semismooth Newton."""
    return lambda z: project_onto_simplex(z, case.total)[0]


def convex_layer(solver_args: dict[str, Any]) -> Callable[[SimplexCase], Callable[[Tensor], Tensor]]:
    """The same as a cvxpylayers problem, with options for its solver."""

    def make(case: SimplexCase) -> Callable[[Tensor], Tensor]:
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        x, z = cp.Variable(case.size), cp.Parameter(case.size)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - z)), [cp.sum(x) == case.total, x >= 0])
        layer = CvxpyLayer(problem, parameters=[z], variables=[x])
        return lambda z: layer(z, solver_args=solver_args)[0]

    return make


def by_sorting(case: SimplexCase) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Value and gradient by the classical algorithm, with the adjoint written out."""

    def reference(z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.cpu()
        ordered = z.sort(dim=-1, descending=True).values
        shifts = (ordered.cumsum(dim=-1) - case.total) / torch.arange(1, case.size + 1, dtype=z.dtype)
        last = (ordered > shifts).sum(dim=-1, keepdim=True) - 1
        y = (z - shifts.gather(1, last)).clamp_min(0)
        free, cotangent = (y > 0).to(z.dtype), direction_like(y)
        mean = (free * cotangent).sum(dim=-1, keepdim=True) / free.sum(dim=-1, keepdim=True)
        return y, free * (cotangent - mean)

    return reference


def comparison(name: str, case: SimplexCase, solver_args: dict[str, Any], *, quick: bool) -> Comparison:
    """One size, one setting of the peer."""
    return Comparison(
        name=f"constraints/positivity_and_mass/{name}",
        ours=ours,
        peer=convex_layer(solver_args),
        peer_name="cvxpylayers",
        peer_requires="cvxpylayers>=1.2",
        case=case,
        measure=(ForwardBackward(),),
        accuracy=AgainstReference(by_sorting(case), tolerance=1e-9),
        target=100.0,
        quick=quick,
    )


SMALL, LARGE = SimplexCase(batch=64, size=32), SimplexCase(batch=256, size=64)
PROJECTIONS = [
    comparison("batch64-n32-default", SMALL, {}, quick=False),
    comparison("batch64-n32-eps1e-9", SMALL, {"eps": 1e-9}, quick=True),
    comparison("batch256-n64-eps1e-9", LARGE, {"eps": 1e-9}, quick=False),
]
