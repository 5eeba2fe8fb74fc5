"""Metrics against their published definitions, written out here with loops and numpy."""

import math

import numpy as np
import pytest
import torch

from neuralop_kit.solvers import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.training import (
    apebench_curve,
    apebench_score,
    boundary_rmse,
    crmse,
    error_shells,
    frmse_bands,
    max_error,
    nrmse,
    nrmse_per_step,
    pdebench_scores,
    rmse,
    vrmse,
    window_means,
)

METRICS = (rmse, nrmse, vrmse, crmse, max_error, boundary_rmse, frmse_bands)
BOX = {1: Domain.periodic((2.0,)), 2: Domain.periodic((2.0, 0.5)), 3: Domain.periodic((2.0, 0.5, 1.0))}
SHAPES = {1: (40,), 2: (28, 34), 3: (26, 27, 28)}


def trajectories(dims: int = 1, batch: int = 3, time: int = 2, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (batch, time, channels, *SHAPES[dims])
    return torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)


def pdebench_shells(error: np.ndarray, volume: float) -> np.ndarray:
    """sqrt(mean over samples of squared coefficients, summed per shell) / num_points * volume, for (sample, *space)."""
    shape = error.shape[1:]
    if len(shape) == 1:
        squares = np.abs(np.fft.rfft(error, axis=1)) ** 2
    else:
        power = np.abs(np.fft.fftn(error, axes=range(1, error.ndim))) ** 2
        squares = np.zeros((len(error), min(shape) // 2))
        for index in np.ndindex(*(n // 2 for n in shape)):
            s = math.floor(math.sqrt(sum(k * k for k in index)))
            if s < squares.shape[1]:
                squares[:, s] += power[(slice(None), *index)]
    return np.sqrt(squares.mean(axis=0)) / math.prod(shape) * volume


class TestPDEBench:
    """Averages over samples (N), channels (C) and times (T) as in its ``metrics.py``."""

    def test_nrmse_is_a_mean_of_ratios(self):
        p, t = trajectories(2)
        expected = np.mean([
            math.sqrt(((p[n, k, c] - t[n, k, c]) ** 2).mean()) / math.sqrt((t[n, k, c] ** 2).mean())
            for n in range(3) for k in range(2) for c in range(2)
        ])  # fmt: skip
        assert nrmse(p, t, domain=BOX[2]).item() == pytest.approx(expected, rel=1e-13)

    def test_crmse_over_the_whole_set(self):
        p, t = trajectories(2)
        sums = (p - t).sum(dim=(-1, -2))
        expected = sums.square().mean(dim=0).sqrt().mean() / math.prod(SHAPES[2])
        ours = crmse(p, t, domain=BOX[2], reduction="none").square().mean(dim=0).sqrt().mean()
        assert ours.item() == pytest.approx(expected.item(), rel=1e-12)

    def test_max_error_over_the_whole_set(self):
        p, t = trajectories(1)
        expected = np.mean([(p - t).abs()[:, k, c].max().item() for k in range(2) for c in range(2)])
        ours = max_error(p, t, domain=BOX[1], reduction="none").amax(dim=0).mean()
        assert ours.item() == pytest.approx(expected, rel=1e-15)

    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_boundary_rmse(self, dims):
        p, t = trajectories(dims, time=1)
        e = (p - t).numpy()[:, 0]
        total, count = 0.0, 0
        for axis in range(2, e.ndim):
            for end in (0, -1):
                face = np.take(e, end, axis=axis)
                total = total + (face**2).reshape(3, 2, -1).sum(axis=-1)
                count += face[0, 0].size
        expected = np.sqrt(total / count).mean()
        assert boundary_rmse(p, t, domain=BOX[dims]).item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_fourier_bands_of_one_sample(self, dims):
        p, t = trajectories(dims, batch=1, time=1, channels=1)
        shells = pdebench_shells((p - t).numpy()[:, 0, 0], BOX[dims].measure)
        expected = [shells[:4].mean(), shells[4:12].mean(), shells[12:].mean()]
        np.testing.assert_allclose(frmse_bands(p, t, domain=BOX[dims]).numpy(), expected, rtol=1e-12)

    def test_fourier_bands_over_the_whole_set(self):
        p, t = trajectories(2, batch=5, time=1, channels=1)
        shells = pdebench_shells((p - t).numpy()[:, 0, 0], BOX[2].measure)
        ours = error_shells(p, t, domain=BOX[2]).mean(dim=0).sqrt()[0, 0]
        np.testing.assert_allclose(ours.numpy(), shells, rtol=1e-12)

    @pytest.mark.parametrize(("num_frames", "skip", "factor"), [(41, 10, 41 / 31), (21, 10, 21 / 11), (2, 1, 2.0)])
    def test_input_frames_scored_as_predictions_flatter_by_the_known_factor(self, num_frames, skip, factor):
        t = torch.randn(4, num_frames, 1, 16, dtype=torch.float64)
        p = 1.3 * t
        p[:, :skip] = t[:, :skip]
        honest, flattered = (nrmse(p, t, domain=BOX[1], skip_frames=s).item() for s in (skip, 0))
        assert honest == pytest.approx(0.3, rel=1e-12)
        assert honest / flattered == pytest.approx(factor, rel=1e-12)

    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_a_row_of_its_table(self, dims):
        p, t = trajectories(dims, batch=3, time=2, channels=2)
        e, box = (p - t).numpy(), BOX[dims]
        space = tuple(range(3, e.ndim))
        shells = np.stack([[pdebench_shells(e[:, k, c], box.measure) for c in range(2)] for k in range(2)])
        edges = [np.take(e, end, axis=axis) for axis in space for end in (0, -1)]
        squares = sum((edge**2).reshape(3, 2, 2, -1).sum(axis=-1) for edge in edges)
        squares = squares / sum(edge[0, 0, 0].size for edge in edges)
        expected = {
            "RMSE": np.sqrt((e**2).mean(axis=space)).mean(),
            "nRMSE": (np.sqrt((e**2).mean(axis=space)) / np.sqrt((t.numpy() ** 2).mean(axis=space))).mean(),
            "cRMSE": np.sqrt((e.sum(axis=space) ** 2).mean(axis=0)).mean() / math.prod(SHAPES[dims]),
            "max": np.abs(e).max(axis=(0, *space)).mean(),
            "bRMSE": np.sqrt(squares.sum(axis=2) if dims == 3 else squares).mean(),
            "fRMSE low": shells[..., :4].mean(),
            "fRMSE mid": shells[..., 4:12].mean(),
            "fRMSE high": shells[..., 12:].mean(),
        }
        assert pdebench_scores(p, t, domain=box) == pytest.approx(expected, rel=1e-12)

    def test_a_coarse_grid_has_no_high_band(self):
        with pytest.raises(ShapeError, match="coarser bands"):
            pdebench_scores(torch.zeros(1, 1, 16), torch.ones(1, 1, 16), domain=BOX[1])


class TestTheWell:
    def test_windows_of_a_rollout(self):
        errors = torch.rand(5, 40, dtype=torch.float64)
        expected = torch.stack([errors[:, 6:12].mean(1), errors[:, 13:30].mean(1)], dim=1)
        assert torch.equal(window_means(errors), expected)
        with pytest.raises(ShapeError, match="30 steps"):
            window_means(errors[:, :29])

    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_vrmse_by_its_formula(self, dims):
        p, t = (field.numpy() for field in trajectories(dims))
        each = [
            math.sqrt(((p[i] - t[i]) ** 2).mean() / (t[i].var(ddof=1) + 1e-7)) for i in np.ndindex(*p.shape[:3])
        ]  # fmt: skip
        ours = vrmse(torch.from_numpy(p), torch.from_numpy(t), domain=BOX[dims])
        assert ours.item() == pytest.approx(np.mean(each), rel=1e-12)

    @pytest.mark.parametrize("shape", [(7,), (8, 9)])
    def test_predicting_the_spatial_mean(self, shape):
        t = torch.randn(5, 2, *shape, dtype=torch.float64) + 3
        mean = t.mean(dim=tuple(range(2, t.ndim)), keepdim=True).expand_as(t)
        n = math.prod(shape)
        assert vrmse(mean, t).item() == pytest.approx(math.sqrt((n - 1) / n), abs=1e-6)

    def test_constant_target_is_saved_by_the_epsilon(self):
        t = torch.ones(1, 1, 8, dtype=torch.float64)
        assert vrmse(1.1 * t, t).item() == pytest.approx(0.1 / math.sqrt(1e-7), rel=1e-12)


class TestAPEBench:
    def test_curve_by_its_formula(self):
        p, t = (field.numpy() for field in trajectories(2, batch=4, time=3, channels=2))
        expected = np.zeros(3)
        for n, k, c in np.ndindex(4, 3, 2):
            expected[k] += np.linalg.norm(p[n, k, c] - t[n, k, c]) / np.linalg.norm(t[n, k, c]) / 4
        ours = apebench_curve(torch.from_numpy(p), torch.from_numpy(t), domain=BOX[2])
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-13)

    def test_score_is_a_geometric_mean_over_a_hundred_steps(self):
        curve = torch.rand(2, 130, dtype=torch.float64) + 0.1
        expected = np.prod(curve.numpy()[:, :100] ** (1 / 100), axis=1)
        np.testing.assert_allclose(apebench_score(curve).numpy(), expected, rtol=1e-12)

    def test_what_is_not_a_rollout(self):
        with pytest.raises(ShapeError, match="trajectory"):
            apebench_curve(torch.ones(2, 1, 8), torch.ones(2, 1, 8), domain=BOX[1])
        with pytest.raises(ShapeError, match="roll out further"):
            apebench_score(torch.ones(99))


class TestEveryMetric:
    @pytest.mark.parametrize("metric", METRICS)
    def test_perfect_prediction_scores_zero(self, metric):
        t = torch.randn(3, 2, 32)
        assert metric(t, t).abs().max() == 0

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("dims", [1, 2])
    def test_nothing_depends_on_the_batch_size(self, metric, dims):
        p, t = trajectories(dims, batch=5)
        whole = metric(p, t, domain=BOX[dims])
        parts = [metric(p[i : i + 2], t[i : i + 2], domain=BOX[dims]) * len(p[i : i + 2]) for i in (0, 2, 4)]
        torch.testing.assert_close(sum(parts) / 5, whole, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("metric", METRICS)
    def test_frames_are_skipped(self, metric):
        p, t = trajectories(1, time=4)
        skipped = metric(p, t, domain=BOX[1], skip_frames=3, reduction="none")
        assert torch.equal(skipped, metric(p[:, 3:], t[:, 3:], domain=BOX[1], reduction="none"))

    @pytest.mark.parametrize("metric", METRICS)
    def test_broadcasting_is_refused(self, metric):
        with pytest.raises(ShapeError, match="one shape"):
            metric(torch.ones(2, 1, 32), torch.ones(2, 2, 32))

    @pytest.mark.parametrize("metric", METRICS)
    def test_trajectory_without_domain_has_no_frames_to_skip(self, metric):
        with pytest.raises(ArgumentError, match="skip"):
            metric(torch.ones(2, 4, 1, 32), torch.ones(2, 4, 1, 32), skip_frames=1)


def test_zero_prediction_has_nrmse_one():
    assert nrmse(torch.zeros(2, 1, 9), torch.randn(2, 1, 9).double()).item() == pytest.approx(1, rel=1e-15)


def test_weights_remove_the_double_count_of_the_ends():
    # p - t = 1 at the left wall only; the trapezoid gives the wall half a cell of the 8.
    domain = Domain.box((1.0,))
    t = torch.ones(1, 1, 9, dtype=torch.float64)
    p = t.clone()
    p[..., 0] += 1
    assert nrmse(p, t, domain=domain).item() == pytest.approx(math.sqrt(0.5 / 8), rel=1e-14)
    assert nrmse(p, t).item() == pytest.approx(math.sqrt(1 / 9), rel=1e-14)


def test_error_per_step_of_a_known_growth():
    t = torch.randn(6, 5, 2, 16, dtype=torch.float64)
    growth = 0.1 * 2.0 ** torch.arange(5, dtype=torch.float64)
    curve = nrmse_per_step(t * (1 + growth[:, None, None]), t, domain=BOX[1])
    torch.testing.assert_close(curve, growth, rtol=1e-12, atol=0)
    with pytest.raises(ShapeError, match="trajectory"):
        nrmse_per_step(t[:, 0], t[:, 0], domain=BOX[1])


@pytest.mark.parametrize(("k", "band"), [(0, 0), (3, 0), (4, 1), (11, 1), (12, 2), (19, 2)])
def test_one_cosine_falls_into_its_band_with_the_analytic_value(k, band):
    # |rfft| of cos(2 pi k x / L) is n/2 at bin k (n at k = 0); over n and times L = 2; averaged over the band's bins.
    n, bins = 40, (4, 8, 40 // 2 + 1 - 12)
    x = torch.arange(n, dtype=torch.float64) / n
    error = 0.7 * torch.cos(2 * torch.pi * k * x)[None, None]
    bands = frmse_bands(error, torch.zeros_like(error), domain=BOX[1])
    expected = torch.zeros(3, dtype=torch.float64)
    expected[band] = 0.7 * 2.0 * (1.0 if k == 0 else 0.5) / bins[band]
    torch.testing.assert_close(bands, expected, rtol=1e-12, atol=1e-15)


def test_coarse_grid_has_no_high_band():
    with pytest.raises(ShapeError, match="coarser bands"):
        frmse_bands(torch.ones(1, 1, 16, 16), torch.zeros(1, 1, 16, 16))
