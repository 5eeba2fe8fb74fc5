"""Adjoints that evaluate the field again: on the same terms as the solve, and without traces."""

import pytest
import torch
from torch import nn

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode import Backsolve, Direct, Interpolating, Replay, odeint, rerun
from tests.solvers.ode.problems import F64, several_starts, times
from tests.solvers.ode.test_gradients import distance, everything

AGAIN = {
    "replay": Replay(),
    "checkpointed": Replay(stride=3),
    "interpolating": Interpolating(),
    "backsolve": Backsolve(),
}
BY_ADJOINT = pytest.mark.parametrize("adjoint", AGAIN.values(), ids=AGAIN)


class Field(nn.Module):
    """A network of ``y`` with one more layer inside."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype = F64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 16, bias=False), inner, nn.Tanh(), nn.Linear(16, 2)).to(dtype)

    def forward(self, t, y):
        return self.layers(y) - y


def run(field, adjoint, *, control="joint", loss=everything):
    y0 = several_starts(4).to(next(field.parameters()).dtype).requires_grad_()
    value = loss(odeint(field, y0, times(0, 0.5, 0.6, 2), control=control, rtol=1e-4, atol=1e-4, adjoint=adjoint))
    return torch.autograd.grad(value, [y0, *field.parameters()])


def of_states(solution):
    return solution.ys.square().sum()


@pytest.mark.parametrize("adjoint", [Replay(), Replay(stride=3)], ids=["replay", "checkpointed"])
def test_batch_norm_in_training_mode(adjoint):
    fields = [Field(nn.BatchNorm1d(16)) for _ in range(2)]
    expected, found = (run(field, a) for field, a in zip(fields, (Direct(), adjoint), strict=True))
    assert distance(found, expected) < 1e-12
    for one, other in zip(fields[0].buffers(), fields[1].buffers(), strict=True):
        assert torch.equal(one, other)


@BY_ADJOINT
def test_statistics_are_updated_by_the_solve_alone(adjoint, monkeypatch):
    field = Field(nn.BatchNorm1d(16))
    (counter,) = (b for b in field.buffers() if b.dtype == torch.int64)
    with torch.no_grad():
        stats = odeint(field, several_starts(4), times(0, 0.5, 0.6, 2), control="joint", rtol=1e-4, atol=1e-4).stats
    once = counter.item()
    assert once == stats.num_evaluations[0]
    run(field, adjoint, loss=of_states)
    assert counter.item() == 2 * once
    # Negative control: a second run that restores nothing counts itself.
    monkeypatch.setattr(rerun.Scene, "watched", lambda scene: scene.buffers.clear())
    run(field, adjoint, loss=of_states)
    assert counter.item() > 3 * once


@BY_ADJOINT
def test_buffers_that_stay_are_left_alone(adjoint):
    """Restored in place, they would break the graphs of others that hold them."""
    field = Field(nn.BatchNorm1d(16)).eval()
    versions = [buffer._version for buffer in field.buffers()]
    run(field, adjoint, loss=of_states)
    assert versions == [buffer._version for buffer in field.buffers()]


@BY_ADJOINT
def test_random_fields_are_refused(adjoint):
    with pytest.raises(ArgumentError, match=r"expected a field that .*, got .* random numbers .*; "):
        run(Field(nn.Dropout(0.1)), adjoint)
    run(Field(nn.Dropout(0.1)).eval(), adjoint, loss=of_states)


@BY_ADJOINT
def test_the_backward_pass_sees_the_autocast_of_the_solve(adjoint):
    """Long after its context has ended."""
    seen = []

    class Noting(nn.Identity):
        def forward(self, x):
            seen.append(x.dtype)
            return x

    field, y0 = Field(Noting(), torch.float32), several_starts(4).float()
    with torch.autocast("cpu", torch.bfloat16):
        ys = odeint(field, y0, times(0, 0.5, 1), control="joint", rtol=0.1, atol=0.1, adjoint=adjoint).ys
    assert ys.dtype == torch.float32
    once = len(seen)
    by = torch.autograd.grad(ys.sum(), list(field.parameters()))
    assert len(seen) > once
    assert set(seen) == {torch.bfloat16}
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in by)


@BY_ADJOINT
@pytest.mark.parametrize("what", ["parameter", "state"])
def test_what_was_changed_before_the_backward_pass_is_noticed(adjoint, what):
    """An optimizer's step between both, for example: the second run would be another one."""
    rate = torch.tensor(1.5, dtype=F64, requires_grad=True)
    y0 = torch.ones(2, 1, dtype=F64)
    ys = odeint(lambda t, y: -rate * y, y0, times(0, 1), adjoint=adjoint).ys
    with torch.no_grad():
        (rate if what == "parameter" else y0).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


@BY_ADJOINT
def test_a_field_that_depends_on_nothing_has_the_gradient_of_standing_still(adjoint):
    y0 = several_starts(3).requires_grad_()
    (by_y0,) = torch.autograd.grad(
        odeint(lambda t, y: torch.ones_like(y), y0, times(0, 1), adjoint=adjoint).ys.sum(), y0
    )
    assert torch.equal(by_y0, torch.full_like(y0, 2.0))
