"""IntegralConv: a local convolution that keeps its size in space."""

import math
import operator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuralop_kit.layers.ball_transform import ball_transform
from neuralop_kit.layers.cap_transform import cap_transform
from neuralop_kit.layers.checks import check_field, with_an_item
from neuralop_kit.layers.constants import constant
from neuralop_kit.layers.kernel_bases import KernelBasis, PiecewiseLinear
from neuralop_kit.layers.sphere_transform import SphereTransform, carried_degrees, mix_degrees
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.nodes import PLACEMENTS
from neuralop_kit.solvers.sphere import SphereDomain


class IntegralConv(nn.Module):
    """Convolution with a learned kernel on a ball whose radius is a length, not a number of pixels.

        v_i(x) = sum_j integral_{|y| < R, x - y in D} k_ij(y) u_j(x - y) dy,      k_ij = sum_l theta_ijl kappa_l

    The kernel is *integrated, never sampled*: the transforms of the basis functions ``kappa_l`` are known at every
    wavenumber, and the field is that of its trigonometric interpolant. On periodic axes the layer is therefore exact
    for every band-limited field, at every resolution: also where the radius is smaller than the spacing or larger than
    the domain, and where the rim of the ball cuts cells. Between walls the integral is over the box alone, as if the
    field were zero behind them; the domain's quadrature weights make that O(h^2) accurate.

    On a sphere balls are caps, and kernels are isotropic, for no direction is the same everywhere. The layer is exact
    for fields made of the harmonics that the grid carries, and commutes with every rotation.

    Args:
        in_channels, out_channels: channels of the field.
        radius: ``R``, positive, in the length unit of the domain; the same along all axes.
        domain: a box of one to three dimensions, or a sphere, where the radius is an arc of a great circle.
        basis: the ``kappa_l``: :class:`PiecewiseLinear`, :class:`Zernike` or :class:`Morlet`; on a sphere one without
            harmonics, by default ``PiecewiseLinear(degree=0)``.
        generator: source of the initial weights, normal numbers of variance ``1 / (in_channels * size of the basis)``.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any resolution. Half precision is computed
    in float32, also under autocast.
    Cost: one FFT per channel in and out and ``2 size in out`` operations per point, for any radius; a stencil would
    take ``2 (2R/h)^d in out``. Axes with walls are transformed at length ``L + R``. The basis is transformed once
    per grid, in about two seconds for 512 x 512 points, and kept: ``size`` numbers per point. On a sphere the cost is
    that of a :class:`SphericalConv` with all degrees.

    Raises:
        ArgumentError: the radius is not positive or beyond the other pole, a channel count is below 1, or the basis has
            directions on a sphere.
        DomainError: the domain has more than three axes.
        ShapeError: the field has another rank or channel count.

    Good values: a radius of 3 to 6 spacings of the coarsest grid in use.
    Source: Liu-Schiaffini et al. (2024), arXiv 2402.16845, section 3.2, there with a sampled kernel.

    >>> layer = IntegralConv(3, 5, 0.1, domain=Domain.periodic((1.0, 1.0)))
    >>> layer(torch.randn(2, 3, 64, 63)).shape
    torch.Size([2, 5, 64, 63])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        radius: float,
        *,
        domain: Domain,
        basis: KernelBasis | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels) < 1 or not (math.isfinite(radius) and radius > 0):
            raise ArgumentError(
                f"expected channels of at least 1 and a positive radius, got {in_channels}, {out_channels} and "
                f"{radius}; give the radius in the length unit of the domain"
            )
        if domain.num_dims > 3:
            raise DomainError(f"expected a domain of one to three dimensions, got {domain}; use one of these")
        self.on_sphere = isinstance(domain, SphereDomain)
        self.in_channels, self.out_channels, self.radius = in_channels, out_channels, float(radius)
        self.domain, self.basis = domain, basis or PiecewiseLinear(degree=0 if self.on_sphere else 1)
        if isinstance(domain, SphereDomain):
            self._check_on_sphere(radius / domain.radius)
        size = self.basis.size(domain.num_dims)
        scale = (size * in_channels) ** -0.5
        self.weight = nn.Parameter(torch.randn(size, out_channels, in_channels, generator=generator) * scale)

    def forward(self, u: Tensor) -> Tensor:
        """The convolution of ``u``."""
        num_dims = self.domain.num_dims
        check_field(u, self.in_channels, num_dims)
        if not len(u):
            return self(with_an_item(u))[:0]
        if self.on_sphere:
            return self._convolve_on_sphere(u)
        shape = tuple(operator.index(n) for n in u.shape[2:])
        spacing, periods = self.domain.spacing(shape), self._periods(shape)
        axes = tuple(range(2, 2 + num_dims))
        with torch.autocast(u.device.type, enabled=False):
            x = u.to(torch.promote_types(u.dtype, torch.float32))
            spectrum = torch.fft.rfftn(self._weigh(x), s=periods, dim=axes)
            relative = tuple(self.radius / h for h in spacing)
            kernels = torch.view_as_complex(_kernels(self.basis, relative, periods, x.dtype, x.device))
            mixed = _mix(spectrum.flatten(2), kernels, self.weight.to(x.dtype)).unflatten(2, spectrum.shape[2:])
            v = torch.fft.irfftn(mixed, s=periods, dim=axes)
        inside = tuple(slice(0, n) for n in shape)
        return v[(..., *inside)].to(u.dtype)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.in_channels}, {self.out_channels}, radius={self.radius:g}, {self.basis}, domain={self.domain}"

    def _check_on_sphere(self, angle: float) -> None:
        if angle > math.pi or any(term.degree for term in self.basis.terms(2)):
            raise ArgumentError(
                f"expected a radius of at most half a great circle and an isotropic basis on a sphere, got "
                f"{self.radius:g} and {self.basis}; PiecewiseLinear(degree=0) is one, directions jump at the poles"
            )

    def _convolve_on_sphere(self, u: Tensor) -> Tensor:
        """One matrix per degree, made of the transforms of the basis."""
        sphere = cast(SphereDomain, self.domain)
        shape = (operator.index(u.shape[2]), operator.index(u.shape[3]))
        transform = SphereTransform(sphere.grid, shape, carried_degrees(sphere.grid, shape[0]))
        with torch.autocast(u.device.type, enabled=False):
            x = u.to(torch.promote_types(u.dtype, torch.float32))
            angle = self.radius / sphere.radius
            kernels = _cap_kernels(self.basis, angle, transform.num_degrees, x.dtype, x.device)
            weight = torch.einsum("kl,koi->lio", kernels, self.weight.to(x.dtype))
            return transform.to_points(mix_degrees(transform.to_modes(x), weight)).to(u.dtype)

    def _periods(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of the transforms, in points: behind a wall there is room for the kernel."""
        periods = []
        for axis, n, h in zip(self.domain.axes, shape, self.domain.spacing(shape), strict=True):
            periods.append(n if axis.is_periodic else _fast_length(n + math.ceil(self.radius / h)))
        return tuple(periods)

    def _weigh(self, x: Tensor) -> Tensor:
        """The field times what each point stands for, in cells: points on walls for half of one."""
        for index, axis in enumerate(self.domain.axes):
            if not axis.is_periodic and axis.nodes != "cell":
                weights = _end_weights(axis.nodes, operator.index(x.shape[2 + index]), x.dtype, x.device)
                x = x * weights.view(-1, *[1] * (x.ndim - 3 - index))
        return x


def _fast_length(at_least: int) -> int:
    """The next even number without prime factors above 5."""
    length = at_least + at_least % 2
    while 60**12 % length:
        length += 2
    return length


def _mix(spectrum: Tensor, kernels: Tensor, weight: Tensor) -> Tensor:
    """``sum_l kappa_l theta_l u``: ``(batch, in, modes) -> (batch, out, modes)``; matrices first, they are real."""
    parts = torch.view_as_real(spectrum)
    total = torch.zeros((), dtype=spectrum.dtype, device=spectrum.device)
    for kernel, matrix in zip(kernels.flatten(1), weight, strict=True):
        product = torch.matmul(matrix, parts.flatten(2)).unflatten(2, parts.shape[2:])
        total = total + kernel * torch.view_as_complex(product)
    return total


@constant
def _end_weights(nodes: str, num_points: int) -> NDArray[np.float64]:
    return PLACEMENTS[nodes].weights(1.0, num_points).numpy() / PLACEMENTS[nodes].spacing(1.0, num_points)


_cap_kernels = constant(cap_transform)


@constant
def _kernels(basis: KernelBasis, relative: tuple[float, ...], periods: tuple[int, ...]) -> NDArray[Any]:
    """Transforms of the basis at the wavenumbers of a real FFT, as pairs: ``(size, *modes, 2)``.

    ``relative`` is the radius in spacings along each axis.
    """
    lines = [np.arange(-(n // 2), n // 2 + 1) / n * r for n, r in zip(periods, relative, strict=True)]
    values = ball_transform(basis, np.stack(np.meshgrid(*lines, indexing="ij")))
    for axis, n in enumerate(periods, start=1):
        if n % 2 == 0:
            # The Nyquist mode is a cosine: half of it on each sign.
            ends = (values.take([0], axis) + values.take([-1], axis)) / 2
            values = np.concatenate((ends, np.delete(values, [0, -1], axis)), axis)
        values = np.fft.ifftshift(values, axis)
    kept = values[..., : periods[-1] // 2 + 1]
    return np.stack((kept.real, kept.imag), axis=-1)
