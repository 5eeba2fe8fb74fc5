"""Multigrid levels on the sphere, where everything acts on one degree at a time: what a cycle calls."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import eval_legendre
from torch import Tensor
from torch.nn.functional import pad

from neuralop_kit.layers.constants import constant


@constant
def ring_means(first: int, last: int, band: int, num_rings: int) -> NDArray[np.float64]:
    """What the mean over circles at distance ``r pi / band``, ``r = 0..num_rings``, makes of degrees first..last - 1.

    mean of Y_lm over the circle at distance s around x = P_l(cos s) Y_lm(x)        (Funk and Hecke)
    """
    degrees = np.arange(first, last)[:, None]
    means: NDArray[np.float64] = eval_legendre(degrees, np.cos(np.pi / band * np.arange(num_rings + 1)))
    return means


class RingLevels:
    """Sweeps and residuals as matrices per degree, ``(degree, out, in)``; transfers cut and append degrees.

    Args:
        bands: level ``j`` carries degrees below ``bands[j]``; coarsest first.
        system, smoother: kernels per level, ``(count, in, out, 1 + rings)`` and ``(num_sweeps, out, in, 1 + rings)``.
        num_pre: sweeps before the coarse correction; the others come after it.
        order: kernels act as ``h^-order`` and ``h^order`` times what is given.
        radius: of the sphere.
    """

    last_level = 0

    def __init__(
        self,
        bands: Sequence[int],
        *,
        system: Sequence[Tensor],
        smoother: Sequence[Tensor],
        num_pre: int,
        order: float,
        radius: float,
    ) -> None:
        self.bands, self.num_pre = tuple(bands), num_pre
        self.system, self.smoother = [], []
        for level, band in enumerate(self.bands):
            # The finest kernels serve all finer levels as well, which see only the degrees that are new there.
            own = min(level, len(system) - 1)
            first = self.bands[level - 1] if level > own else 0
            scale = (np.pi * radius / band) ** order
            self.system.append(_symbols(system[own], first, band) / scale)
            self.smoother.append(_symbols(smoother[own], first, band) * scale)

    def pre_smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor | None:
        """The first sweeps."""
        return self._sweep(level, f, u, range(self.num_pre))

    def post_smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor:
        """The other sweeps."""
        v = self._sweep(level, f, u, range(self.num_pre, len(self.smoother[level])))
        if v is None:
            raise RuntimeError("expected a sweep or a guess, got neither; this is a bug in neuralop_kit")
        return v

    def solve_coarsest(self, f: Tensor, u: Tensor | None) -> Tensor:
        """All sweeps."""
        return self.smooth(0, f, u)

    def smooth(self, level: int, f: Tensor, u: Tensor | None) -> Tensor:
        """All sweeps of a level, one after the other."""
        u = self.pre_smooth(level, f, u)
        return self.post_smooth(level, f, u)

    def residual(self, level: int, f: Tensor, u: Tensor) -> Tensor:
        """``f - A u``."""
        return f - self.system[level][0] @ u

    def restrict(self, level: int, residual: Tensor) -> Tensor:
        """Without the degrees that the coarser level does not carry."""
        return residual[: self.bands[level - 1]]

    def prolong(self, level: int, correction: Tensor) -> Tensor:
        """With zeros there."""
        return pad(correction, (0, 0, 0, 0, 0, self.bands[level] - len(correction)))

    def _sweep(self, level: int, f: Tensor, u: Tensor | None, sweeps: range) -> Tensor | None:
        for index in sweeps:
            correction = self.smoother[level][index] @ (f if u is None else self.residual(level, f, u))
            u = correction if u is None else u + correction
        return u


def _symbols(kernels: Tensor, first: int, band: int) -> Tensor:
    """``(count, degree, *channels)`` from ``(count, *channels, 1 + rings)``."""
    means = ring_means(first, band, band, kernels.shape[-1] - 1, kernels.dtype, kernels.device)
    return torch.einsum("dr,cabr->cdab", means, kernels)
