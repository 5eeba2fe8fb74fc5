"""The levels of a MultigridOperator at one resolution: what a cycle calls."""

from collections.abc import Sequence

from torch import Tensor

from neuralop_kit.layers.multigrid.cycles import run_cycle
from neuralop_kit.layers.multigrid.extensions import extension_of
from neuralop_kit.layers.multigrid.levels import Levels, Shape
from neuralop_kit.layers.multigrid.smoothers import chess_board
from neuralop_kit.layers.multigrid.stencils import convolve
from neuralop_kit.layers.multigrid.transfers import Transfers


class KernelHierarchy:
    """Sweeps and residuals with given kernels on the grids of one field; see :class:`MultigridOperator`.

    Args:
        grids: the rule for the grids.
        shape: the field's own grid.
        transfers: ``R`` and ``P``.
        system, smoother: kernels per level, ``(count, in, out, 3, ...)`` and ``(num_sweeps, out, in, 3, ...)``.
        num_pre: sweeps before the coarse correction; the others come after it.
        num_colours: of the smoother.
        tail: a level's shape and the matrix of everything from there on down, if known; not used with a mask.
        mask: 1 inside an irregular domain and 0 outside, broadcastable to the field; functions vanish outside.
        order: kernels act as ``h^-order`` and ``h^order`` times what is given.
    """

    def __init__(
        self,
        grids: Levels,
        shape: Shape,
        transfers: Transfers,
        *,
        system: Sequence[Tensor],
        smoother: Sequence[Tensor],
        num_pre: int,
        num_colours: int,
        order: float,
        tail: tuple[Shape, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> None:
        self.shapes = grids.shapes(shape)
        self.transfers, self.num_pre = transfers, num_pre
        self.extensions = [extension_of(axis) for axis in grids.axes]
        self.system: list[tuple[Tensor, ...]] = []
        self.smoother: list[tuple[Tensor, ...]] = []
        self.masks: list[list[Tensor | None]] = []
        for level, grid in enumerate(self.shapes):
            # The finest kernels serve all finer grids as well.
            own = min(level, len(smoother) - 1)
            scale = grids.spacing(grid) ** order if order else 1.0
            self.system.append(_scaled(system[own], 1 / scale))
            self.smoother.append(_scaled(smoother[own], scale))
            like = smoother[own]
            self.masks.append(
                [chess_board(grid, colour, dtype=like.dtype, device=like.device) for colour in range(num_colours)]
                if num_colours > 1
                else [None]
            )

        # A coarse point is inside where the fine function that it samples is.
        self.inside: list[Tensor | None] = [None] * len(self.shapes)
        if mask is not None:
            for level in reversed(range(len(self.shapes))):
                self.inside[level] = mask
                self.masks[level] = [mask if colour is None else mask * colour for colour in self.masks[level]]
                if level:
                    mask = (transfers.inject(mask, self.shapes[level - 1]) > 0.5).to(mask.dtype)
        self.tail, self.last_level = None, 0
        if tail is not None and tail[0] in self.shapes and mask is None:
            self.tail, self.last_level = tail[1], self.shapes.index(tail[0])

    @property
    def finest(self) -> int:
        """Number of the last level."""
        return len(self.shapes) - 1

    def pre_smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor | None:
        """The first sweeps."""
        return self._sweep(level, f, u, range(self.num_pre))

    def post_smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor:
        """The other sweeps."""
        return _given(self._sweep(level, f, u, range(self.num_pre, len(self.smoother[level]))))

    def solve_coarsest(self, f: Tensor, u: Tensor | None) -> Tensor:
        """All sweeps, or one matrix."""
        if self.tail is None:
            return self.smooth(0, f, u)
        return (f.flatten(1) @ self.tail).unflatten(1, (-1, *f.shape[2:]))

    def smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor:
        """All sweeps of a level, one after the other."""
        return _given(self._sweep(level, f, u, range(len(self.smoother[level]))))

    def residual(self, level: int, f: Tensor, u: Tensor) -> Tensor:
        """``f - A u``."""
        return f - self._system(level, u)

    def apply_system(self, level: int, u: Tensor) -> Tensor:
        """``A u``, with the level's first kernel."""
        return self._within(level, self._system(level, u))

    def restrict(self, level: int, residual: Tensor) -> Tensor:
        """To the next coarser grid."""
        coarse = self.transfers.restrict(self._within(level, residual), self.shapes[level - 1])
        return self._within(level - 1, coarse)

    def prolong(self, level: int, correction: Tensor) -> Tensor:
        """From the next coarser grid."""
        return self._within(level, self.transfers.prolong(correction, self.shapes[level]))

    def add_detail(self, level: int, f: Tensor, kind: str, *, num_owned: int) -> Tensor:
        """The operator on a level without kernels of its own: the coarser one, and sweeps on what that cannot see.

            L_l f = Q L_{l-1} (J f) + smooth(f - Q J f),      J: values at the coarse points, Q: linear in between

        For smooth ``f`` the second part is O(h^2) on level ``l``, so that refinement converges. ``J Q = I`` matters in
        networks: what the next layer's ``J`` takes from this layer is what it was trained on.
        """
        if level < num_owned:
            return run_cycle(self, level, f, None, kind)
        coarse = self.transfers.inject(f, self.shapes[level - 1])
        smooth_part = self.add_detail(level - 1, coarse, kind, num_owned=num_owned)
        detail = f - self.transfers.reconstruct(coarse, self.shapes[level])
        smooth_part = self._within(level, self.transfers.reconstruct(smooth_part, self.shapes[level]))
        return smooth_part + self.smooth(level, self._within(level, detail), None)

    def interpolate(self, level: int, f: Tensor, kind: str, *, num_owned: int) -> Tensor:
        """The operator of the last level with kernels of its own, between values there: ``Q ... Q L J ... J f``."""
        if level < num_owned:
            return run_cycle(self, level, f, None, kind)
        coarse = self.transfers.inject(f, self.shapes[level - 1])
        inner = self.interpolate(level - 1, coarse, kind, num_owned=num_owned)
        return self._within(level, self.transfers.reconstruct(inner, self.shapes[level]))

    def _system(self, level: int, u: Tensor) -> Tensor:
        return convolve(u, self.system[level][0], self.extensions)

    def _within(self, level: int, u: Tensor) -> Tensor:
        mask = self.inside[level]
        return u if mask is None else u * mask

    def _sweep(self, level: int, f: Tensor, u: Tensor | None, sweeps: range) -> Tensor | None:
        for index in sweeps:
            for mask in self.masks[level]:
                residual = f
                if u is not None:
                    residual = self._within(level, f - convolve(u, self._system_of(level, index), self.extensions))
                correction = convolve(residual, self.smoother[level][index], self.extensions)
                if mask is not None:
                    correction = mask * correction
                # In place: the correction is fresh, and a further field in memory costs more than the sum.
                u = correction if u is None else correction.add_(u)
        return u

    def _system_of(self, level: int, sweep: int) -> Tensor:
        """``A`` of a sweep; where each has its own, the first of the coarsest level may be missing as it never acts."""
        kernels = self.system[level]
        return kernels[max(0, sweep + len(kernels) - len(self.smoother[level]))]


def _scaled(kernels: Tensor, scale: float) -> tuple[Tensor, ...]:
    return (kernels if scale == 1.0 else kernels * scale).unbind(0)


def _given(u: Tensor | None) -> Tensor:
    """For the type checker: there is at least one sweep wherever this is called, or a guess."""
    if u is None:
        raise RuntimeError("expected a sweep or a guess, got neither; this is a bug in neuralop_kit")
    return u
