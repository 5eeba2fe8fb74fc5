"""MultiFrequency: the base at period one, the base on summed gradients at others."""

import pytest
import torch
from torch import nn

from neuralop_kit.optim import Lion, MultiFrequency, Sven
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.optimizer import OptimizerContract, Problem, assert_same_weights


class TestMultiFrequency(OptimizerContract):
    lr = 5e-3
    num_descent = 300
    num_before_save = 4  # in the middle of a period of three

    def make(self, groups, lr, **options):
        groups = list(groups)
        periods = (1, 3)[: len(groups)] if isinstance(groups[0], dict) else (3,)
        return MultiFrequency(Lion(groups, lr, **options), periods)


def steps(optimizer: torch.optim.Optimizer, problem: Problem, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        problem.loss().backward()
        optimizer.step()


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW, Lion])
def test_period_one_is_the_base_bit_by_bit(base):
    ours, plain = Problem(), Problem()
    steps(MultiFrequency(base(ours.parameters(), lr=1e-2), (1,)), ours, 7)
    steps(base(plain.parameters(), lr=1e-2), plain, 7)
    assert_same_weights(ours, plain)


def test_a_slow_group_moves_by_the_sum_of_gradients_at_frozen_weights():
    ours, plain = Problem(), Problem()
    optimizer = MultiFrequency(torch.optim.Adam(ours.parameters(), lr=1e-2), (4,))
    base = torch.optim.Adam(plain.parameters(), lr=1e-2)
    for _ in range(3):
        steps(optimizer, ours, 4)
        base.zero_grad()
        for _ in range(4):
            plain.loss().backward()  # torch sums in p.grad
        base.step()
    assert_same_weights(ours, plain)


def test_between_its_steps_a_slow_group_stands_still_and_gradients_are_left_alone():
    problem = Problem()
    groups = [{"params": problem.real_weights()}, {"params": problem.complex_weights()}]
    optimizer = MultiFrequency(torch.optim.SGD(groups, lr=1e-2), (1, 3))
    for count in range(1, 7):
        before = [p.detach().clone() for p in problem.complex_weights()]
        fast = problem.wide.detach().clone()
        optimizer.zero_grad()
        problem.loss().backward()
        gradients = [p.grad.clone() for p in problem.parameters()]
        optimizer.step()
        moved = any(not torch.equal(p, b) for p, b in zip(problem.complex_weights(), before, strict=True))
        assert moved == (count % 3 == 0)
        assert not torch.equal(problem.wide, fast)
        assert all(torch.equal(p.grad, g) for p, g in zip(problem.parameters(), gradients, strict=True))


def test_schedulers_see_the_groups_of_the_base():
    weight = nn.Parameter(torch.ones(1))
    optimizer = MultiFrequency(torch.optim.SGD([weight], lr=1.0), (2,))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    optimizer.step()
    schedule.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.1)


def test_one_cycle_turns_the_betas_of_the_base():
    weight = nn.Parameter(torch.ones(1))
    optimizer = MultiFrequency(torch.optim.Adam([weight]), (2,))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    weight.grad = torch.ones(1)
    optimizer.step()
    schedule.step()
    assert optimizer.base.param_groups[0]["betas"][0] < 0.95


def test_gradients_come_back_where_the_base_raises():
    weight = nn.Parameter(torch.ones(1))
    optimizer = MultiFrequency(torch.optim.SGD([weight], lr=1.0), (2,))
    optimizer.base.step = lambda: 1 / 0
    weight.grad = gradient = torch.ones(1)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    assert weight.grad is gradient


def test_state_of_a_bare_base_is_refused():
    weight = nn.Parameter(torch.ones(1))
    optimizer = MultiFrequency(torch.optim.SGD([weight], lr=1.0), (2,))
    with pytest.raises(ArgumentError, match="state dict"):
        optimizer.load_state_dict(optimizer.base.state_dict())


def test_bad_arguments():
    weight = nn.Parameter(torch.ones(2))
    for base, periods in [
        (torch.optim.SGD([weight], lr=1.0), (1, 2)),
        (torch.optim.SGD([weight], lr=1.0), (0,)),
        (Sven([weight]), (1,)),
    ]:
        with pytest.raises(ArgumentError, match="expected"):
            MultiFrequency(base, periods)
