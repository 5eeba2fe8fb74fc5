"""Small least-squares problems with residuals that do not vanish, and what they are compared with."""

from collections.abc import Callable

import torch
from torch import Tensor

from neuralop_kit.solvers.optimization import LinearRows, PointwiseProblem, Reattachment, levenberg_marquardt
from neuralop_kit.solvers.optimization.implicit import Differentiation

BATCH, NUM_TERMS, NUM_POINTS, NUM_UNKNOWNS, NUM_ROWS = 3, 3, 20, 4, 2
Data = tuple[Tensor, ...]


def residual(u: Tensor, u_t: Tensor, u_x: Tensor, nu: Tensor) -> Tensor:
    """Nonlinear in every way a term can be: alone, with another one, with a coefficient."""
    return u_t + 0.5 * u * u_x - nu * torch.sin(u) + 0.3


def draw(generator: torch.Generator, *, batch: int = BATCH, num_points: int = NUM_POINTS) -> Data:
    """Terms, offsets, rows, targets, coefficient, weights, ridge."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return (
        normal(batch, NUM_TERMS, num_points, NUM_UNKNOWNS),
        0.3 * normal(batch, NUM_TERMS, num_points),
        normal(batch, NUM_ROWS, NUM_UNKNOWNS),
        normal(batch, NUM_ROWS),
        torch.rand(batch, 1, generator=generator, dtype=torch.float64),
        0.5 + torch.rand(batch, num_points, generator=generator, dtype=torch.float64),
        0.1 + 0.1 * torch.rand(batch, generator=generator, dtype=torch.float64),
    )


def problem(*data: Tensor) -> PointwiseProblem:
    terms, offsets, matrix, target, nu, weights, ridge = data
    return PointwiseProblem(
        residual,
        terms,
        offsets=offsets,
        coefficients=[nu],
        weights=weights,
        linear=LinearRows(matrix, target),
        ridge=ridge,
    )


def solution(differentiation: Differentiation | None = Reattachment()) -> Callable[..., Tensor]:  # noqa: B008
    """The minimiser as a function of the data."""

    def solve(*data: Tensor) -> Tensor:
        w, info = levenberg_marquardt(problem(*data), start(data), differentiation=differentiation)
        assert info.converged.all()
        return w

    return solve


def start(data: Data) -> Tensor:
    return data[0].new_zeros(data[0].shape[0], data[0].shape[-1])


def objective(w: Tensor) -> Tensor:
    """Something nonlinear to differentiate."""
    return (w**3).sum() + w.sin().sum()


def dense(*data: Tensor) -> Callable[[Tensor], Tensor]:
    """The same residual written down row by row, with none of the structure."""
    terms, offsets, matrix, target, nu, weights, ridge = data

    def rows(w: Tensor) -> Tensor:
        u, u_t, u_x = torch.unbind(torch.einsum("pkmn,pn->pkm", terms, w) + offsets, dim=1)
        conditions = torch.einsum("pqn,pn->pq", matrix, w) - target
        return torch.cat([weights * residual(u, u_t, u_x, nu), conditions, ridge.sqrt()[:, None] * w], dim=1)

    return rows
