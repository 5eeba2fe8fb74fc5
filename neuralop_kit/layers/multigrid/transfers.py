"""Restriction and prolongation between neighbouring grids: averages and linear interpolation, exact at walls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralop_kit.layers.multigrid.extensions import Extension, extension_of, free_extension_of
from neuralop_kit.layers.multigrid.stencils import depthwise, depthwise_transposed
from neuralop_kit.solvers.domain import Axis

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """What a transfer between nested grids does along one axis: ghost values, weights, stride, points cut off."""

    weights: tuple[float, ...] = (1.0,)
    before: bool = False
    after: bool = False
    stride: int = 1
    crop: int = 0
    crop_last: int = 0


UNCHANGED = Step()
AVERAGE, LINEAR = (0.25, 0.5, 0.25), (0.5, 1.0, 0.5)
CELL_AVERAGE, CELL_LINEAR = (0.5, 0.5), (0.25, 0.75, 0.75, 0.25)
# Mean plus or minus a quarter of the central slope, so that the mean of two cells is what it was.
CELL_SLOPES = (-0.125, 0.125, 1.0, 1.0, 0.125, -0.125)


def restriction_step(axis: Axis) -> Step:
    """Coarse points are the fine points 1, 3, ... between Dirichlet walls, 0, 2, ... elsewhere; or pairs of cells."""
    if axis.nodes == "cell":
        return Step(CELL_AVERAGE, stride=2)
    return Step(AVERAGE, before=axis.boundary != "dirichlet", after=axis.boundary == "neumann", stride=2)


def prolongation_step(axis: Axis) -> Step:
    """Adjoint of the restriction in the quadrature's inner product, times two; on cells, linear instead of constant."""
    if axis.nodes == "cell":
        return Step(CELL_LINEAR, before=True, after=True, stride=2, crop=3)
    if axis.boundary == "periodic":
        return Step(LINEAR, after=True, stride=2, crop=1, crop_last=1)
    return Step(LINEAR, stride=2, crop=int(axis.boundary == "neumann"))


def reconstruction_step(axis: Axis) -> Step:
    """Linear too, but a right inverse of injection, and indifferent to what holds at walls."""
    if axis.nodes == "cell":
        return Step(CELL_SLOPES, before=True, after=True, stride=2, crop=4)
    if axis.boundary == "dirichlet":
        return Step(LINEAR, before=True, after=True, stride=2, crop=2)
    return prolongation_step(axis)


class Transfers(nn.Module):
    """Restriction ``R`` and prolongation ``P`` between neighbouring grids of a hierarchy, the same for every channel.

        P  samples the coarse function, linear between its points, at the fine points
        R  averages the fine function over neighbours (1/4, 1/2, 1/4) and samples it at the coarse points;
           on cell centres sampling alone is the mean of two cells
        J  samples the fine function at the coarse points
        Q  is like P, but keeps what J sees (J Q = I) and continues functions straight to the walls

    Where the spacing doubles these are full weighting and bilinear interpolation, one depthwise convolution each.
    Where it does not, and the ratio is something else, they are sampled axis by axis. Constants are kept to rounding,
    up to the walls (Neumann, periodic). Between nested grids, and up to a factor ``2^d``, ``P`` is the adjoint of ``R``
    in the quadrature-weighted inner product, except on cell centres, where that adjoint would be piecewise constant.

    Args:
        axes: the axes of the grids, without Dirichlet walls among the points.

    Shapes: ``(batch, channel, *fine) <-> (batch, channel, *coarse)``.
    Source: Trottenberg, Oosterlee and Schueller (2001), Multigrid, section 2.3 and 2.8.

    >>> transfers = Transfers([Axis(0.0, 1.0, "periodic", "left")])
    >>> transfers.restrict(torch.tensor([[[4.0, 0.0, 0.0, 0.0]]]), (2,))
    tensor([[[2., 0.]]])
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        super().__init__()
        self.axes = tuple(axes)
        self._hold("restriction", restriction_step)
        self._hold("prolongation", prolongation_step)
        self._hold("reconstruction", reconstruction_step)

    def restrict(self, u: Tensor, shape: Shape) -> Tensor:
        """``R u`` on the coarser grid ``shape``."""
        steps, rest = self._split(u, shape, restriction_step)
        if len(rest) < len(self.axes):
            u = self._extend(u, steps, [extension_of(axis) for axis in self.axes])
            u = depthwise(u, self._lines("restriction", steps), stride=tuple(step.stride for step in steps))
        for dim in rest:
            axis = self.axes[dim - 2]
            rule = free_extension_of(axis)
            if axis.nodes != "cell":
                u = _averaged(rule.extend(u, dim), dim)
            u = sample(u, axis, dim, shape[dim - 2], rule)
        return u

    def prolong(self, u: Tensor, shape: Shape) -> Tensor:
        """``P u`` on the finer grid ``shape``, for functions that obey the conditions at walls."""
        return self._refine(u, shape, "prolongation", prolongation_step, extension_of)

    def reconstruct(self, u: Tensor, shape: Shape) -> Tensor:
        """``Q u`` on the finer grid ``shape``, for any function; ``J Q u = u`` on nested grids."""
        return self._refine(u, shape, "reconstruction", reconstruction_step, free_extension_of)

    def _refine(
        self,
        u: Tensor,
        shape: Shape,
        name: str,
        step_of: Callable[[Axis], Step],
        rule_of: Callable[[Axis], Extension],
    ) -> Tensor:
        rules = [rule_of(axis) for axis in self.axes]
        steps, rest = self._split(u, shape, step_of)
        if len(rest) < len(self.axes):
            u = self._extend(u, steps, rules)
            u = depthwise_transposed(
                u,
                self._lines(name, steps),
                stride=tuple(step.stride for step in steps),
                crop=tuple(step.crop for step in steps),
            )
            for dim, step in enumerate(steps, start=2):
                if step.crop_last:
                    u = u.narrow(dim, 0, u.shape[dim] - step.crop_last)
        for dim in rest:
            u = sample(u, self.axes[dim - 2], dim, shape[dim - 2], rules[dim - 2])
        return u

    def inject(self, u: Tensor, shape: Shape) -> Tensor:
        """``J u``: the function itself at the coarse points; linear in between where these are no fine points."""
        for dim, (axis, size) in enumerate(zip(self.axes, shape, strict=True), start=2):
            if axis.nodes != "cell" and is_nested(axis, size, u.shape[dim]):
                u = u.movedim(dim, 0)[int(axis.placement.offset) :: 2].movedim(0, dim)
            elif u.shape[dim] != size:
                u = sample(u, axis, dim, size, free_extension_of(axis))
        return u

    def _hold(self, name: str, step_of: Callable[[Axis], Step]) -> None:
        # Buffers, so that no transfer copies numbers from the host while it runs.
        for index, axis in enumerate(self.axes):
            weights = torch.tensor(step_of(axis).weights, dtype=torch.get_default_dtype())
            self.register_buffer(f"{name}_{index}", weights, persistent=False)
        self.register_buffer("unchanged", torch.ones(1), persistent=False)

    def _lines(self, name: str, steps: Sequence[Step]) -> list[Tensor]:
        return [
            self.get_buffer("unchanged" if step is UNCHANGED else f"{name}_{index}") for index, step in enumerate(steps)
        ]

    def _split(self, u: Tensor, shape: Shape, step_of: Callable[[Axis], Step]) -> tuple[list[Step], list[int]]:
        """A step per axis for one depthwise convolution, and the dimensions that it leaves to sampling."""
        steps, rest = [], []
        for dim, (axis, size) in enumerate(zip(self.axes, shape, strict=True), start=2):
            small, large = min(u.shape[dim], size), max(u.shape[dim], size)
            nested = is_nested(axis, small, large)
            steps.append(step_of(axis) if nested else UNCHANGED)
            if not nested and small != large:
                rest.append(dim)
        return steps, rest

    @staticmethod
    def _extend(u: Tensor, steps: Sequence[Step], rules: Sequence[Extension]) -> Tensor:
        for dim, (step, rule) in enumerate(zip(steps, rules, strict=True), start=2):
            u = rule.extend(u, dim, before=step.before, after=step.after)
        return u


def sample(u: Tensor, axis: Axis, dim: int, num_points: int, rule: Extension) -> Tensor:
    """Values of the function, linear between its points, at the points of the grid with ``num_points``."""
    placement = axis.placement
    ratio = placement.num_intervals(u.shape[dim]) / placement.num_intervals(num_points)
    # Positions in old spacings, counted from the ghost value before the first point.
    at = (torch.arange(num_points, dtype=torch.float64, device=u.device) + placement.offset) * ratio
    at = at - placement.offset + 1
    left = at.floor().clamp(0, u.shape[dim]).long()
    weight = (at - left).to(u.dtype).view(-1, *[1] * (u.ndim - dim - 1))
    u = rule.extend(u, dim)
    return torch.lerp(u.index_select(dim, left), u.index_select(dim, left + 1), weight)


def is_nested(axis: Axis, coarse: int, fine: int) -> bool:
    """Whether the fine grid has twice the intervals of the coarse one."""
    return axis.placement.num_intervals(fine) == 2 * axis.placement.num_intervals(coarse)


def _averaged(u: Tensor, dim: int) -> Tensor:
    """``(1/4, 1/2, 1/4)`` along ``dim``, which shrinks by the two ghost values."""
    size = u.shape[dim] - 2
    return (u.narrow(dim, 0, size) + u.narrow(dim, 2, size)) / 4 + u.narrow(dim, 1, size) / 2
