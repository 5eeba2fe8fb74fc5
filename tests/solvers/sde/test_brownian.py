"""The Brownian tree has the law of Brownian motion, is a function of time, and belongs to its seed."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.sde import BrownianTree
from neuralop_kit.solvers.sde.counters import mix
from tests.conftest import SEED

PATHS = 20_000
# Five standard deviations of a sample covariance of independent standard normal numbers; of a variance sqrt(2) times.
FIVE_SIGMA = 5 * math.sqrt(2 / PATHS)


def tree(size: tuple[int, ...] = (PATHS,), *, start: float = 0.0, stop: float = 1.0, depth: int = 18) -> BrownianTree:
    return BrownianTree(start, stop, size, generator=torch.Generator().manual_seed(SEED), depth=depth)


def normalized(path: BrownianTree, times: list[float]) -> Tensor:
    """W and H of neighbouring intervals, divided by their standard deviations, ``(2 * intervals, paths)``."""
    rows = []
    for s, t in itertools.pairwise(times):
        increment = path.increment(s, t)
        rows += [increment.value / (t - s) ** 0.5, increment.area * (12 / (t - s)) ** 0.5]
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("times", "depth"),
    [([0.0, 0.1, 0.13, 0.5, 0.77, 1.0], 18), ([0.0, 0.0625, 0.25, 0.3, 0.5, 0.625, 1.0], 4), ([0.0, 0.4, 1.0], 1)],
    ids=["anywhere", "shallow", "one level"],
)
def test_increments_and_areas_are_independent_with_variances_h_and_h_over_12(times, depth):
    found = torch.cov(normalized(tree(depth=depth), times))
    assert (found - torch.eye(len(found))).abs().max() < FIVE_SIGMA


def test_increments_are_normal():
    rows = normalized(tree(start=-2.0, stop=3.0), [-2.0, -1.3, 0.11, 2.9])
    assert min(stats.kstest(row.numpy(), "norm").pvalue for row in rows) > 1e-4


def test_inside_a_known_interval_the_mean_is_the_one_that_w_and_h_give():
    path = tree()
    whole, part = path.increment(0.0, 1.0), path.increment(0.0, 0.3)
    known = torch.stack([whole.value, whole.area], dim=1)
    weights = torch.linalg.lstsq(known, part.value[:, None]).solution.flatten()
    # x and 6 x (1 - x); the rest has variance x (1 - x) - 3 x^2 (1 - x)^2.
    expected = torch.tensor([0.3, 6 * 0.3 * 0.7], dtype=torch.float64)
    spread = math.sqrt((0.21 - 3 * 0.21**2) / PATHS)
    assert ((weights - expected).abs() < 5 * spread * torch.tensor([1.0, 12**0.5])).all()


def test_bridging_the_area_as_a_second_motion_would_not_fit_together():  # negative control
    """What RSwM does with Z = sqrt(12) H: halves that are both right alone do not recombine to the whole."""
    path = tree()
    whole, left, right = path.increment(0, 1), path.increment(0, 0.5), path.increment(0.5, 1)
    fit = (left.area + right.area) / 2 + (left.value - right.value) / 4
    assert (fit - whole.area).abs().max() < 1e-12
    z = torch.randn(PATHS, dtype=torch.float64) / 2
    naive_left, naive_right = (12**0.5 * whole.area / 2 + sign * z for sign in (1, -1))
    recombined = (naive_left + naive_right) / (2 * 12**0.5) + (left.value - right.value) / 4
    # Half as large as the area itself.
    assert (recombined - whole.area).std() > 0.1


def test_quadratic_variation_is_the_length():
    path = tree((4,))
    values = torch.stack([path.at(k / 1000).value for k in range(1001)])
    variation = values.diff(dim=0).square().sum(dim=0)
    assert (variation - 1).abs().max() < 5 * math.sqrt(2 / 1000)


def test_neighbours_add_up():
    path, s, t, u = tree((50, 3), stop=2.0), 0.123, 0.456789, 1.9
    first, second, both = path.increment(s, t), path.increment(t, u), path.increment(s, u)
    assert torch.allclose(first.value + second.value, both.value, rtol=0, atol=1e-13)
    h, k = t - s, u - t
    area = h * (first.value / 2 + first.area) + k * (first.value + second.value / 2 + second.area)
    assert torch.allclose(area, (u - s) * (both.value / 2 + both.area), rtol=0, atol=1e-12)


def test_a_path_does_not_depend_on_what_was_asked_before():
    path, times = tree((5, 2)), [0.7, 0.1, 0.9, 0.1000001]
    first = [path.at(t).value for t in times]
    again = [path.at(t).value for t in reversed(times)][::-1]
    together = path.at(torch.tensor([0.7, 0.1, 0.9, 0.7, 0.1], dtype=torch.float64)).value
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.allclose(together[:3], torch.stack([first[i][i] for i in range(3)]), rtol=0, atol=1e-14)


def test_a_sample_keeps_its_path_in_a_larger_batch_and_another_seed_gives_another():
    assert torch.allclose(tree((3, 2)).at(0.6).value, tree((8, 2)).at(0.6).value[:3], rtol=0, atol=1e-14)
    other = BrownianTree(0.0, 1.0, (3, 2), generator=torch.Generator().manual_seed(SEED + 1))
    assert (other.at(0.6).value - tree((3, 2)).at(0.6).value).abs().min() > 1e-6


def test_outside_it_is_nan_and_at_the_start_it_is_zero():
    path = tree((2,), start=1.0, stop=2.0)
    assert path.at(0.9).value.isnan().all()
    assert path.at(2.1).area.isnan().all()
    assert torch.equal(path.at(1.0).value, torch.zeros(2, dtype=torch.float64))


def test_the_hash_is_splitmix():
    def reference(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
        return x ^ (x >> 31)

    keys = [0, 1, 2**62 + 12345, 2**64 - 1, 2**63]
    signed = torch.tensor([k - 2**64 if k >= 2**63 else k for k in keys])
    assert [k % 2**64 for k in mix(signed).tolist()] == [reference(k) for k in keys]


@pytest.mark.parametrize(
    "arguments", [(1.0, 1.0, (2,)), (0.0, math.inf, (2,)), (0.0, 1.0, ()), (0.0, 1.0, (0, 3))], ids=str
)
def test_bad_arguments(arguments):
    with pytest.raises(ArgumentError, match="expected"):
        BrownianTree(*arguments)
    with pytest.raises(ArgumentError, match="depth"):
        BrownianTree(0.0, 1.0, (2,), depth=0)
