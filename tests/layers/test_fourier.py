"""Transforms along one axis: matrices and FFTs do the same, and there and back is the identity on kept modes."""

import itertools

import pytest
import torch

from neuralop_kit.layers.fourier import DenseDFT, FastDFT, Line, dense_is_cheaper

LINES = [
    Line(n, highest, offset, one_sided)
    for n, offset, one_sided in itertools.product((1, 2, 3, 8, 9, 16), (0.0, 0.5), (True, False))
    for highest in range(n // 2 + 1)
]


def values_and_modes(line):
    generator = torch.Generator().manual_seed(line.num_points)
    values = torch.randn(3, line.parts * line.num_points, 4, generator=generator, dtype=torch.float64)
    modes = torch.randn(3, 2 * line.num_modes, 4, generator=generator, dtype=torch.float64)
    return values, modes


@pytest.mark.parametrize("line", LINES, ids=str)
def test_fft_equals_matrix(line):
    values, modes = values_and_modes(line)
    dense, fast = DenseDFT(line), FastDFT(line)
    torch.testing.assert_close(fast.to_modes(values), dense.to_modes(values), rtol=0, atol=1e-13)
    torch.testing.assert_close(fast.to_points(modes), dense.to_points(modes), rtol=0, atol=1e-12)


@pytest.mark.parametrize("leaf", [DenseDFT, FastDFT])
@pytest.mark.parametrize("line", [line for line in LINES if not line.one_sided and 2 * line.highest < line.num_points])
def test_modes_survive_the_way_to_points_and_back(line, leaf):
    modes = values_and_modes(line)[1]
    transform = leaf(line)
    torch.testing.assert_close(transform.to_modes(transform.to_points(modes)), modes, rtol=0, atol=1e-13)


@pytest.mark.parametrize("leaf", [DenseDFT, FastDFT])
@pytest.mark.parametrize("line", [line for line in LINES if line.highest == line.num_points // 2])
def test_points_survive_the_way_to_modes_and_back(line, leaf):
    """All modes of a grid, its Nyquist mode included, say everything about its values."""
    values = values_and_modes(line)[0]
    transform = leaf(line)
    back = transform.to_points(transform.to_modes(values))
    if line.one_sided:
        # The sum adds the complex conjugate, so that the mean is there twice.
        back = back - values.mean(dim=1, keepdim=True)
    torch.testing.assert_close(back, values, rtol=0, atol=1e-13)


def test_single_precision_matrices_are_rounded_once():
    # Angles are reduced in integers, in float64: the last bit of the entries is right also for high wavenumbers.
    line = Line(1 << 14, 1 << 12, 0.5, one_sided=True)
    rows = line.synthesis()[[5, 9999]]
    exact = [[complex(wave(k, j, line.num_points)) for k in (1, 4095)] for j in (5, 9999)]
    assert abs(rows[:, [1, 4095]] - exact).max() < 1e-15


def wave(k, j, num_points):
    """exp(2 pi i k (j + 1/2) / N) with the angle reduced by exact arithmetic."""
    from cmath import exp, pi
    from fractions import Fraction

    turns = Fraction(k * (2 * j + 1), 2 * num_points) % 1
    return exp(2j * pi * float(turns))


def test_cost_rises_with_modes_and_matrices_win_when_few_are_kept():
    for n, one_sided, rest in itertools.product((8, 64, 1024), (True, False), (1, 16)):
        choices = [dense_is_cheaper(Line(n, m, 0.0, one_sided), rest) for m in range(n // 2 + 1)]
        assert choices[0]
        assert choices == sorted(choices, reverse=True)
    assert not dense_is_cheaper(Line(4096, 1024, 0.0, True), 1)
