"""Fourier modes on a periodic box: transforms, wavenumbers, derivatives, dealiasing."""

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DomainError
from neuralop_kit.solvers.nodes import Device


class SpectralGrid:
    """What a pseudo-spectral scheme needs to know about one grid; everything broadcasts over ``(batch, channel)``.

    Modes are those of a real FFT: the last axis holds the wavenumbers >= 0 only. Any number of points, odd or even. On
    an even axis the highest mode has no partner of opposite sign, so odd derivatives of it are zero.

    Args:
        domain: periodic along every axis, one to three of them.
        shape: points per axis.
        dtype: of the fields, float32 or float64.
        device: of the fields.

    Raises:
        DomainError: an axis is not periodic.

    >>> grid = SpectralGrid(Domain.periodic((2 * math.pi,)), (16,), dtype=torch.float64)
    >>> x = Domain.periodic((2 * math.pi,)).coordinates((16,), dtype=torch.float64)
    >>> slope = grid.to_space(grid.derivative(grid.to_modes(torch.sin(3 * x)), 0))
    >>> (slope - 3 * torch.cos(3 * x)).abs().max().item() < 1e-13
    True
    """

    def __init__(self, domain: Domain, shape: Sequence[int], *, dtype: torch.dtype, device: Device = None) -> None:
        if not domain.is_periodic:
            raise DomainError(f"expected a domain periodic along every axis, got {domain}; use Domain.periodic")
        domain.check_shape(shape)
        self.domain = domain
        self.shape = tuple(shape)
        self.dtype = dtype
        self.device = device
        self.dims = tuple(range(-len(self.shape), 0))
        self.cycles = tuple(self._cycles(axis) for axis in range(len(self.shape)))
        scale = [2 * math.pi / length for length in domain.lengths]
        self.wavenumbers = tuple((k * s).to(dtype) for k, s in zip(self.cycles, scale, strict=True))
        self._odd = tuple(
            torch.where(2 * k.abs() == n, 0.0, wave)
            for k, n, wave in zip(self.cycles, self.shape, self.wavenumbers, strict=True)
        )

    @cached_property
    def squared(self) -> Tensor:
        """``|k|^2``, shape ``(*modes)``: minus the symbol of the Laplacian."""
        total = self.wavenumbers[0] ** 2
        for wave in self.wavenumbers[1:]:
            total = total + wave**2
        return total

    @cached_property
    def inverse_squared(self) -> Tensor:
        """``1/|k|^2``, and 0 for the mean, which a Poisson problem leaves open."""
        return torch.where(self.squared == 0, 0.0, 1 / self.squared)

    def to_modes(self, u: Tensor) -> Tensor:
        """Unnormalised Fourier coefficients of real fields."""
        return torch.fft.rfftn(u, dim=self.dims)

    def to_space(self, u_hat: Tensor) -> Tensor:
        """Real fields at the points of the grid; inverse of :meth:`to_modes`."""
        return torch.fft.irfftn(u_hat, s=self.shape, dim=self.dims)

    def first_derivative_symbol(self, axis: int) -> Tensor:
        """``k`` along ``axis``, broadcastable over modes; the derivative multiplies by ``i k``."""
        return self._odd[axis]

    def derivative(self, u_hat: Tensor, axis: int) -> Tensor:
        """First derivative along a space axis."""
        return 1j * self._odd[axis] * u_hat

    def band(self, fraction: float) -> Tensor:
        """1 for modes below ``fraction`` of the highest wavenumber on every axis, 0 above; shape ``(*modes)``."""
        inside = torch.ones((), dtype=torch.bool, device=self.device)
        for k, n in zip(self.cycles, self.shape, strict=True):
            inside = inside & (2 * k.abs() < fraction * n)
        return inside.to(self.dtype)

    def coordinates(self) -> Tensor:
        """Coordinates of the points, ``(num_dims, *shape)``."""
        return self.domain.coordinates(self.shape, dtype=self.dtype, device=self.device)

    def _cycles(self, axis: int) -> Tensor:
        """Signed number of waves per length along one axis, float64, shaped to broadcast over modes."""
        n, is_last = self.shape[axis], axis == len(self.shape) - 1
        frequencies = torch.fft.rfftfreq if is_last else torch.fft.fftfreq
        k = frequencies(n, d=1 / n, dtype=torch.float64, device=self.device)
        return k.reshape(-1, *[1] * (len(self.shape) - 1 - axis))
