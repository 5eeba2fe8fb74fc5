"""The comparison of optimizers on physics-informed networks: every one has its row, and broken promises are told."""

import math

import pytest

from benchmarks import Setting
from benchmarks.entries.pinn import CONTESTANTS, PINN, PinnSize, claims, compare, geometric_mean
from neuralop_kit.training.pinn import Heat1D


def test_every_optimizer_has_a_row():
    size = PinnSize(problems=((Heat1D(), 0.02),), num_seeds=2, num_rates=2)
    rows = list(compare(size, Setting()))
    assert [row["optimizer"] for row in rows] == list(CONTESTANTS)
    for row in rows:
        assert set(row) == set(PINN[0].columns)
        assert 0 < row["smallest"] <= row["error"] * (1 + 1e-12)
        assert row["error"] <= row["largest"] * (1 + 1e-12)
    assert {row["at the edge"] for row in rows} == {None, "yes"}


@pytest.mark.parametrize(
    ("gauss_newton", "sven", "adam", "count"),
    [(1e-8, 1e-7, 2e-2, 0), (2e-6, 1e-7, 2e-2, 1), (1e-8, "inf", 2e-2, 1), (1e-8, 1e-7, 1e-3, 1), (1, 1, 1e-9, 3)],
)
def test_broken_promises_are_told(gauss_newton, sven, adam, count):
    errors = {"GaussNewton": gauss_newton, "Sven": sven, "Adam": adam}
    rows = [{"problem": "Poisson2D", "optimizer": name, "smallest": e, "largest": e} for name, e in errors.items()]
    assert len(claims(rows)) == count


def test_mean_of_errors_is_that_of_their_digits():
    assert geometric_mean([1e-2, 1e-4]) == pytest.approx(1e-3)
    assert geometric_mean([1e-2, math.inf]) == math.inf


def test_every_problem_is_a_study_of_its_own():
    problems = [study.full.problems for study in PINN]
    assert [study.name for study in PINN] == [f"optim/pinn/{type(p).__name__}" for ((p, _),) in problems]
    for study, ((problem, _),) in zip(PINN, problems, strict=True):
        assert study.full.num_seeds == 3
        assert ("Published" in study.caption) == bool(problem.published)
        # The promise is about Poisson's equation in two dimensions alone.
        assert (study.check is claims) == (study.quick is not None) == (type(problem).__name__ == "Poisson2D")
