"""Random permeabilities: their laws, and the same function on every grid."""

import math

import pytest
import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.solvers import GaussianRandomField
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.pde import LogNormal, MultiscaleTrigonometric, RandomCheckerboard, TwoPhase

SQUARE = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="vertex")


def banded(domain: Domain) -> GaussianRandomField:
    return GaussianRandomField(domain, alpha=2.0, tau=3.0, boundary="neumann", bandwidth=8)


DISTRIBUTIONS = {
    "two phases": TwoPhase(banded(SQUARE)),
    "log-normal": LogNormal(banded(SQUARE)),
    "checkerboard": RandomCheckerboard(SQUARE, tiles=(3, 5)),
    "trigonometric": MultiscaleTrigonometric(SQUARE),
}
each = pytest.mark.parametrize("law", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(law, batch: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return law.sample(batch, shape, generator=seeded(seed), dtype=torch.float64)


@each
def test_same_function_on_every_grid(law):
    coarse, fine = draw(law, 3, (17, 21)), draw(law, 3, (49, 61))
    common = SQUARE.common_nodes((17, 21), (49, 61))
    torch.testing.assert_close(fine[(..., *common)], coarse, rtol=1e-12, atol=0)


@each
def test_samples_are_positive_fields_of_the_dtype(law):
    for dtype in (torch.float32, torch.float64):
        a = law.sample(4, (12, 15), generator=seeded(), dtype=dtype)
        assert a.shape == (4, 1, 12, 15)
        assert a.dtype == dtype
        assert (a > 0).all()
    assert law.sample(1, (5, 5)).dtype == torch.get_default_dtype()


@each
def test_each_sample_depends_on_its_own_generator(law):
    pair = law.sample(2, (9, 9), generator=[seeded(1), seeded(2)])
    assert torch.equal(pair[1:], law.sample(1, (9, 9), generator=seeded(2)))
    assert not torch.equal(pair[0], pair[1])


def test_two_phases_cover_half_each_on_average():
    a = draw(TwoPhase.fno(SQUARE), 500, (32, 32))
    assert set(a.unique().tolist()) == {3.0, 12.0}
    share = (a == 12).double().mean(dim=(1, 2, 3))
    assert abs(share.mean().item() - 0.5) < 4 * share.std().item() / math.sqrt(500)


def test_phases_are_the_level_sets_of_the_field():
    field = banded(SQUARE)
    a = draw(TwoPhase(field, high=7.0, low=0.5, threshold=0.1), 3, (20, 20))
    assert torch.equal(a == 7.0, draw(field, 3, (20, 20)) >= 0.1)
    assert set(a.unique().tolist()) == {0.5, 7.0}


def test_amplitude_of_the_field_does_not_matter_for_two_phases():
    other = GaussianRandomField(SQUARE, alpha=2.0, tau=3.0, sigma=77.0, boundary="neumann", amplitude="fno2020")
    assert torch.equal(draw(TwoPhase(other), 4, (32, 32)), draw(TwoPhase.fno(SQUARE), 4, (32, 32)))


def test_rough_two_phases_have_more_interface():
    def interface(law) -> float:
        a = draw(law, 100, (64, 64))
        return (a.diff(dim=-1) != 0).double().mean().item()

    assert interface(TwoPhase.rough(SQUARE)) > 1.2 * interface(TwoPhase.fno(SQUARE))
    assert set(draw(TwoPhase.rough(SQUARE), 4, (16, 16)).unique().tolist()) == {2.0, 12.0}


def test_logarithm_is_the_gaussian_field():
    field = banded(SQUARE)
    a = draw(LogNormal(field, median=2.5), 3, (20, 20))
    torch.testing.assert_close((a / 2.5).log(), draw(field, 3, (20, 20)), rtol=0, atol=1e-12)


def test_checkerboard_tiles_are_fair_coins():
    a = draw(RandomCheckerboard(SQUARE, tiles=(4, 4), high=7.0, low=2.0, probability=0.25), 2000, (8, 8))
    tiles = a[..., ::2, ::2]
    assert ((tiles == 7) | (tiles == 2)).all()
    deviation = math.sqrt(0.25 * 0.75 / tiles.numel())
    assert abs((tiles == 7).double().mean().item() - 0.25) < 4 * deviation


def test_trigonometric_coefficient_has_its_bounds_and_its_scales():
    law = MultiscaleTrigonometric(SQUARE, num_scales=2)
    a = draw(law, 50, (65, 65))
    assert a.max() <= 1.5**4
    assert a.min() >= 0.5**4
    # At the origin: cos(0) = 1, sin(0) = 0, so a = 1.5^2 whatever was drawn.
    torch.testing.assert_close(a[..., 0, 0], torch.full((50, 1), 2.25, dtype=torch.float64))


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: TwoPhase(banded(SQUARE), high=-1.0),
        lambda: LogNormal(banded(SQUARE), median=0.0),
        lambda: RandomCheckerboard(SQUARE, tiles=(3,)),
        lambda: RandomCheckerboard(SQUARE, low=0.0),
        lambda: RandomCheckerboard(SQUARE, probability=1.5),
        lambda: MultiscaleTrigonometric(SQUARE, num_scales=0),
        lambda: RandomCheckerboard(SQUARE).sample(2, (8, 8), generator=[seeded()]),
    ],
)
def test_bad_arguments_are_refused(attempt):
    with pytest.raises(ArgumentError, match=r"expected .*, got .*"):
        attempt()


def test_the_formula_needs_two_axes():
    with pytest.raises(DomainError, match="two axes"):
        MultiscaleTrigonometric(Domain.box((1.0,)))
