"""SphericalConv: a global convolution on the sphere."""

import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_field, with_an_item
from neuralop_kit.layers.sphere_transform import SphereTransform, carried_degrees, mix_degrees
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from neuralop_kit.solvers.sphere import SphereDomain


class SphericalConv(nn.Module):
    """Global convolution on a sphere: spherical harmonics of one degree are multiplied by one matrix of channels.

        v_lm = A_l u_lm,    that is    v(x) = integral k(x . y) u(y) dy,    k(t) = sum_l (2 l + 1) / (4 pi) A_l P_l(t)

    with real matrices ``A_l`` for ``l < num_degrees``: the layer commutes with every rotation. With ``isotropic=False``

        v_lm = (A_l + i sign(m) B_l) u_lm

    it knows east from west and commutes with rotations about the axis alone, as the weather on a turning planet does.

    Harmonics that the grid of the input or of the output does not carry are left out: with ``N`` latitudes, degrees are
    below ``N`` on Gauss grids and below ``N - 1`` on equiangular ones, and orders are below half the number of
    longitudes. Fields made of carried harmonics are treated exactly, so that nothing depends on the resolution.

    Args:
        in_channels, out_channels: channels of the field.
        num_degrees: degrees kept, 0 to ``num_degrees - 1``.
        domain: a sphere of any radius, ``Domain.sphere()``.
        isotropic: one real matrix per degree; otherwise two.
        generator: source of the initial weights, independent normal numbers of variance ``1 / in_channels``, half of it
            for each of ``A`` and ``B``: a field of kept degrees comes out with the variance that it went in with.

    Shape: ``(batch, in_channels, latitudes, longitudes) -> (batch, out_channels, *output_shape)``, any resolution. Half
    precision is computed in float32, also under autocast.
    Cost: per point and channel one FFT and ``4 num_degrees`` operations, in and out. The tables of Legendre functions
    have ``num_degrees^2`` numbers per latitude; they are made once per grid and kept.

    Raises:
        ArgumentError: a count is below 1.
        DomainError: the domain is not a sphere.
        ShapeError: the field has another rank or channel count, or the output shape another length.

    Good values: as many degrees as a third of the latitudes, so that products of kept harmonics are resolved.
    Source: Driscoll and Healy (1994), theorem 1; Bonev et al. (2023), arXiv 2306.03838, eq. 6, with complex weights.

    >>> layer = SphericalConv(3, 5, 16, domain=Domain.sphere())
    >>> u = torch.randn(2, 3, 33, 64)
    >>> layer(u).shape, layer(u, output_shape=(65, 128)).shape
    (torch.Size([2, 5, 33, 64]), torch.Size([2, 5, 65, 128]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_degrees: int,
        *,
        domain: Domain,
        isotropic: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, num_degrees) < 1:
            raise ArgumentError(
                f"expected at least one channel and one degree, got {in_channels}, {out_channels} and {num_degrees}"
            )
        if not isinstance(domain, SphereDomain):
            raise DomainError(f"expected a sphere, got {domain}; use SpectralConv on a torus")
        self.in_channels, self.out_channels, self.num_degrees = in_channels, out_channels, num_degrees
        self.domain = domain
        parts = 1 if isotropic else 2
        weight = torch.randn(parts, num_degrees, in_channels, out_channels, generator=generator)
        self.weight = nn.Parameter(weight / (parts * in_channels) ** 0.5)

    def forward(self, u: Tensor, *, output_shape: Sequence[int] | None = None) -> Tensor:
        """Apply the operator to ``u``; sample the result on a grid of ``output_shape``, by default that of ``u``."""
        old, new = self._check(u, output_shape)
        if not len(u):
            return self(with_an_item(u), output_shape=output_shape)[:0]
        grid = self.domain.grid
        kept = min(self.num_degrees, carried_degrees(grid, old[0]), carried_degrees(grid, new[0]))
        with torch.autocast(u.device.type, enabled=False):
            x = u.to(torch.promote_types(u.dtype, torch.float32))
            modes = self._mix(SphereTransform(grid, old, kept).to_modes(x), self.weight[:, :kept].to(x.dtype))
            v = SphereTransform(grid, new, kept).to_points(modes)
        return v.to(u.dtype)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        isotropic = len(self.weight) == 1
        return f"{self.in_channels}, {self.out_channels}, num_degrees={self.num_degrees}, isotropic={isotropic}"

    @staticmethod
    def _mix(modes: Tensor, weight: Tensor) -> Tensor:
        mixed = mix_degrees(modes, weight[0])
        if len(weight) == 1:
            return mixed
        turned = mix_degrees(modes[1:], weight[1])
        # The zonal part, of order zero, is real.
        rest = torch.stack((-turned[:, :, 1], turned[:, :, 0]), dim=2)
        return torch.cat((mixed[:1], mixed[1:] + rest))

    def _check(self, u: Tensor, output_shape: Sequence[int] | None) -> tuple[tuple[int, int], tuple[int, int]]:
        """Both grid shapes as plain numbers."""
        check_field(u, self.in_channels, 2)
        old = (operator.index(u.shape[2]), operator.index(u.shape[3]))
        if output_shape is None:
            output_shape = old
        if len(output_shape) != 2:
            raise ShapeError(
                f"expected an output shape of two sizes, got {tuple(output_shape)}; "
                "pass latitudes and longitudes only, without batch and channel"
            )
        new = (operator.index(output_shape[0]), operator.index(output_shape[1]))
        self.domain.check_shape(old)
        self.domain.check_shape(new)
        return old, new
