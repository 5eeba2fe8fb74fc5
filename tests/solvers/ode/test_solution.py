"""The report of an integrator: failures are named, and a missing interpolant is said to be missing."""

import pytest
import torch

from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError
from neuralop_kit.solvers.ode import Solution, Statistics
from neuralop_kit.solvers.status import Status


def statistics(*status: Status) -> Statistics:
    count = torch.zeros(len(status), dtype=torch.int64)
    row = torch.zeros(0, len(status))
    return Statistics(count, count, count, torch.tensor(status), row, row, row, row, row.bool())


def test_failed_samples_are_named():
    stats = statistics(Status.CONVERGED, Status.NOT_FINITE, Status.STEP_UNDERFLOW)
    assert stats.converged.tolist() == [True, False, False]
    with pytest.raises(ConvergenceError, match=r"expected .*sample 1: NOT_FINITE, sample 2: STEP_UNDERFLOW.*; "):
        stats.raise_if_failed()
    statistics(Status.CONVERGED).raise_if_failed()


def test_dense_output_must_be_asked_for():
    solution = Solution(torch.zeros(2), torch.zeros(2, 1), statistics(Status.CONVERGED), torch.zeros(1), torch.zeros(1))
    with pytest.raises(ArgumentError, match=r"expected .*, got .*; "):
        solution(torch.tensor(0.5))
