"""Eigenvectors as reflections: the same functions of a matrix as with eigenvectors as a matrix."""

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.optim import FixedStep, Sven
from neuralop_kit.optim.gram.eigen import MatrixEigenvectors, TridiagonalEigenvectors, eigenvectors


def symmetric(values: Tensor, generator: torch.Generator) -> Tensor:
    """A matrix with these eigenvalues."""
    n = len(values)
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    matrix = (basis * values) @ basis.T
    return (matrix + matrix.T) / 2


SPECTRA = {
    "decaying": lambda n: torch.logspace(0, -9, n, dtype=torch.float64),
    "clustered": lambda n: 1.0 + (torch.arange(n) % 2).double(),
    "of low rank": lambda n: (torch.arange(n) < n // 2).double(),
    "zero": lambda n: torch.zeros(n, dtype=torch.float64),
}


@pytest.mark.parametrize("size", [3, 4, 33, 128])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_reflections_and_matrix_agree(size, spectrum):
    generator = torch.Generator().manual_seed(size)
    matrix = symmetric(SPECTRA[spectrum](size), generator)
    b = torch.randn(size, generator=generator, dtype=torch.float64)
    before = matrix.clone()
    vectors, expected = TridiagonalEigenvectors(matrix), torch.linalg.eigh(matrix)
    assert torch.equal(matrix, before)
    assert (vectors.values - expected.eigenvalues).abs().max() < 1e-13
    coefficients = vectors.coefficients(b)
    assert (vectors.combination(coefficients) - b).norm() < 1e-13 * b.norm()
    assert (vectors.combination(vectors.values * coefficients) - matrix @ b).norm() < 1e-12 * b.norm()
    assert vectors.coefficients(b).norm().item() == pytest.approx(b.norm().item(), rel=1e-13)


def test_a_cut_in_a_gap_gives_the_pseudo_inverse():
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.linspace(1e-6, 1e-4, 40), torch.linspace(0.1, 1.0, 60)]).double()
    matrix, b = symmetric(values, generator), torch.randn(100, generator=generator, dtype=torch.float64)
    vectors = TridiagonalEigenvectors(matrix)
    found = vectors.combination(torch.where(vectors.values > 0.01, 1 / vectors.values, 0.0) * vectors.coefficients(b))
    expected = torch.linalg.pinv(matrix, rtol=0.01, hermitian=True) @ b
    assert (found - expected).norm() < 1e-12 * expected.norm()


def test_small_matrices_and_such_with_nan_go_to_torch():
    assert isinstance(eigenvectors(torch.eye(2, dtype=torch.float64)), MatrixEigenvectors)
    assert isinstance(eigenvectors(torch.eye(3, dtype=torch.float64)), TridiagonalEigenvectors)
    with pytest.raises(torch.linalg.LinAlgError):
        eigenvectors(torch.full((4, 4), float("nan"), dtype=torch.float64))


def test_one_row_and_two_rows_are_solved():
    for rows in (1, 2, 3):
        weight = nn.Parameter(torch.ones(5, dtype=torch.float64))
        matrix = torch.randn(rows, 5, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)
        Sven([weight], lr=1.0, rtol=1e-3, control=FixedStep()).step(lambda m=matrix, w=weight: m @ w - 1.0)
        assert (matrix @ weight - 1.0).abs().max() < 1e-12
