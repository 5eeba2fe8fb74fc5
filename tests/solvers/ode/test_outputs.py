"""States at inner times: those of dense output, however many steps are looked through together."""

import math

import pytest
import torch

from neuralop_kit.solvers.ode import AutoSwitch, Bosh3, Direct, FixedStep, Replay, odeint, record
from neuralop_kit.solvers.status import Status
from tests.solvers.ode.problems import F64, VanDerPol, several_starts, times
from tests.solvers.ode.test_gradients import distance, gradients

SEVERAL = pytest.mark.parametrize("kept", [0, 200, record.KEPT], ids=["each", "several", "all"])


def own_times(generator):
    """Each sample its own, forward and backward, with times that come twice, first and last among them."""
    inner = torch.rand(9, 4, generator=generator, dtype=F64).sort(dim=0).values
    inner[[0, 8]] = torch.tensor([[0.0], [1.0]], dtype=F64)
    inner[4] = inner[5]
    ends = torch.zeros(1, 4, dtype=F64)
    return torch.cat([ends, inner, ends + 1]) * times(3, -0.5, 1e-3, 0)


@SEVERAL
@pytest.mark.parametrize("method", [Bosh3(), AutoSwitch(stiff_steps=1, nonstiff_steps=1)], ids=["bosh3", "auto"])
def test_they_are_dense_output(method, kept, generator, monkeypatch):
    monkeypatch.setattr(record, "KEPT", kept)
    t = own_times(generator)
    solution = odeint(VanDerPol(20.0), several_starts(4), t, method=method, rtol=1e-4, atol=1e-4, dense=True)
    assert solution.stats.num_rejected.sum() > 0
    for time, y in zip(t, solution.ys, strict=True):
        assert (solution(time) - y).abs().max() < 1e-12


@SEVERAL
@pytest.mark.parametrize("adjoint", [Direct(), Replay(stride=2)], ids=["direct", "replay"])
@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_gradients_do_not_depend_on_how_many_steps_are_kept(adjoint, control, kept, monkeypatch):
    expected = gradients(VanDerPol(force=1.0), Direct(), control=control)
    monkeypatch.setattr(record, "KEPT", kept)
    assert distance(gradients(VanDerPol(force=1.0), adjoint, control=control), expected) < 1e-12


@SEVERAL
def test_times_at_the_very_ends_of_steps(kept, monkeypatch):
    """A time there belongs to the step that it ends: whoever fails in the next one has come so far."""
    monkeypatch.setattr(record, "KEPT", kept)

    def field(t, y):
        return -y * torch.where((t > 0.5) & (y > 1.5), math.nan, 1.0)

    y0 = torch.tensor([[1.0], [3.0], [math.nan]], dtype=F64)
    t = times(0, 0, 0.25, 0.5, 0.75, 1)
    solution = odeint(field, y0, t, controller=FixedStep(0.25))
    assert solution.stats.status.tolist() == [Status.CONVERGED, Status.NOT_FINITE, Status.NOT_FINITE]
    exact = y0[:2, 0] * torch.exp(-t[:, None])
    assert (solution.ys[:, 0, 0] - exact[:, 0]).abs().max() < 1e-6
    assert (solution.ys[:4, 1, 0] - exact[:4, 1]).abs().max() < 1e-6
    assert solution.ys[4:, 1].isnan().all()
    assert solution.ys[:, 2].isnan().all()
