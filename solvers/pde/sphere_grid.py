"""Spherical harmonics on a latitude-longitude grid: transforms of scalars and of winds, for spectral solvers."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import MissingExtraError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.sphere import SphereDomain

# Names of our grids in torch-harmonics.
GRIDS = {"equiangular": "equiangular", "gauss": "legendre-gauss"}


class SphereGrid:
    """Orthonormal spherical harmonics; coefficients ``(batch, channel, degree, order)``, degrees below ``num_degrees``.

    The truncation is so low that the product of two fields is projected exactly: a third of the latitudes on
    equiangular grids, two thirds on Gauss grids, whose quadrature is exact to twice the degree.

    Args:
        domain: the sphere.
        shape: latitudes and longitudes; with twice as many longitudes both limit alike.
        device: where the tables are.

    Raises:
        MissingExtraError: torch-harmonics is not installed.

    Source: torch-harmonics (Bonev et al., 2023) for the transforms.

    >>> grid = SphereGrid(SphereDomain(radius=2.0, grid="gauss"), (8, 16))
    >>> u = torch.cos(grid.colatitude).expand(1, 1, 8, 16)
    >>> torch.allclose(grid.to_space(grid.laplacian * grid.to_modes(u)), -2 / 4 * u)
    True
    """

    def __init__(self, domain: SphereDomain, shape: Sequence[int], *, device: Device = None) -> None:
        domain.check_shape(shape)
        self.domain = domain
        self.shape = (shape[0], shape[1])
        self.num_degrees = max(2, min(self._exact_degrees(), (shape[1] + 2) // 3))
        count = self.num_degrees
        kind: dict[str, Any] = {"lmax": count, "mmax": count, "grid": GRIDS[domain.grid], "csphase": False}
        harmonics = _torch_harmonics()
        self._analysis = harmonics.RealSHT(*self.shape, **kind).to(device)
        self._synthesis = harmonics.InverseRealSHT(*self.shape, **kind).to(device)
        self._wind_analysis = harmonics.RealVectorSHT(*self.shape, **kind).to(device)
        self._wind_synthesis = harmonics.InverseRealVectorSHT(*self.shape, **kind).to(device)
        degree = torch.arange(self.num_degrees, dtype=torch.float64, device=device)[:, None]
        self.degree = degree
        self.laplacian = -degree * (degree + 1) / domain.radius**2
        self.inverse_laplacian = torch.where(degree > 0, 1 / self.laplacian, 0.0)
        # A factor of the tables of winds was rounded to single precision (seen in torch-harmonics 0.8): what comes back
        # from a wind made of known coefficients says by how much, for every degree.
        ones = torch.zeros(2, count, count, dtype=torch.complex128, device=device)
        ones[:, 1:, 0] = 1.0
        returned = self._wind_analysis(self._wind_synthesis(ones))[0, :, :1].real
        self._curl_factor = self.laplacian * domain.radius / torch.where(degree > 0, returned, 1.0)
        self.colatitude = domain.axis_coordinates(0, shape[0], device=device)[:, None]

    def to_modes(self, u: Tensor) -> Tensor:
        """Coefficients of scalar fields ``(..., latitude, longitude)``."""
        return self._analysis(u)

    def to_space(self, modes: Tensor) -> Tensor:
        """Scalar fields from their coefficients."""
        return self._synthesis(modes)

    def vorticity_divergence(self, wind: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of curl and divergence of winds ``(..., 2, latitude, longitude)``, eastward and northward."""
        factor = self._curl_factor.to(wind.dtype)
        vorticity, divergence = (factor * self._wind_analysis(wind)).unbind(dim=-3)
        return vorticity, divergence

    def wind(self, vorticity: Tensor, divergence: Tensor) -> Tensor:
        """Winds with these coefficients of curl and divergence; eastward and northward."""
        factor = self.inverse_laplacian.to(vorticity.real.dtype) / self.domain.radius
        return self._wind_synthesis(factor * torch.stack([vorticity, divergence], dim=-3))

    def _exact_degrees(self) -> int:
        """Degrees for which the quadrature along latitudes is exact for products of three harmonics."""
        num_latitudes = self.shape[0]
        exact = 2 * num_latitudes - 1 if self.domain.grid == "gauss" else num_latitudes - 1
        return exact // 3 + 1


def _torch_harmonics() -> Any:
    try:
        import torch_harmonics
    except ImportError as error:
        raise MissingExtraError(
            f"expected torch-harmonics for spheres, got {error}; pip install 'neuralop-kit[sphere]'"
        ) from error
    return torch_harmonics


def draw_modes(numbers: Tensor, spectrum: Tensor, num_degrees: int) -> Tensor:
    """Random coefficients with ``E |c_lm|^2 = spectrum_l``, the same ones for every truncation.

    Args:
        numbers: standard normal, ``(..., n, n, 2)``: degree, order, real and imaginary part.
        spectrum: ``(n,)``, degrees 0 to n - 1.
        num_degrees: of the result; higher degrees are cut or zero.
    """
    n = numbers.shape[-2]
    coefficients = torch.view_as_complex(numbers.contiguous()) * math.sqrt(0.5)
    # Order zero is real; orders above the degree do not exist.
    coefficients = torch.cat([numbers[..., :1, 0].to(coefficients.dtype), coefficients[..., 1:]], dim=-1).tril()
    coefficients = coefficients * spectrum.sqrt()[:, None]
    kept = min(n, num_degrees)
    padding = (0, num_degrees - kept, 0, num_degrees - kept)
    return torch.nn.functional.pad(coefficients[..., :kept, :kept], padding)
