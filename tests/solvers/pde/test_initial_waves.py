"""Initial waves: the published law with its defects, the documented one without, APEBench's."""

import math

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.solvers.pde import DocumentedWaves, PublishedWaves, TruncatedFourier

DOMAIN = Domain.periodic((1.0,), nodes="cell")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_published_means_scatter_and_wavenumbers_double():
    n = 256
    u = PublishedWaves(DOMAIN).sample(20_000, (n,), generator=seeded(), dtype=torch.float64)[:, 0]
    (x,) = DOMAIN.coordinates((n,), dtype=torch.float64)
    # Sums of waves of period L - h are found exactly by least squares; |u| and windows are not.
    angle = 2 * math.pi * torch.arange(1, 9).double()[:, None] * x / (1 - 1 / n)
    basis = torch.cat([torch.ones(1, n), angle.sin(), angle.cos()]).double()
    coefficients = torch.linalg.lstsq(basis.T, u.T).solution.T
    exact = (u - coefficients @ basis).abs().amax(dim=1) < 1e-8
    assert exact.double().mean() == pytest.approx(0.81, abs=0.02)
    coefficients = coefficients[exact]
    assert coefficients[:, 0].std().item() == pytest.approx(0.61, abs=0.02)
    power = coefficients[:, 1:9] ** 2 + coefficients[:, 9:] ** 2
    single = (power > 1e-12).sum(dim=1) == 1
    assert single.double().mean() == pytest.approx(0.25, abs=0.01)
    assert (power[single][:, [0, 2, 4, 6]] < 1e-12).all()  # 2, 4, 6, 8: twice 1, 2, 3, 4


def test_published_windows_have_one_width():
    u = PublishedWaves(DOMAIN).sample(3000, (2048,), generator=seeded(), dtype=torch.float64)[:, 0]
    outside = u[:, -20:].abs().amax(dim=1) < 1e-12
    assert outside.double().mean() == pytest.approx(0.1, abs=0.02)
    # Beyond both ends the window has fallen to tanh's tail; its middle lies half the width from the edges.
    inside = u[outside].abs() > 1e-9
    reach = inside.double().sum(dim=1) / 2048
    # 0.45 plus two tails of a width that the amplitude decides.
    assert (reach - reach.median()).abs().max() < 0.1
    first = inside.double().argmax(dim=1) / 2048
    assert first.min() > 0.1 - 0.13
    assert first.max() < 0.135


def test_documented_waves_are_periodic_and_have_no_mean():
    waves = DocumentedWaves(DOMAIN, chance=0.0)
    u = waves.sample(500, (64,), generator=seeded(), dtype=torch.float64)[:, 0]
    assert u.mean(dim=1).abs().max() < 1e-12
    modes = torch.fft.rfft(u).abs() > 1e-9
    assert not modes[:, 5:].any()
    assert set(modes.sum(dim=1).tolist()) == {1, 2}


@pytest.mark.parametrize("kind", [DocumentedWaves, TruncatedFourier])
def test_one_function_on_every_grid(kind):
    waves = kind(DOMAIN)
    coarse, fine = (waves.sample(3, (n,), generator=seeded(), dtype=torch.float64) for n in (50, 150))
    torch.testing.assert_close(fine[..., DOMAIN.common_nodes((50,), (150,))[0]], coarse, rtol=0, atol=1e-12)


def test_a_sample_depends_on_its_own_seed_only():
    for waves in (DocumentedWaves(DOMAIN), PublishedWaves(DOMAIN), TruncatedFourier(DOMAIN)):
        seeds = [torch.Generator().manual_seed(k) for k in (3, 7)]
        pair = waves.sample(2, (32,), generator=seeds)
        assert torch.equal(waves.sample(1, (32,), generator=torch.Generator().manual_seed(7))[0], pair[1])


def test_truncated_fourier_fills_its_band_and_reaches_one():
    domain = Domain.periodic((1.0, 2.0))
    u = TruncatedFourier(domain, cutoff=3).sample(4, (24, 24), generator=seeded(), dtype=torch.float64)[:, 0]
    modes = torch.fft.fft2(u).abs() > 1e-9
    assert modes[:, 1:4, 1:4].all()
    assert not modes[:, 4:-3].any()
    assert u.mean(dim=(1, 2)).abs().max() < 1e-12
    assert 0.9 < u.abs().amax() <= 1 + 1e-6
