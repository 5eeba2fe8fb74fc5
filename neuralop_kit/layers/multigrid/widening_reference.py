"""WideningMultigrid: the layer of MgNO's released Helmholtz model, whose coarse levels have more channels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralop_kit.layers.checks import check_field
from neuralop_kit.layers.multigrid.extensions import EvenAboutNode
from neuralop_kit.layers.multigrid.stencils import channels_last, convolve
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

REFLECT = (EvenAboutNode(), EvenAboutNode())


class WideningMultigrid(nn.Module):
    """What the released Helmholtz code of MgNO computes: level ``l`` has ``l + 1`` times the channels of level 0.

        level 0 (finest):  v_0 = S f_0 + s
        level l:           v_l = Pi v_{l-1},  f_l = R f_{l-1},   then  v_l <- v_l + S (f_l - A v_l - a) + s
        upwards:           v_l <- v_l + P v_{l+1}

    ``A`` and ``S`` reflect at walls; ``R`` and ``Pi`` are 3x3 with stride 2 and no padding, so that 101 points become
    50, 24, 11, 5. Affine in ``f``; levels are counted from the fine end, so the kernels belong to pixels and there is
    no limit under refinement. Take it to compare with published numbers; :class:`MultigridOperator` otherwise.

    Args:
        in_channels, out_channels: of ``f`` and of ``v`` on the finest level.
        sweeps: iterations on each level, finest first.
        prolongation_sizes: 3 from an odd, 4 to an even number of fine points, finest first.
        generator: for the initial weights.

    Shape: ``(batch, in_channels, height, width) -> (batch, out_channels, height, width)``.

    Raises:
        ArgumentError: a size is below 1, or the numbers of levels do not fit.
        ShapeError: the field has another rank, channel count or size.

    Source: xlliu2017/MgNO at commit 3a68a90, models.py, class MgConv_helm, without the first ``A``, which never acts.

    >>> layer = WideningMultigrid(1, 2, (1, 1, 2), prolongation_sizes=(3, 4))
    >>> layer(torch.randn(2, 1, 21, 21)).shape
    torch.Size([2, 2, 21, 21])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        sweeps: Sequence[int],
        *,
        prolongation_sizes: Sequence[int],
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, *sweeps) < 1 or len(prolongation_sizes) != len(sweeps) - 1:
            raise ArgumentError(
                f"expected positive channels and sweeps and a prolongation between all levels, got {in_channels}, "
                f"{out_channels}, {tuple(sweeps)} and {tuple(prolongation_sizes)}; for example (1, 1, 2) and (3, 4)"
            )
        self.in_channels, self.out_channels, self.sweeps = in_channels, out_channels, tuple(sweeps)
        self.prolongation_sizes = tuple(prolongation_sizes)

        def kernel(num_in: int, num_out: int, size: int = 3) -> nn.Parameter:
            bound = 1 / math.sqrt(num_in * size**2)
            return nn.Parameter(torch.empty(num_out, num_in, size, size).uniform_(-bound, bound, generator=generator))

        def constants(num_in: int, num_out: int) -> nn.Parameter:
            bound = 1 / math.sqrt(num_in * 9)
            return nn.Parameter(torch.empty(num_out).uniform_(-bound, bound, generator=generator))

        # (f, v) channels of every iteration, and of every level.
        levels = [(in_channels * (level + 1), out_channels * (level + 1)) for level in range(len(sweeps))]
        every = [channels for channels, count in zip(levels, sweeps, strict=True) for _ in range(count)]
        self.smoothers = nn.ParameterList(kernel(f, v) for f, v in every)
        self.smoother_constants = nn.ParameterList(constants(f, v) for f, v in every)
        self.systems = nn.ParameterList(kernel(v, f) for f, v in every[1:])
        self.system_constants = nn.ParameterList(constants(v, f) for f, v in every[1:])
        steps = list(zip(levels[:-1], levels[1:], prolongation_sizes, strict=True))
        self.restrictions = nn.ParameterList(kernel(fine[0], coarse[0]) for fine, coarse, _ in steps)
        self.starts = nn.ParameterList(kernel(fine[1], coarse[1]) for fine, coarse, _ in steps)
        self.prolongations = nn.ParameterList(
            # A transposed convolution's kernel is (in, out, ...).
            nn.Parameter(kernel(fine[1], coarse[1], size).detach())
            for fine, coarse, size in steps
        )

    def forward(self, f: Tensor) -> Tensor:
        """Apply the layer."""
        self._check(f)
        f, iteration = channels_last(f), 0
        v: Tensor | None = None
        fields: list[Tensor] = []
        for level, count in enumerate(self.sweeps):
            if v is not None:
                v = functional.conv2d(v, self.starts[level - 1], stride=2)
                f = functional.conv2d(f, self.restrictions[level - 1], stride=2)
            for _ in range(count):
                v = self._iterate(f, v, iteration)
                iteration += 1
            if v is not None:
                fields.append(v)
        v = fields.pop()
        while fields:
            v = fields.pop() + functional.conv_transpose2d(v, self.prolongations[len(fields)], stride=2)
        return v

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.in_channels}, {self.out_channels}, {self.sweeps}"

    def _iterate(self, f: Tensor, v: Tensor | None, index: int) -> Tensor:
        rest = f
        if v is not None:
            rest = f - convolve(v, self.systems[index - 1], REFLECT, bias=self.system_constants[index - 1])
        change = convolve(rest, self.smoothers[index], REFLECT, bias=self.smoother_constants[index])
        return change if v is None else change.add_(v)

    def _check(self, f: Tensor) -> None:
        check_field(f, self.in_channels, 2)
        for size in f.shape[2:]:
            points = size
            for kernel in self.prolongation_sizes:
                if points < 5 or 4 - points % 2 != kernel:
                    raise ShapeError(
                        f"expected sizes whose coarse grids fit prolongations of size {self.prolongation_sizes}, got "
                        f"{tuple(f.shape[2:])}; the published model takes 101 x 101, MultigridOperator any size"
                    )
                points = (points - 1) // 2
