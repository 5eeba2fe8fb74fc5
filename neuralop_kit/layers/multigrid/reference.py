"""ReferenceMultigrid: the layer that MgNO's released code computes, for like-for-like comparison."""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralop_kit.layers.checks import check_field
from neuralop_kit.layers.multigrid.extensions import EvenAboutNode, Extension, OddAboutNode, Periodic
from neuralop_kit.layers.multigrid.stencils import channels_last, convolve
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError

# The padding of its convolutions, whatever the nodes: zeros, circular, reflect.
PADDINGS: dict[str, Extension] = {"dirichlet": OddAboutNode(), "periodic": Periodic(), "neumann": EvenAboutNode()}


class ReferenceMultigrid(nn.Module):
    """What the released code of MgNO computes, which is not quite the cycle of the paper; two dimensions only.

        level 0 (finest):  v_0 = S f_0,                          then  v_0 <- v_0 + S (f_0 - A v_0)
        level l:           v_l = Pi v_{l-1},  f_l = R f_{l-1},   then  v_l <- v_l + S (f_l - A v_l)
        upwards:           v_l <- v_l + P v_{l+1},               then  v_l <- v_l + S (f_l - A v_l)

    It differs from :class:`MultigridOperator` and from the paper's algorithm: the right-hand side is restricted instead
    of the residual; the whole ``v_{l+1}`` is prolonged instead of the correction; every iteration has its own ``A`` and
    ``S``; transfers are free 3x3 and 4x4 kernels; levels are counted from the *fine* end, so that kernels belong to
    pixels and the output changes by about a third at every refinement, without a limit; ``P`` pads with zeros also on
    periodic and Neumann axes, which breaks equivariance by some percent. Take it to compare with published numbers.

    Args:
        in_channels, out_channels: channels of ``f`` and of ``v``.
        sweeps: iterations ``(before, after)`` the coarse part on each level, finest first.
        domain: two axes of one boundary: zeros (Dirichlet), circular (periodic) or reflected (Neumann) padding.
        prolongation_sizes: 4 where the fine grid has twice the points of the coarse one, 3 where it has one fewer;
            finest first, by default 4 everywhere.
        bias: whether ``A`` and ``S`` add constants, which makes the layer affine.
        norm_resolution: points per axis of the only grid on which the layer then works; normalises over channels and
            space after each ``P``, with a weight and a bias per channel and *pixel*, which makes it nonlinear.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``; sizes as ``prolongation_sizes`` demands,
    by default multiples of ``2^(levels - 1)``.

    Raises:
        ArgumentError: the numbers of levels do not fit, or the first level has no iteration.
        DomainError: not two axes of one boundary.
        ShapeError: the field has another rank, channel count or a size that does not fit.

    Source: xlliu2017/MgNO at commit 3a68a90, models.py, classes MgConv_DC, MgConv_DC_smooth and MgConv.

    >>> layer = ReferenceMultigrid(1, 24, [(1, 0)] * 5 + [(2, 0)], domain=Domain.box((1.0, 1.0)))
    >>> sum(p.numel() for p in layer.parameters()), layer(torch.randn(2, 1, 64, 64)).shape
    (74853, torch.Size([2, 24, 64, 64]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        sweeps: Sequence[tuple[int, int]],
        *,
        domain: Domain,
        prolongation_sizes: Sequence[int] | None = None,
        bias: bool = False,
        norm_resolution: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        num_steps = len(sweeps) - 1
        sizes = [4] * num_steps if prolongation_sizes is None else list(prolongation_sizes)
        if num_steps < 0 or sweeps[0][0] < 1 or len(sizes) != num_steps or not {*sizes} <= {3, 4}:
            raise ArgumentError(
                f"expected an iteration on the first level and prolongations of size 3 or 4 between all levels, "
                f"got sweeps {list(sweeps)} and sizes {sizes}; for example [(1, 0), (1, 0), (2, 0)] and [4, 4]"
            )
        boundaries = {axis.boundary for axis in domain.axes}
        if domain.num_dims != 2 or len(boundaries) != 1:
            raise DomainError(f"expected two axes of one boundary, got {domain}; use MultigridOperator")
        self.in_channels, self.out_channels, self.domain = in_channels, out_channels, domain
        self.sweeps, self.prolongation_sizes = tuple((pre, post) for pre, post in sweeps), tuple(sizes)
        self.extensions = [PADDINGS[boundaries.pop()]] * 2
        # Level l has iterations number starts_at[l] to starts_at[l + 1].
        self.starts_at = list(accumulate((pre + post for pre, post in self.sweeps), initial=0))
        num_iterations = self.starts_at[-1]

        def kernel(num_in: int, num_out: int, size: int = 3) -> nn.Parameter:
            bound = 1 / math.sqrt(num_in * size**2)
            return nn.Parameter(torch.empty(num_out, num_in, size, size).uniform_(-bound, bound, generator=generator))

        def bias_of(num_in: int, num_out: int) -> nn.Parameter:
            bound = 1 / math.sqrt(num_in * 9)
            return nn.Parameter(torch.empty(num_out).uniform_(-bound, bound, generator=generator))

        # The very first iteration starts from zero and has no A.
        self.smoothers = nn.ParameterList(kernel(in_channels, out_channels) for _ in range(num_iterations))
        self.systems = nn.ParameterList(kernel(out_channels, in_channels) for _ in range(num_iterations - 1))
        self.smoother_biases = nn.ParameterList(bias_of(in_channels, out_channels) for _ in self.smoothers if bias)
        self.system_biases = nn.ParameterList(bias_of(out_channels, in_channels) for _ in self.systems if bias)
        self.restrictions = nn.ParameterList(kernel(in_channels, in_channels) for _ in sizes)
        self.starts = nn.ParameterList(kernel(out_channels, out_channels) for _ in sizes)
        self.prolongations = nn.ParameterList(kernel(out_channels, out_channels, size) for size in sizes)
        grids = [norm_resolution // 2**k for k in range(num_steps)] if norm_resolution else []
        self.norms = nn.ModuleList(nn.LayerNorm([out_channels, n, n]) for n in grids)

    def forward(self, f: Tensor) -> Tensor:
        """Apply the layer."""
        self._check(f)
        f = channels_last(f)
        v = self._iterate(f, None, range(self.sweeps[0][0]))
        finer: list[tuple[Tensor, Tensor]] = []
        for level, (pre, _) in enumerate(self.sweeps[1:], start=1):
            finer.append((f, v))
            f = convolve(f, self.restrictions[level - 1], self.extensions, stride=2)
            v = convolve(v, self.starts[level - 1], self.extensions, stride=2)
            v = self._iterate(f, v, range(self.starts_at[level], self.starts_at[level] + pre))
        for level in reversed(range(len(finer))):
            f, fine = finer[level]
            v = functional.conv_transpose2d(v, self.prolongations[level], stride=2, padding=1).add_(fine)
            if self.norms:
                v = self.norms[level](v)
            v = self._iterate(f, v, range(self.starts_at[level] + self.sweeps[level][0], self.starts_at[level + 1]))
        return v

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.in_channels}, {self.out_channels}, {list(self.sweeps)}, domain={self.domain}"

    def _iterate(self, f: Tensor, v: Tensor | None, iterations: range) -> Tensor:
        """``v <- v + S (f - A v)``."""
        for index in iterations:
            rest = f if v is None else f - self._convolve(v, self.systems, self.system_biases, index - 1)
            change = self._convolve(rest, self.smoothers, self.smoother_biases, index)
            # In place: the result of a convolution is fresh, and a further field in memory costs more than the sum.
            v = change if v is None else change.add_(v)
        return f if v is None else v

    def _convolve(self, u: Tensor, kernels: nn.ParameterList, biases: nn.ParameterList, index: int) -> Tensor:
        return convolve(u, kernels[index], self.extensions, bias=biases[index] if len(biases) else None)

    def _check(self, f: Tensor) -> None:
        check_field(f, self.in_channels, 2)
        for size in f.shape[2:]:
            coarse = size
            for kernel in self.prolongation_sizes:
                coarse, fine = (coarse + 1) // 2, coarse
                if 2 * coarse - (kernel == 3) != fine:
                    raise ShapeError(
                        f"expected sizes that halve {len(self.prolongation_sizes)} times with prolongations of "
                        f"size {self.prolongation_sizes}, got {tuple(f.shape[2:])}; take a size whose halves are "
                        "even (4) or odd (3) in this order, or MultigridOperator, which takes any"
                    )
