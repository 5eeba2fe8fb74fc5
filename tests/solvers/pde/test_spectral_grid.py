"""Fourier modes: derivatives of band-limited fields, odd and even sizes, the dealiasing band, reflections."""

import math

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.errors import DomainError
from neuralop_kit.solvers.pde.reflection import EvenExtension
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid


@pytest.mark.parametrize("shape", [(16,), (15,), (12, 9), (9, 12), (7, 8, 9)])
def test_derivatives_of_band_limited_fields_are_exact(shape):
    lengths = (2.0, 3.0, 1.0)[: len(shape)]
    domain = Domain.periodic(lengths)
    grid = SpectralGrid(domain, shape, dtype=torch.float64)
    x = grid.coordinates()
    waves = [2 * math.pi * (axis + 1) / length for axis, length in enumerate(lengths)]
    phase = sum(k * line for k, line in zip(waves, x, strict=True))
    modes = grid.to_modes(torch.sin(phase))
    for axis, k in enumerate(waves):
        torch.testing.assert_close(
            grid.to_space(grid.derivative(modes, axis)), k * torch.cos(phase), atol=1e-12, rtol=0
        )
    laplacian = grid.to_space(-grid.squared * modes)
    torch.testing.assert_close(laplacian, -sum(k**2 for k in waves) * torch.sin(phase), atol=1e-11, rtol=0)
    poisson = grid.to_space(grid.inverse_squared * modes)
    torch.testing.assert_close(poisson, torch.sin(phase) / sum(k**2 for k in waves), atol=1e-13, rtol=0)


def test_highest_mode_of_an_even_axis_has_no_slope():
    # cos(N/2 t) is +1, -1, +1, ...: its sine partner vanishes at every point, so the slope must be zero, not imaginary.
    grid = SpectralGrid(Domain.periodic((1.0,)), (8,), dtype=torch.float64)
    zigzag = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    assert grid.to_space(grid.derivative(grid.to_modes(zigzag), 0)).abs().max() < 1e-14


@pytest.mark.parametrize("num_points", [15, 16, 17, 18])
@pytest.mark.parametrize("degree", [2, 3])
def test_products_of_fields_in_the_band_do_not_alias_into_it(num_points, degree):
    # The product on a four times finer grid is exact; its modes inside the band must agree with those of this grid.
    domain = Domain.periodic((2 * math.pi,))
    coarse = SpectralGrid(domain, (num_points,), dtype=torch.float64)
    fine = SpectralGrid(domain, (4 * num_points,), dtype=torch.float64)
    band = coarse.band(2 / (degree + 1))
    kept = int(band.sum().item())
    modes = coarse.to_modes(torch.randn(num_points, dtype=torch.float64)) * band / num_points
    padded = torch.zeros(2 * num_points + 1, dtype=modes.dtype)
    padded[:kept] = modes[:kept]
    product = coarse.to_modes(coarse.to_space(modes * num_points) ** degree)[:kept] / num_points
    exact = fine.to_modes(fine.to_space(padded * 4 * num_points) ** degree)[:kept] / (4 * num_points)
    torch.testing.assert_close(product, exact, atol=1e-13, rtol=0)
    # Negative control: one mode more, and the product folds back.
    wide = coarse.to_modes(torch.randn(num_points, dtype=torch.float64))
    aliased = coarse.to_modes(coarse.to_space(wide) ** degree)[:kept] / num_points
    padded[: len(wide)] = wide / num_points
    true = fine.to_modes(fine.to_space(padded * 4 * num_points) ** degree)[:kept] / (4 * num_points)
    assert (aliased - true).abs().max() > 1e-2


@pytest.mark.parametrize(("nodes", "num_points"), [("vertex", 9), ("cell", 8), ("cell", 7)])
def test_even_extension_continues_cosines(nodes, num_points):
    domain = Domain.box((1.0, 2.0), boundary=("neumann", "periodic"), nodes=(nodes, "left"))
    extension = EvenExtension(domain)

    def cosines(x: torch.Tensor) -> torch.Tensor:
        return torch.cos(2 * math.pi * x[0]) * torch.sin(math.pi * x[1])

    shape = (num_points, 6)
    u = cosines(domain.coordinates(shape, dtype=torch.float64))
    extended = extension.extend(u)
    expected = cosines(extension.domain.coordinates(tuple(extended.shape), dtype=torch.float64))
    torch.testing.assert_close(extended, expected, atol=1e-14, rtol=0)
    assert torch.equal(extension.restrict(extended, shape), u)


def test_walls_are_refused():
    with pytest.raises(DomainError, match="expected a domain periodic"):
        SpectralGrid(Domain.box((1.0,)), (8,), dtype=torch.float64)
