"""Multigrid cycles: the textbook recursion, written once for every kind of hierarchy."""

from typing import Protocol

from torch import Tensor

# Which cycles each kind runs on the next coarser grid, one after the other.
CYCLES: dict[str, tuple[str, ...]] = {"V": ("V",), "W": ("W", "W"), "F": ("F", "V"), "backslash": ("backslash",)}


class Hierarchy(Protocol):
    """What a cycle needs to know of each level; level 0 is the coarsest. ``u=None`` stands for zero."""

    # The level at which the recursion ends: 0, unless something better is known on a finer one.
    last_level: int

    def pre_smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor | None:
        """Sweeps before the coarse correction."""

    def post_smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor:
        """Sweeps after it."""

    def solve_coarsest(self, f: Tensor, u: Tensor | None) -> Tensor:
        """All there is to do on the last level."""

    def residual(self, level: int, f: Tensor, u: Tensor) -> Tensor:
        """``f - A u``."""

    def restrict(self, level: int, residual: Tensor) -> Tensor:
        """To the grid of ``level - 1``."""

    def prolong(self, level: int, correction: Tensor) -> Tensor:
        """From the grid of ``level - 1``."""


def run_cycle(hierarchy: Hierarchy, level: int, f: Tensor, u: Tensor | None, kind: str) -> Tensor:
    """One cycle for ``A u = f`` from the guess ``u``; linear in ``(f, u)``.

        u <- smooth(u);      u <- u + P cycle(R (f - A u));      u <- smooth(u)

    Work that a zero guess makes needless is not done: no residual before the first sweep.
    """
    if level == hierarchy.last_level:
        return hierarchy.solve_coarsest(f, u)
    u = hierarchy.pre_smooth(level, f, u)
    coarse = hierarchy.restrict(level, f if u is None else hierarchy.residual(level, f, u))
    first, *others = CYCLES[kind]
    correction = run_cycle(hierarchy, level - 1, coarse, None, first)
    for other in others:
        correction = run_cycle(hierarchy, level - 1, coarse, correction, other)
    fine = hierarchy.prolong(level, correction)
    return hierarchy.post_smooth(level, f, fine if u is None else u + fine)
