"""Autoregressive prediction: the semigroup of a linear map, its gradients, its errors."""

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.solvers import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.training import nrmse, nrmse_per_step, rollout, rollout_errors, vrmse


class Fibonacci(nn.Module):
    """The sum of the two past states."""

    def forward(self, u: Tensor) -> Tensor:
        return u.sum(dim=1, keepdim=True)


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, u: Tensor) -> Tensor:
        return self.factor * u


def test_powers_of_a_linear_map():
    u0 = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    trajectory = rollout(Scaled(0.5), u0, 6)
    assert trajectory.shape == (3, 6, 2, 4, 5)
    torch.testing.assert_close(trajectory[:, 5], u0 * 0.5**6, rtol=1e-14, atol=0)
    assert torch.equal(rollout(Scaled(0.5), u0, 6, include_start=True)[:, 0], u0)


def test_gradient_flows_through_all_steps():
    model = Scaled(0.5)
    rollout(model, torch.ones(1, 1, 1, dtype=torch.float64), 4)[:, -1].sum().backward()
    assert model.factor.grad.item() == pytest.approx(4 * 0.5**3, rel=1e-14)


def test_two_past_states():
    u0 = torch.tensor([[[1.0], [1.0]]])
    assert rollout(Fibonacci(), u0, 6).flatten().tolist() == [2, 3, 5, 8, 13, 21]
    assert rollout(Fibonacci(), u0, 2, include_start=True).flatten().tolist() == [1, 2, 3]


def test_errors_grow_as_they_must():
    # The truth keeps u0, the model multiplies by 1.1: relative error 1.1^n - 1.
    u0 = torch.randn(4, 1, 16, dtype=torch.float64)
    truth = u0[:, None].expand(4, 5, 1, 16)
    errors = rollout_errors(Scaled(1.1), u0, truth, domain=Domain.periodic((1.0,)))
    torch.testing.assert_close(errors, 1.1 ** torch.arange(1, 6, dtype=torch.float64) - 1, rtol=1e-12, atol=0)
    assert rollout_errors(Scaled(1.1), u0, truth, reduction="none").shape == (4, 5)


def test_errors_in_another_measure():
    u0 = torch.randn(4, 2, 16, dtype=torch.float64)
    truth = u0[:, None].expand(4, 3, 2, 16)
    domain = Domain.periodic((1.0,))
    predicted = rollout(Scaled(1.1), u0, 3).detach()
    errors = rollout_errors(Scaled(1.1), u0, truth, domain=domain, metric=vrmse, reduction="none")
    torch.testing.assert_close(errors, vrmse(predicted, truth, domain=domain, reduction="none").mean(dim=2))
    errors = rollout_errors(Scaled(1.1), u0, truth, domain=domain, metric=nrmse)
    torch.testing.assert_close(errors, nrmse_per_step(predicted, truth, domain=domain))


@pytest.mark.parametrize("model", [nn.Conv1d(2, 3, 1), nn.Upsample(scale_factor=2)])
def test_states_that_cannot_follow_one_another(model):
    with pytest.raises(ShapeError, match="replace a past state"):
        rollout(model, torch.randn(1, 2, 8), 2)


def test_no_steps():
    with pytest.raises(ArgumentError, match="num_steps"):
        rollout(nn.Identity(), torch.randn(1, 2, 8), 0)
