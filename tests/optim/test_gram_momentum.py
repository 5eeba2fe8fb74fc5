"""Momentum of the Gram family where a control shortens steps."""

import pytest
import torch
from torch import nn

from neuralop_kit.optim import SPRING, GridSearch, Halving
from neuralop_kit.optim.gram.control import Choice, Linearized, StepControl
from neuralop_kit.training.pinn import Burgers1D


def curved(weight: nn.Parameter):
    """Residuals that are far from linear at the start: whole steps are too long."""
    return lambda: torch.cat([10 * (weight[1:] - weight[:1] ** 2), torch.atan(10 * weight[:1] - 5)])


def start() -> nn.Parameter:
    return nn.Parameter(torch.tensor([-1.2, 1.0, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("control", [Halving(), GridSearch()])
def test_what_was_gone_is_remembered_and_not_what_was_proposed(control):
    weight = start()
    optimizer = SPRING([weight], damping=1e-6, momentum=0.8, control=control)
    sizes = []
    for _ in range(6):
        before = weight.detach().clone()
        optimizer.step(curved(weight))
        assert optimizer.info.status == "moved"
        sizes.append(optimizer.info.step_size)
        torch.testing.assert_close(
            before - weight.detach(), optimizer.state[weight]["increment"], rtol=1e-12, atol=1e-15
        )
    # With whole steps alone there would be nothing to tell apart.
    assert min(sizes) < 1.0


class Never(StepControl):
    """Asks for a direction, and stays."""

    def choose(self, problem: Linearized, memory) -> Choice:
        problem.path(problem.filter)
        return Choice(None, 0.0, problem.loss)


def test_a_step_that_stayed_forgets():
    weight, fresh = start(), start()
    optimizer = SPRING([weight], damping=1e-6, momentum=0.8, control=Halving())
    optimizer.step(curved(weight))
    assert "increment" in optimizer.state[weight]
    optimizer.control = Never()
    optimizer.step(curved(weight))
    assert "increment" not in optimizer.state[weight]
    optimizer.control = Halving()
    fresh.data.copy_(weight.detach())
    optimizer.step(curved(weight))
    SPRING([fresh], damping=1e-6, momentum=0.8, control=Halving()).step(curved(fresh))
    assert torch.equal(weight, fresh)


def test_burgers_is_not_left_after_the_first_short_steps():
    torch.manual_seed(0)
    problem = Burgers1D()
    network, points = problem.network(), problem.draw(torch.Generator().manual_seed(0))
    optimizer = SPRING(network.parameters(), momentum=0.5)
    losses = [optimizer.step(lambda: problem.residuals(network, points)).item() for _ in range(40)]
    assert optimizer.info.status == "moved"
    # With the whole proposal remembered it stayed at nine tenths of the first loss for ever.
    assert losses[-1] < 0.1 * losses[0]
