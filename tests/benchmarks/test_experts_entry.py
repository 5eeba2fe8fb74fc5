"""The study of experts at a size that teaches nothing: all columns are there, and broken promises are named."""

import pytest

from benchmarks import Setting
from benchmarks.entries.experts import ACCURACY, ExpertsSize, broken_promises, compare


@pytest.fixture(scope="module")
def rows():
    size = ExpertsSize(points=24, times=11, collocation=160, steps=1, num_seeds=1, num_tests=2)
    return list(compare(size, Setting()))


def test_rows_have_the_columns_of_the_table(rows):
    for row in rows:
        assert set(row) == set(ACCURACY.columns)
    assert rows[0]["jump"] is None  # a penalty has no experts
    assert rows[1]["jump"] == 0.0


def test_promises_are_checked_in_both_columns(rows):
    better = [dict(row) for row in rows]
    for row in better:
        row["error"] = row["extrapolated"] = {"soft": 6.0, "global": 1.6}.get(row["physics"], 1.0)
    assert broken_promises(better) == []
    better[1]["extrapolated"] = 1.4
    assert broken_promises(better) == ["extrapolated: global over experts is 1.40, promised 1.5"]
