"""MultigridOperator: a global linear operator, learned as the stencils of one multigrid cycle."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from neuralop_kit.layers.checks import check_dtype, check_field
from neuralop_kit.layers.multigrid.cycles import CYCLES, run_cycle
from neuralop_kit.layers.multigrid.hierarchy import KernelHierarchy
from neuralop_kit.layers.multigrid.initialization import Initialization, LevelKernels, RandomKernels
from neuralop_kit.layers.multigrid.levels import Levels, coarsest_intervals
from neuralop_kit.layers.multigrid.smoothers import Jacobi, Smoother
from neuralop_kit.layers.multigrid.stencils import channels_last
from neuralop_kit.layers.multigrid.transfers import Transfers
from neuralop_kit.layers.multigrid.walls import cut_walls, restore_walls, without_wall_points
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from neuralop_kit.solvers.sphere import SphereDomain

FINE_LEVELS = ("detail", "interpolate", "repeat")


class MultigridOperator(nn.Module):
    """A global linear operator as one multigrid cycle whose stencils are learned: O(N) work, O(log N) parameters.

        v = cycle_J(u),  where  cycle_l(f):     v <- v + B_li (f - A_l v)            pre-smoothing, from v = 0
                                                v <- v + P cycle_{l-1}(R (f - A_l v))
                                                v <- v + B_li (f - A_l v)            post-smoothing

    ``A_l`` and ``B_li`` are learned stencils of 3 points per axis that mix channels; ``R`` and ``P`` are full weighting
    and linear interpolation (:class:`Transfers`). With the stencils of :class:`EllipticKernels` this *is* a multigrid
    solver for ``A``, and it can be read as one at any time during training.

    Exact: linear in ``u``; periodic axes commute with shifts by ``2^(levels - 1)`` points; Neumann axes with even
    reflection and Dirichlet axes with odd reflection about the wall, if the stencils are symmetric and have the grid's
    own level; the result vanishes on Dirichlet walls. On ``vertex`` nodes values of ``u`` there are not used.

    Resolution: levels are counted from the coarse end. Level ``l`` lives on ``coarsest * 2^l`` intervals per axis
    whatever the resolution of ``u``, and its stencils belong to that physical size. Finer grids than the last level
    with stencils of its own are handled by ``fine_levels``; depth grows with log2 of the resolution, parameters do not.
    With ``"detail"`` and ``"interpolate"`` the output at fixed points converges like O(h^2) for smooth ``u``.

    Args:
        in_channels, out_channels: channels of the field.
        levels: levels with stencils of their own. Good value: so that ``coarsest * 2^(levels - 1)`` is about the number
            of intervals of the training data; 5 for 64 points.
        domain: a box; any boundary and nodes, mixed per axis.
        cycle: ``"V"``, ``"W"``, ``"F"``, or ``"backslash"``: V without post-smoothing.
        pre_smoothing, post_smoothing: sweeps before and after the coarse correction, at least one in all.
        coarsest: intervals of level 0 along the shortest side, the others in proportion; or one number per axis.
        coarsest_sweeps: sweeps on level 0; at least 2; by default ``pre + post`` or 2.
        shared_system: one ``A`` per level (the paper); otherwise one per sweep.
        fine_levels: on grids finer than the last level, with ``J`` the values at the coarser points and ``Q`` linear
            between them, ``"detail"``: ``Q L (J f) + B (f - Q J f)``; ``"interpolate"``: ``Q L (J f)``; ``"repeat"``:
            full cycles with the last level's stencils, which a solver needs but which has no limit for other stencils.
        recompute: keep nothing but the input for the gradient and run the cycle again when it is needed: one field in
            memory instead of several per level, for about a third more time. No forward-mode derivatives then.
        smoother: :class:`Jacobi`, :class:`Chebyshev` or :class:`RedBlack`: colours, and the factors of
            :class:`EllipticKernels`.
        initialization: :class:`RandomKernels` or :class:`EllipticKernels`.
        generator: for the initial stencils.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``; any size from the coarsest grid on whose
    spacings have the proportions of the coarsest grid up to a factor 2.5. An irregular domain inside the box is given
    as ``mask``, 1 inside and 0 outside, broadcastable to ``(batch, 1, *space)``: its border is a Dirichlet wall along
    grid lines, ``u`` outside is not used and the result vanishes there; textbook kernels then solve on that domain.
    Cost: for V(1,1) in 2-D about ``5 * 9 * 4/3 * in * out`` multiplications per point; W: 3/2 of V.

    Raises:
        ArgumentError: an argument is out of range.
        ShapeError: the field has another rank or channel count, is too small or has too different spacings.

    Source: He, Liu and Xu (2024), MgNO, eq. 10 and algorithm 1, with fixed transfers; anchored levels are ours.
    :class:`ReferenceMultigrid` is what the paper's released code computes.

    >>> layer = MultigridOperator(3, 8, 4, domain=Domain.box((1.0, 2.0), boundary="neumann", nodes="cell"))
    >>> layer(torch.randn(2, 3, 32, 64)).shape, layer(torch.randn(2, 3, 85, 170)).shape
    (torch.Size([2, 8, 32, 64]), torch.Size([2, 8, 85, 170]))
    """

    tail: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        levels: int,
        *,
        domain: Domain,
        cycle: str = "V",
        pre_smoothing: int = 1,
        post_smoothing: int = 1,
        coarsest: int | Sequence[int] = 4,
        coarsest_sweeps: int | None = None,
        shared_system: bool = True,
        fine_levels: str = "detail",
        recompute: bool = False,
        smoother: Smoother | None = None,
        initialization: Initialization | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        num_post = 0 if cycle == "backslash" else post_smoothing
        _check_arguments(in_channels, out_channels, levels, cycle, pre_smoothing, num_post, fine_levels)
        if isinstance(domain, SphereDomain):
            raise DomainError(f"expected a box, got {domain}; use Domain.box or Domain.periodic")
        if coarsest_sweeps is not None and coarsest_sweeps < 2:
            raise ArgumentError(f"expected at least 2 sweeps on the coarsest level, got {coarsest_sweeps}; take 2")
        smoother, initialization = smoother or Jacobi(), initialization or RandomKernels()
        if not (isinstance(smoother, Smoother) and isinstance(initialization, Initialization)):
            raise ArgumentError(
                f"expected a Smoother and an Initialization, got {smoother!r} and {initialization!r}; "
                "for example Jacobi() and RandomKernels()"
            )
        self.in_channels, self.out_channels, self.levels = in_channels, out_channels, levels
        self.domain, self.cycle, self.fine_levels = domain, cycle, fine_levels
        self.pre_smoothing, self.post_smoothing, self.recompute = pre_smoothing, num_post, recompute
        self.smoother, self.initialization = smoother, initialization
        inner = without_wall_points(domain)
        base = coarsest_intervals(domain, coarsest) if isinstance(coarsest, int) else tuple(coarsest)
        self.grids = Levels(inner, base)
        self.transfers = Transfers(inner.axes)
        num_sweeps = [coarsest_sweeps or max(pre_smoothing + num_post, 2)]
        num_sweeps += [pre_smoothing + num_post] * (levels - 1)
        stencil = (3,) * domain.num_dims
        self.smoother_kernels = nn.ParameterList(
            torch.empty(count, out_channels, in_channels, *stencil) for count in num_sweeps
        )
        self.system_kernels = nn.ParameterList(
            torch.empty(self._num_systems(level, count, shared_system), in_channels, out_channels, *stencil)
            for level, count in enumerate(num_sweeps)
        )
        self.tail_shape: tuple[int, ...] | None = None
        self.register_buffer("tail", None, persistent=False)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialise all stencils again."""
        kernels = []
        for level, (system, smoother) in enumerate(zip(self.system_kernels, self.smoother_kernels, strict=True)):
            spacings = tuple(
                axis.length / (base * 2**level) for axis, base in zip(self.grids.axes, self.grids.coarsest, strict=True)
            )
            kernels.append(LevelKernels.on_box(system, smoother, spacings))
        self.initialization.fill(kernels, self.smoother, generator)

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply the operator, inside ``mask`` if there is one."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._apply_operator, u, mask, use_reentrant=False, preserve_rng_state=False)
        return self._apply_operator(u, mask)

    def _apply_operator(self, u: Tensor, mask: Tensor | None) -> Tensor:
        hierarchy, f = self.hierarchy(u, mask=mask)
        if self.fine_levels == "detail":
            v = hierarchy.add_detail(hierarchy.finest, f, self.cycle, num_owned=self.levels)
        elif self.fine_levels == "interpolate":
            v = hierarchy.interpolate(hierarchy.finest, f, self.cycle, num_owned=self.levels)
        else:
            v = run_cycle(hierarchy, hierarchy.finest, f, None, self.cycle)
        return restore_walls(v, self.domain)

    @torch.no_grad()
    def collapsed(self, *, max_points: int = 100) -> "MultigridOperator":
        """A frozen copy for inference, with all levels of at most ``max_points`` points as one matrix: same results.

        One matrix product takes the place of some twenty small operations, at every resolution, since coarse levels are
        the same at all of them. The matrix has at most ``in * out * max_points^2`` entries. Not for W and F cycles.
        """
        if self.cycle not in ("V", "backslash"):
            raise ArgumentError(f"expected a cycle that visits each level once, got {self.cycle!r}; use 'V'")
        twin = copy.deepcopy(self).requires_grad_(False)
        for level in reversed(range(1, self.levels)):
            shape = self.grids.nominal_shape(level)
            if math.prod(shape) <= max_points:
                units = torch.eye(self.in_channels * math.prod(shape)).view(-1, self.in_channels, *shape)
                f = channels_last(units.to(self.smoother_kernels[0]))
                columns = run_cycle(self._levels_of(f), level, f, None, self.cycle)
                twin.tail_shape, twin.tail = shape, columns.flatten(1)
                break
        return twin

    def system(self, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """``A v`` with the stencil of the finest level: what :meth:`forward` inverts, if it is a solver.

        Shape: ``(batch, out_channels, *space) -> (batch, in_channels, *space)``.
        """
        hierarchy, inner = self.hierarchy(v, channels=self.out_channels, mask=mask)
        return restore_walls(hierarchy.apply_system(hierarchy.finest, inner), self.domain)

    def hierarchy(
        self, u: Tensor, *, channels: int | None = None, mask: Tensor | None = None
    ) -> tuple[KernelHierarchy, Tensor]:
        """The levels for the grid of ``u``, and ``u`` on the points they work on."""
        channels = self.in_channels if channels is None else channels
        check_field(u, channels, self.domain.num_dims)
        check_dtype(u, self.system_kernels[0])
        self.domain.check_shape(u.shape[2:])
        inner = channels_last(cut_walls(u, self.domain))
        if mask is None:
            return self._levels_of(inner), inner
        mask = cut_walls(_as_field(mask, u), self.domain)
        return self._levels_of(inner, mask), inner * mask

    def _levels_of(self, inner: Tensor, mask: Tensor | None = None) -> KernelHierarchy:
        tail = self.tail
        return KernelHierarchy(
            self.grids,
            tuple(inner.shape[2:]),
            self.transfers,
            system=list(self.system_kernels),
            smoother=list(self.smoother_kernels),
            num_pre=self.pre_smoothing,
            num_colours=self.smoother.num_colours,
            order=self.initialization.order,
            tail=None if self.tail_shape is None or tail is None else (self.tail_shape, tail),
            mask=mask,
        )

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return (
            f"{self.in_channels}, {self.out_channels}, {self.levels}, cycle={self.cycle!r}, "
            f"sweeps={self.pre_smoothing}+{self.post_smoothing}, coarsest={self.grids.coarsest}, domain={self.domain}"
        )

    def _num_systems(self, level: int, num_sweeps: int, shared: bool) -> int:
        """How many ``A`` act on a level: on the coarsest one the first sweep from zero needs none."""
        first_acts = level > 0 or self.cycle in ("W", "F") or self.smoother.num_colours > 1
        count = num_sweeps - (not first_acts)
        return min(count, 1) if shared else count


def _as_field(mask: Tensor, u: Tensor) -> Tensor:
    """A mask with the axes of ``u``, one channel, in its dtype."""
    mask = mask.view(*[1] * (u.ndim - mask.ndim), *mask.shape)
    if (
        mask.ndim != u.ndim
        or mask.shape[0] not in (1, u.shape[0])
        or mask.shape[1] != 1
        or mask.shape[2:] != u.shape[2:]
    ):
        raise ShapeError(
            f"expected a mask of shape (*space) or (batch, 1, *space) for a field {tuple(u.shape)}, "
            f"got {tuple(mask.shape)}; sample the domain's indicator on the grid of the field"
        )
    return mask.to(u.dtype)


def _check_arguments(
    in_channels: int, out_channels: int, levels: int, cycle: str, pre: int, post: int, fine_levels: str
) -> None:
    if min(in_channels, out_channels, levels) < 1:
        raise ArgumentError(
            f"expected positive channels and levels, got {in_channels}, {out_channels} and {levels}; correct them"
        )
    if cycle not in CYCLES:
        raise ArgumentError(f"expected a cycle among {list(CYCLES)}, got {cycle!r}; take one of these")
    if pre < 0 or post < 0 or pre + post < 1:
        raise ArgumentError(f"expected sweeps >= 0, at least one in all, got {pre} and {post}; 1 and 1 are good values")
    if fine_levels not in FINE_LEVELS:
        raise ArgumentError(f"expected fine_levels among {list(FINE_LEVELS)}, got {fine_levels!r}; take one of these")
