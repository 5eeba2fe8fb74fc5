"""SphericalMultigrid: a global linear operator on the sphere, learned as the rings of one multigrid cycle."""

import math
import operator
from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_field, with_an_item
from neuralop_kit.layers.multigrid.cycles import CYCLES, run_cycle
from neuralop_kit.layers.multigrid.initialization import Initialization, LevelKernels, RandomKernels
from neuralop_kit.layers.multigrid.ring_levels import RingLevels, ring_means
from neuralop_kit.layers.multigrid.smoothers import Jacobi, Smoother
from neuralop_kit.layers.sphere_transform import SphereTransform, carried_degrees, mix_degrees
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.sphere import SphereDomain


class SphericalMultigrid(nn.Module):
    """The multigrid cycle of :class:`MultigridOperator` on the sphere: global, O(log N) parameters, no pole problem.

        v <- v + B_ji (f - A_j v),      v <- v + P cycle_{j-1}(R (f - A_j v)),      v <- v + B_ji (f - A_j v)

    The stencils of ``A_j`` and ``B_ji`` are a point and rings around it, the same everywhere on the sphere:

        (K u)(x) = K_0 u(x) + sum_r K_r mean of u over the circle at distance r h_j,      h_j = pi radius / L_j

    Level ``j`` carries the spherical harmonics of degrees below ``L_j = coarsest 2^j``; ``R`` cuts off those that the
    next coarser level does not carry and ``P`` is the embedding, its adjoint. All of this acts on one degree at a
    time, so that the whole cycle is applied as one matrix per degree, at the cost of a :class:`SphericalConv`.

    Exact: linear in ``u``, and it commutes with every rotation. Nothing depends on the grid for fields made of degrees
    that the grid carries. Degrees above the last level with kernels of its own see the sweeps of the finest kernels
    alone, at a spacing halved from level to level.

    Args:
        in_channels, out_channels: channels of the field.
        levels: levels with kernels of their own. Good value: so that ``coarsest 2^(levels - 1)`` is about the number
            of latitudes of the training data; 6 for 64.
        domain: a sphere, ``Domain.sphere()``.
        cycle, pre_smoothing, post_smoothing, smoother, initialization, generator: as in :class:`MultigridOperator`; A
            is shared by the sweeps of a level. With :class:`EllipticKernels` this solves
            ``-diffusivity Laplace u + reaction u = f``, with the Laplacian of the rings, of second order in ``h``.
        coarsest: degrees of level 0, at least 2, where a solver of few sweeps is best.
        num_rings: in each stencil, at most ``coarsest``.

    Shape: ``(batch, in_channels, latitudes, longitudes) -> (batch, out_channels, latitudes, longitudes)``, any grid.

    Raises:
        ArgumentError: an argument is out of range. DomainError: the domain is not a sphere.
        ShapeError: the field has another rank or channel count.

    Source: He, Liu and Xu (2024), MgNO, eq. 10, on boxes; the levels on the sphere are ours.

    >>> layer = SphericalMultigrid(3, 8, 4, domain=Domain.sphere())
    >>> layer(torch.randn(2, 3, 33, 64)).shape
    torch.Size([2, 8, 33, 64])
    """

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
        coarsest: int = 2,
        num_rings: int = 1,
        smoother: Smoother | None = None,
        initialization: Initialization | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        num_post = 0 if cycle == "backslash" else post_smoothing
        if min(in_channels, out_channels, levels) < 1 or cycle not in CYCLES:
            raise ArgumentError(
                f"expected positive channels and levels and a cycle among {list(CYCLES)}, "
                f"got {in_channels}, {out_channels}, {levels} and {cycle!r}; correct them"
            )
        if min(pre_smoothing, num_post) < 0 or pre_smoothing + num_post < 1 or not 1 <= num_rings <= coarsest >= 2:
            raise ArgumentError(
                "expected at least one sweep, and one ring to as many as the coarsest level has degrees, at least 2, "
                f"got {pre_smoothing} and {num_post} sweeps, {num_rings} rings, {coarsest} degrees; correct them"
            )
        if not isinstance(domain, SphereDomain):
            raise DomainError(f"expected a sphere, got {domain}; use MultigridOperator on a box")
        smoother, initialization = smoother or Jacobi(), initialization or RandomKernels()
        if smoother.num_colours > 1:
            raise ArgumentError(f"expected a smoother of one colour, got {smoother}; take Jacobi() or Chebyshev()")
        self.in_channels, self.out_channels, self.levels, self.domain = in_channels, out_channels, levels, domain
        self.cycle, self.pre_smoothing, self.coarsest = cycle, pre_smoothing, coarsest
        self.smoother, self.initialization = smoother, initialization
        num_sweeps = [max(pre_smoothing + num_post, 2)] + [pre_smoothing + num_post] * (levels - 1)
        self.smoother_kernels = nn.ParameterList(
            torch.empty(count, out_channels, in_channels, 1 + num_rings) for count in num_sweeps
        )
        self.system_kernels = nn.ParameterList(
            torch.empty(1, in_channels, out_channels, 1 + num_rings) for _ in num_sweeps
        )
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialise all kernels again."""
        size = self.system_kernels[0].shape[-1]
        identity = torch.zeros(size, dtype=torch.float64)
        identity[0] = 1.0
        # The mean over a small circle is u + h^2 / 4 Laplace u.
        laplacian = 4 * identity
        laplacian[1] = -4.0
        kernels = [
            LevelKernels(system, smoother, laplacian, identity, math.pi * self.domain.radius / band, 2)
            for system, smoother, band in zip(
                self.system_kernels, self.smoother_kernels, self._bands(self.levels), strict=True
            )
        ]
        self.initialization.fill(kernels, self.smoother, generator)

    def forward(self, u: Tensor) -> Tensor:
        """Apply the operator."""
        return self._apply_degrees(u, self.in_channels, self.multiplier)

    def system(self, v: Tensor) -> Tensor:
        """``A v`` with the kernel of the last level: what :meth:`forward` inverts below its degrees, if it is a solver.

        Shape: ``(batch, out_channels, *space) -> (batch, in_channels, *space)``.
        """
        return self._apply_degrees(v, self.out_channels, self.system_multiplier)

    def multiplier(self, num_degrees: int) -> Tensor:
        """The operator as one matrix per degree, ``(num_degrees, out_channels, in_channels)``."""
        finest, num_levels = self.levels - 1, self.levels
        while self._bands(num_levels)[-1] < num_degrees:
            num_levels += 1
        bands = self._bands(num_levels)
        levels = RingLevels(
            bands,
            system=list(self.system_kernels),
            smoother=list(self.smoother_kernels),
            num_pre=self.pre_smoothing,
            order=self.initialization.order,
            radius=self.domain.radius,
        )
        like = self.smoother_kernels[0]
        units = torch.eye(self.in_channels, dtype=like.dtype, device=like.device)
        parts = [run_cycle(levels, finest, units.expand(bands[finest], -1, -1), None, self.cycle)]
        for level in range(self.levels, num_levels):
            parts.append(levels.smooth(level, units.expand(bands[level] - bands[level - 1], -1, -1), None))
        return torch.cat(parts)[:num_degrees]

    def system_multiplier(self, num_degrees: int) -> Tensor:
        """The last level's ``A`` as one matrix per degree, ``(num_degrees, in_channels, out_channels)``."""
        kernel = self.system_kernels[-1][0]
        band = self._bands(self.levels)[-1]
        means = ring_means(0, num_degrees, band, kernel.shape[-1] - 1, kernel.dtype, kernel.device)
        scale = (math.pi * self.domain.radius / band) ** self.initialization.order
        return torch.einsum("dr,abr->dab", means, kernel) / scale

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return (
            f"{self.in_channels}, {self.out_channels}, {self.levels}, cycle={self.cycle!r}, "
            f"coarsest={self.coarsest}, domain={self.domain}"
        )

    def _bands(self, num_levels: int) -> tuple[int, ...]:
        return tuple(self.coarsest * 2**level for level in range(num_levels))

    def _apply_degrees(self, u: Tensor, num_channels: int, multiplier: Callable[[int], Tensor]) -> Tensor:
        check_field(u, num_channels, 2)
        if not len(u):
            return self._apply_degrees(with_an_item(u), num_channels, multiplier)[:0]
        shape = (operator.index(u.shape[2]), operator.index(u.shape[3]))
        self.domain.check_shape(shape)
        count = carried_degrees(self.domain.grid, shape[0])
        transform = SphereTransform(self.domain.grid, shape, count)
        with torch.autocast(u.device.type, enabled=False):
            x = u.to(torch.promote_types(u.dtype, torch.float32))
            weight = multiplier(count).to(x.dtype).mT
            return transform.to_points(mix_degrees(transform.to_modes(x), weight)).to(u.dtype)
