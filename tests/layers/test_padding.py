"""Padding: what the leaves say about the function beyond its walls."""

import numpy as np
import pytest

from neuralop_kit.layers import FourierContinuation, ReflectionPadding, ZeroPadding
from neuralop_kit.registry import decode, encode
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.nodes import PLACEMENTS

CONTINUOUS = [ReflectionPadding(), *(FourierContinuation(degree=degree) for degree in range(1, 6))]
placements = pytest.mark.parametrize("nodes", ["vertex", "interior", "cell"])


def nodes_of(placement, num_points: int) -> np.ndarray:
    """Positions in spacings."""
    return np.arange(num_points) + placement.offset


@placements
@pytest.mark.parametrize("padding", CONTINUOUS)
def test_strip_joins_both_walls(padding, nodes):
    placement = PLACEMENTS[nodes]
    u = np.exp(nodes_of(placement, 64) / 64)
    ends = padding.on_strip(placement, 64, np.array([0.0, 16.0]), 16.0) @ u
    walls = np.exp(np.array([placement.num_intervals(64) / 64, 0.0]))
    # Exact where walls are nodes, else extrapolated: linearly by mirror images, with error (3/8 or 1) h^2 u''.
    tolerance = 1e-12 if nodes == "vertex" else 1.1 * walls / 64**2
    assert (abs(ends - walls) <= tolerance).all()


@placements
@pytest.mark.parametrize("padding", CONTINUOUS)
def test_constants_are_continued_as_themselves(padding, nodes):
    matrix = padding.on_strip(PLACEMENTS[nodes], 20, np.linspace(0, 5, 7), 5.0)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-10)


def test_zeros_are_zeros():
    # Negative control of the two tests above.
    assert not ZeroPadding().on_strip(PLACEMENTS["vertex"], 20, np.linspace(0, 5, 7), 5.0).any()


@placements
def test_mirror_images_are_the_values_at_mirrored_nodes(nodes):
    placement = PLACEMENTS[nodes]
    first = 1 - placement.offset
    beyond = ReflectionPadding().beyond_wall(placement, 9, first + np.arange(5))
    skipped = 1 if nodes == "vertex" else 0
    if nodes == "interior":
        np.testing.assert_allclose(beyond[0, :3], [2, -1, 0])  # the wall itself
        np.testing.assert_allclose(beyond[1:], np.eye(9)[:4])
    else:
        np.testing.assert_allclose(beyond, np.eye(9)[skipped : skipped + 5])


@placements
def test_mirror_images_never_exceed_the_field(nodes):
    placement = PLACEMENTS[nodes]
    matrix = ReflectionPadding().on_strip(placement, 20, np.linspace(0.5, 4.5, 7), 5.0)
    largest = abs(matrix).sum(axis=1).max()
    # Next to interior nodes, a wall value 2 u_1 - u_2 may.
    assert largest <= (3.0 if nodes == "interior" else 1.0 + 1e-12)


@placements
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_polynomials_are_continued_as_themselves(degree, nodes):
    placement = PLACEMENTS[nodes]
    x = nodes_of(placement, 40) / 40
    distance = np.array([0.0, 0.7, 3.0])
    # A cubic interpolant finds the value at the wall, hence at most third powers are exact away from vertex nodes.
    power = degree if nodes == "vertex" else min(degree, 3)
    beyond = FourierContinuation(degree=degree).beyond_wall(placement, 40, distance)
    np.testing.assert_allclose(beyond @ (1 + x) ** power, (1 - distance / 40) ** power, atol=1e-9)


@pytest.mark.parametrize(("degree", "largest"), [(1, 4), (2, 13), (3, 48), (4, 180), (5, 660)])
def test_amplification_is_what_the_docstring_says(degree, largest):
    behind = np.linspace(0, 64, 129)
    matrix = FourierContinuation(degree=degree).on_strip(PLACEMENTS["vertex"], 257, behind, 64.0)
    assert 0.8 * largest <= abs(matrix).sum(axis=1).max() <= largest


def test_truncated_series_of_a_continued_function():
    # Largest error of exp on [0, 1] from 16 modes to either side: slow decay after a jump, faster after a kink.
    placement, u = PLACEMENTS["vertex"], np.exp(np.linspace(0, 1, 129))
    errors = []
    for padding in (ZeroPadding(), ReflectionPadding(), FourierContinuation()):
        longer = np.concatenate([u, padding.on_strip(placement, 129, np.arange(1.0, 32.0), 32.0) @ u])
        modes = np.fft.rfft(longer)
        modes[17:] = 0
        errors.append(abs(np.fft.irfft(modes, n=len(longer)) - longer)[:129].max())
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 0.1 * errors[1]
    assert errors[2] < 1e-3


@placements
@pytest.mark.parametrize("padding", [ZeroPadding(0.3), *CONTINUOUS])
def test_few_points_are_enough(padding, nodes):
    for num_points in range(5, 12):
        matrix = padding.on_strip(PLACEMENTS[nodes], num_points, np.array([0.0, 0.5, 1.0]), 1.0)
        assert np.isfinite(matrix).all()


@pytest.mark.parametrize("padding", [ZeroPadding(), ReflectionPadding(0.5), FourierContinuation(0.5, 3)])
def test_a_config_remembers_the_padding(padding):
    assert decode(encode(padding)) == padding


@pytest.mark.parametrize(
    "attempt", [lambda: ZeroPadding(0.0), lambda: ReflectionPadding(1.5), lambda: FourierContinuation(0.25, 9)]
)
def test_bad_arguments_are_refused(attempt):
    with pytest.raises(ArgumentError, match="expected"):
        attempt()
