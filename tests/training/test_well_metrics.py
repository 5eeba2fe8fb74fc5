"""The Well's error by wavenumber and its correlation, against loops in numpy; Plancherel; waves of one wavenumber."""

import math

import numpy as np
import pytest
import torch

from neuralop_kit.solvers import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.training import binned_spectral_mse, pearson, rollout_errors, well_bins

SHAPES = [(17,), (12, 12), (9, 14), (5, 6, 7)]


def box(shape) -> Domain:
    return Domain.periodic((2.0,) * len(shape))


def fields(shape, *lead: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    p, t = torch.randn(2, *(lead or (3, 2)), *shape, dtype=torch.float64, generator=generator) + 0.5
    return p, t


def by_loops(u: np.ndarray, edges) -> np.ndarray:
    """Energy of one field per bin, wavenumber by wavenumber."""
    power, energy = np.abs(np.fft.fftn(u)) ** 2, np.zeros(len(edges) - 1)
    for index in np.ndindex(*u.shape):
        signed = [k if k < (n + 1) // 2 else k - n for k, n in zip(index, u.shape, strict=True)]
        omega = math.sqrt(sum((2 * math.pi * k / n) ** 2 for k, n in zip(signed, u.shape, strict=True)))
        for b in range(len(energy)):
            if edges[b] <= omega < edges[b + 1]:
                energy[b] += power[index] / u.size**2
    return energy


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bins", [None, (0.3, 1.1, 2.0)])
def test_energy_per_bin(shape, bins):
    p, t = fields(shape)
    edges = well_bins(shape) if bins is None else bins
    expected = np.array([[by_loops((p - t)[n, c].numpy(), edges) for c in range(2)] for n in range(3)])
    truth = np.array([[by_loops(t[n, c].numpy(), edges) for c in range(2)] for n in range(3)])
    ours = binned_spectral_mse(p, t, bins=bins, reduction="none")
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(binned_spectral_mse(p, t, bins=bins).numpy(), expected.mean(axis=(0, 1)), rtol=1e-12)
    normalized = binned_spectral_mse(p, t, bins=bins, normalized=True, reduction="none")
    np.testing.assert_allclose(normalized.numpy(), expected / (truth + 1e-7), rtol=1e-12)


def test_published_edges():
    # log-spaced from 2 pi/N to pi sqrt(d), of which the first is then zero.
    expected = np.logspace(np.log10(2 * np.pi / 48), np.log10(np.pi * np.sqrt(2) + 1e-6), 4)
    np.testing.assert_allclose(well_bins((32, 48))[1:], expected[1:], rtol=1e-13)
    assert well_bins((32, 48))[0] == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_all_bins_together_are_the_mean_square(shape):
    p, t = fields(shape)
    total = binned_spectral_mse(p, t, reduction="none").sum(dim=-1)
    expected = (p - t).square().mean(dim=tuple(range(2, p.ndim)))
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    # Control: with edges that end at pi, corners of the box are lost, except in one dimension.
    short = binned_spectral_mse(p, t, bins=(0.0, math.pi), reduction="none").sum(dim=-1)
    assert (short < 0.99 * expected).all() or len(shape) == 1


@pytest.mark.parametrize(("k", "found"), [(0, 0), (2, 0), (3, 1), (10, 2), (16, 2)])
def test_a_wave_lies_in_its_bin(k, found):
    # Edges for 32 points: 2 pi/32 times 1 (then zero), 2.52, 6.35, 16.
    x = 2 * torch.pi * torch.arange(32, dtype=torch.float64) / 32
    error = 0.3 * torch.cos(k * x)[None, None]
    expected = torch.zeros(3, dtype=torch.float64)
    expected[found] = 0.09 * (1.0 if k in (0, 16) else 0.5)
    torch.testing.assert_close(binned_spectral_mse(error, torch.zeros_like(error)), expected, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("shape", SHAPES)
def test_correlation_is_numpys(shape):
    p, t = fields(shape)
    expected = [[np.corrcoef(p[n, c].ravel(), t[n, c].ravel())[0, 1] for c in range(2)] for n in range(3)]
    np.testing.assert_allclose(pearson(p, t, reduction="none").numpy(), expected, rtol=1e-11)
    assert pearson(p, t).item() == pytest.approx(np.mean(expected), rel=1e-11)


def test_correlation_is_blind_to_scale_and_offset_only():
    _, t = fields((40,))
    assert pearson(5 * t - 2, t).item() == pytest.approx(1, rel=1e-13)
    assert pearson(-0.1 * t, t).item() == pytest.approx(-1, rel=1e-13)
    assert pearson(t.roll(1, dims=-1), t).item() < 0.9
    assert pearson(torch.ones_like(t), t).isnan()


def test_correlation_weighs_points_by_the_domain():
    domain = Domain.box((1.0,))
    p, t = fields((9,), 1, 1)
    weights = np.full(9, 1 / 8)
    weights[[0, -1]] /= 2
    covariance = np.cov(p.numpy().ravel(), t.numpy().ravel(), aweights=weights, ddof=0)
    expected = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    assert pearson(p, t, domain=domain).item() == pytest.approx(expected, rel=1e-12)
    assert abs(pearson(p, t).item() - expected) > 1e-3


@pytest.mark.parametrize("metric", [binned_spectral_mse, pearson])
def test_frames_are_skipped_and_batches_do_not_matter(metric):
    p, t = fields((9, 14), 5, 4, 2)
    skipped = metric(p, t, domain=box((9, 14)), skip_frames=3, reduction="none")
    assert torch.equal(skipped, metric(p[:, 3:], t[:, 3:], domain=box((9, 14)), reduction="none"))
    whole = metric(p, t, domain=box((9, 14)))
    parts = sum(metric(p[i : i + 1], t[i : i + 1], domain=box((9, 14))) for i in range(5)) / 5
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    with pytest.raises(ShapeError, match="one shape"):
        metric(p, t[:, :, :1], domain=box((9, 14)))


def test_wrong_bins_and_a_rollout():
    p, t = fields((16,))
    with pytest.raises(ArgumentError, match="ascending"):
        binned_spectral_mse(p, t, bins=(0.0, 2.0, 1.0))
    truth = t[:, None].expand(3, 4, 2, 16)
    errors = rollout_errors(torch.nn.Identity(), t, truth, domain=box((16,)), metric=pearson)
    torch.testing.assert_close(errors, torch.ones(4, dtype=torch.float64))
