"""Contour integrals: the truncated pseudo-inverse without eigenvectors, and the cases that are left to these."""

import numpy as np
import pytest
import torch
from scipy.linalg import lapack
from torch import Tensor

from neuralop_kit.optim.gram import eigen
from neuralop_kit.optim.gram.contour import _midpoints, cut_inverse
from neuralop_kit.optim.gram.eigen import TridiagonalEigenvectors

DOUBLE = {"dtype": torch.float64}


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues."""
    n = len(values)
    basis = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), **DOUBLE)).Q
    matrix = (basis * values) @ basis.T
    return (matrix + matrix.T) / 2


def random_vector(n: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(1), **DOUBLE)


def refuse(*args: object) -> None:
    raise AssertionError("expected no eigenvectors, got a call for them")


def joined(*parts: Tensor) -> Tensor:
    return torch.cat([part.double() for part in parts])


# Eigenvalues, the threshold as a part of the largest, and how many are above.
SPECTRA = {
    "decaying": (torch.logspace(0, -9, 129, **DOUBLE), 1.1e-3, 43),
    "one kept": (joined(torch.ones(1), torch.linspace(1e-5, 1e-3, 99)), 1e-2, 1),
    "one dropped": (joined(torch.linspace(0.1, 1.0, 99), torch.full((1,), 0.04)), 0.05, 99),
    "of low rank": (joined(torch.linspace(0.01, 1.0, 40), torch.zeros(60)), 1e-5, 40),
    "a narrow gap": (joined(torch.linspace(1.003, 2.0, 40), torch.linspace(0.1, 0.997, 60)), 0.5, 40),
    "clustered": (joined(torch.ones(30), torch.full((40,), 0.2), torch.full((30,), 1e-3)), 0.01, 70),
    "none dropped, unseen by the bound": (torch.linspace(0.05, 1.0, 128, **DOUBLE), 0.01, 128),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_truncated_inverse_without_eigenvectors(spectrum, monkeypatch):
    values, above, rank = SPECTRA[spectrum]
    matrix, b = symmetric(values), random_vector(len(values))
    expected = torch.linalg.pinv(matrix, rtol=above, hermitian=True) @ b
    monkeypatch.setattr(eigen.lapack, "dstevd", refuse)
    found = TridiagonalEigenvectors(matrix).inverse(b, above=above)
    assert found is not None
    # Vectors on both sides of a gap are known to a rounding error over the gap.
    tolerance = 1e-10 if spectrum == "a narrow gap" else 1e-11
    assert (found[0] - expected).norm() < tolerance * expected.norm()
    assert found[1] == rank


@pytest.mark.parametrize("distance", [-1e-4, -1e-12, 1e-12, 1e-4])
def test_values_next_to_the_threshold_are_left_to_eigenvectors(distance):
    values = joined(torch.linspace(0.2, 1.0, 60), torch.full((1,), 0.1 * (1 + distance)), torch.linspace(0, 0.05, 19))
    vectors = TridiagonalEigenvectors(symmetric(values))
    assert vectors.inverse(random_vector(80), above=0.1) is None
    assert TridiagonalEigenvectors(symmetric(values)).inverse(random_vector(80), above=0.15) is not None


def test_few_rows_and_known_vectors_need_no_contour():
    values = torch.logspace(0, -4, 80, **DOUBLE)
    assert TridiagonalEigenvectors(symmetric(values[:20])).inverse(random_vector(20), above=0.7) is None
    vectors = TridiagonalEigenvectors(symmetric(values))
    b, cut = random_vector(80), 1.1e-2
    found = vectors.inverse(b, above=cut)
    factors = torch.where(vectors.values > cut, 1 / vectors.values, 0.0)
    assert found is not None
    assert vectors.inverse(b, above=cut) is None
    expected = vectors.combination(factors * vectors.coefficients(b))
    assert (found[0] - expected).norm() < 1e-11 * expected.norm()


def test_zero_has_no_inverse():
    assert cut_inverse(np.zeros(70), np.zeros(69), np.ones(70), above=0.1) is None


def rational(points: np.ndarray, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (weights / np.subtract.outer(x, points)).sum(axis=-1).real


@pytest.mark.parametrize("high", [1.004, 1.1, 10.0])
def test_midpoints_give_reciprocals_above_and_zero_below(high):
    points, weights = _midpoints(1.0, high, 1e6)
    above, below = np.geomspace(high, 1e6, 500), np.linspace(-1.0, 1.0, 501)
    assert np.abs(above * rational(points, weights, above) - 1).max() < 1e-12
    assert np.abs(rational(points, weights, below)).max() < 1e-12
    # Every other point of a rule, alone, is one of half as many digits or fewer.
    assert np.abs(rational(points[::2], 2 * weights[::2], below)).max() > 1e-9


def test_an_indicator_times_the_inverse_would_divide_by_zeros():
    values, above, _ = SPECTRA["of low rank"]
    vectors = TridiagonalEigenvectors(symmetric(values))
    d, e, b = vectors.diagonal, vectors.beside, random_vector(len(values)).numpy()
    found = cut_inverse(d, e, b, above=above)
    w, z, _ = lapack.dstevd(d, e)
    expected = z @ (np.where(w > above, 1 / w, 0.0) * (z.T @ b))
    points, weights = _midpoints(0.005, 0.0099, 2.0)
    # 1 where kept and 0 where dropped, up to rounding, over values that are rounding too.
    kept, at_zero = rational(points, weights * points, w), rational(points, weights * points, np.zeros(1))
    naive = z @ ((kept - at_zero) / w * (z.T @ b))
    assert found is not None
    assert np.linalg.norm(found[0] - expected) < 1e-11 * np.linalg.norm(expected)
    assert np.linalg.norm(naive - expected) > 1e-3 * np.linalg.norm(expected)
