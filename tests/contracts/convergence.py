"""Measure whether a layer acts on functions: one function on nested grids, two numbers per grid, one fitted order."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit import Domain

# Relative differences in float64 below this are round-off, not convergence.
ROUND_OFF = 1e-11


@dataclass(frozen=True)
class Convergence:
    """What came out of :func:`measure_convergence`; all differences are relative, in the quadrature-weighted L2 norm.

    Both columns are needed. A layer tied to pixels also has a limit, a degenerate one: its error shrinks, its drift
    does not. A layer that is merely accurate on the first grid may have no limit at all: its drift is small at first.

    Args:
        shapes: the grids, coarsest first.
        error: of each grid against the finest one, on the grid's own points; one entry fewer than grids.
        drift: of each grid against the coarsest one, on the points of the coarsest; one entry fewer than grids.
        step: of each grid against the next one. The order is fitted to these, because the error against the
            finest grid falls faster than its order near the end, where the finest grid's own error cancels.
    """

    shapes: tuple[tuple[int, ...], ...]
    error: tuple[float, ...]
    drift: tuple[float, ...]
    step: tuple[float, ...]
    factor: int

    @property
    def order(self) -> float:
        """Least-squares slope of log(step) against log(h); infinity when the steps are down to round-off."""
        levels = [(k, math.log(s, self.factor)) for k, s in enumerate(self.step) if s > ROUND_OFF]
        if len(levels) < 2:
            return math.inf
        mean_k = sum(k for k, _ in levels) / len(levels)
        mean_s = sum(s for _, s in levels) / len(levels)
        return -sum((k - mean_k) * (s - mean_s) for k, s in levels) / sum((k - mean_k) ** 2 for k, _ in levels)

    @property
    def is_spectral(self) -> bool:
        """Every refinement divides the error by ten or more, until round-off."""
        pairs = zip(self.error, self.error[1:], strict=False)
        return all(fine <= max(coarse / 10, ROUND_OFF) for coarse, fine in pairs)

    def __str__(self) -> str:
        rows = [f"{'grid':>14} {'error':>10} {'drift':>10} {'step':>10}    fitted order {self.order:.2f}"]
        columns = (*self.error, 0.0), (0.0, *self.drift), (*self.step, math.nan)
        for shape, error, drift, step in zip(self.shapes, *columns, strict=True):
            rows.append(f"{'x'.join(map(str, shape)):>14} {error:10.2e} {drift:10.2e} {step:10.2e}")
        return "\n".join(rows)


def measure_convergence(
    operator: Callable[[tuple[int, ...]], Tensor], domain: Domain, shapes: Sequence[tuple[int, ...]], *, factor: int = 2
) -> Convergence:
    """Compare what ``operator`` gives on nested grids.

    Args:
        operator: takes the shape of a grid, returns the output field there, ``(batch, channel, *space)``.
        domain: where the *output* lives; its weights make the norms.
        shapes: nested input grids, coarsest first, each ``factor`` times finer than the one before.
        factor: refinement between neighbours.
    """
    with torch.no_grad():
        fields = [operator(shape) for shape in shapes]
    pairs = range(len(fields) - 1)
    return Convergence(
        shapes=tuple(shapes),
        error=tuple(_distance(domain, fields[k], fields[-1]) for k in pairs),
        drift=tuple(_distance(domain, fields[0], fields[k + 1]) for k in pairs),
        step=tuple(_distance(domain, fields[k], fields[k + 1]) for k in pairs),
        factor=factor,
    )


def _distance(domain: Domain, coarse: Tensor, fine: Tensor) -> float:
    """Relative L2 distance on the points of the coarse grid."""
    shape = tuple(coarse.shape[2:])
    picked = fine[(..., *domain.common_nodes(shape, tuple(fine.shape[2:])))]
    weights = domain.weights(shape, dtype=coarse.dtype, device=coarse.device)
    return math.sqrt((weights * (picked - coarse) ** 2).sum().item() / (weights * coarse**2).sum().item())
