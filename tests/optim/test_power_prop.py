"""Steps on the roots of weights: those of autograd through the power, and a preconditioner to first order."""

import copy
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from neuralop_kit.optim import Lion, PowerProp, PowerPropSGD, Sven
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.gradient_optimizer import GradientContract
from tests.contracts.optimizer import Problem, assert_same_weights
from tests.optim.test_lion import LionRule


class Rule:
    def __init__(self, lr, weight_decay, alpha=2.0):
        self.lr, self.decay, self.alpha = lr, lr * weight_decay, alpha

    def step(self, weight, gradient):
        if np.iscomplexobj(weight):
            return self.step(weight.real, gradient.real) + 1j * self.step(weight.imag, gradient.imag)
        theta = weight * (1 - self.decay)
        phi = np.sign(theta) * np.abs(theta) ** (1 / self.alpha)
        phi = phi - self.lr * self.alpha * np.abs(phi) ** (self.alpha - 1) * gradient
        return np.sign(phi) * np.abs(phi) ** self.alpha


class TestPowerPropSGD(GradientContract):
    lr = 0.1
    num_descent = 400
    variants = ({}, {"alpha": 3.0}, {"alpha": 1.0})

    def make(self, groups, lr, **options):
        return PowerPropSGD(groups, lr, **options)

    def reference(self, lr, weight_decay, **options):
        return Rule(lr, weight_decay, **options)


class LionOnRoots(LionRule):
    """What Lion adds, done to the roots; a complex number is two reals."""

    def step(self, weight, gradient):
        change = super().step(weight, gradient) - weight
        if np.iscomplexobj(weight):
            return self.moved(weight.real, change.real) + 1j * self.moved(weight.imag, change.imag)
        return self.moved(weight, change)

    def moved(self, theta, change):
        phi = np.cbrt(theta)
        return (phi + 3 * phi**2 * change) ** 3


class TestPowerProp(GradientContract):
    """The contract, on Lion."""

    lr = 3e-4
    foreach = True
    num_descent = 500
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    def make(self, groups, lr, **options):
        return PowerProp(Lion(groups, lr, **options), alpha=3.0)

    def reference(self, lr, weight_decay, **options):
        return LionOnRoots(lr, weight_decay)


def stepped(start: torch.Tensor, lr: float, alpha: float) -> torch.Tensor:
    weight = nn.Parameter(start.clone())
    optimizer = PowerPropSGD([weight], lr, alpha=alpha)
    weight.sin().sum().backward()
    optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("alpha", [1.5, 2.0, 4.0])
def test_equals_autograd_through_the_power(alpha):
    theta = torch.randn(20, dtype=torch.float64)
    phi = (theta.sign() * theta.abs() ** (1 / alpha)).requires_grad_()
    (phi * phi.abs() ** (alpha - 1)).sin().sum().backward()
    expected = phi.detach() - 0.01 * phi.grad
    torch.testing.assert_close(stepped(theta, 0.01, alpha), expected * expected.abs() ** (alpha - 1))


@pytest.mark.parametrize("alpha", [1.5, 3.0])
def test_is_the_printed_preconditioner_to_first_order(alpha):
    theta = torch.randn(20, dtype=torch.float64)
    rest = []
    for lr in (1e-3, 5e-4):
        printed = theta - lr * alpha**2 * theta.abs() ** (2 * (alpha - 1) / alpha) * theta.cos()
        rest.append((stepped(theta, lr, alpha) - printed).norm())
    assert rest[0] / rest[1] == pytest.approx(4.0, rel=0.02)


def test_one_is_gradient_descent_and_zero_is_absorbing():
    theta = torch.tensor([0.5, -2.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(stepped(theta, 0.1, 1.0), theta - 0.1 * theta.cos())
    assert stepped(theta, 0.1, 2.0)[2] == 0.0


def test_alpha_below_one_is_refused():
    with pytest.raises(ArgumentError, match="alpha >= 1"):
        PowerPropSGD([nn.Parameter(torch.ones(2))], alpha=0.5)


def advance(optimizer: torch.optim.Optimizer, problem: Problem, num_steps: int) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        problem.loss().backward()
        optimizer.step()


BASES = {
    "sgd": lambda groups: torch.optim.SGD(groups, 0.05),
    "momentum": lambda groups: torch.optim.SGD(groups, 0.05, momentum=0.9, weight_decay=0.1),
    "adamw": lambda groups: torch.optim.AdamW(groups, 0.01),
    "lion": lambda groups: Lion(groups, 1e-2, weight_decay=0.1),
}


@pytest.mark.parametrize("base", BASES)
def test_power_one_is_the_base_bit_by_bit(base):
    problem, other, roots = Problem(), Problem(), Problem()
    advance(PowerProp(BASES[base](problem.parameters()), alpha=1.0), problem, 10)
    advance(BASES[base](other.parameters()), other, 10)
    advance(PowerProp(BASES[base](roots.parameters())), roots, 10)
    assert_same_weights(problem, other)
    assert not torch.equal(roots.wide, other.wide)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 4.0])
def test_around_gradient_descent_it_is_gradient_descent_on_the_roots(alpha):
    problem, other = Problem(), Problem()
    advance(PowerProp(torch.optim.SGD(problem.parameters(), 0.05), alpha), problem, 20)
    advance(PowerPropSGD(other.parameters(), 0.05, alpha=alpha), other, 20)
    for a, b in zip(problem.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("base", BASES)
def test_steps_are_those_of_the_base_times_the_preconditioner_to_first_order(base):
    # The steps of the base shrink with the rate, and what is left shrinks with their squares.
    alpha, rest = 3.0, []
    for scale in (1e-3, 5e-4):
        problem, plain = Problem(), Problem()
        optimizers = [PowerProp(BASES[base](problem.parameters()), alpha), BASES[base](plain.parameters())]
        for optimizer, p in zip(optimizers, (problem, plain), strict=True):
            optimizer.param_groups[0]["lr"] *= scale
            advance(optimizer, p, 1)
        start, power = Problem(), 2 * (alpha - 1) / alpha
        rest.append(sum(
            (q - p - alpha**2 * p.abs() ** power * (r - p)).norm().item()
            for p, q, r in zip(start.parameters(), problem.parameters(), plain.parameters(), strict=True)
        ))  # fmt: skip
    assert rest[0] / rest[1] == pytest.approx(4.0, rel=0.02)


def test_groups_have_powers_of_their_own_and_survive_a_checkpoint():
    weights, bias = nn.Parameter(torch.tensor([1.0, 0.0])), nn.Parameter(torch.zeros(2))
    base = torch.optim.SGD([{"params": [weights]}, {"params": [bias], "power": 1.0}], lr=0.125)
    optimizer = PowerProp(base, alpha=2.0)
    resumed = PowerProp(torch.optim.SGD([{"params": [weights]}, {"params": [bias]}], lr=1.0), alpha=3.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    (weights.sum() + bias.sum()).backward()
    resumed.step()
    assert weights.tolist() == [0.5625, 0.0]
    assert bias.tolist() == [-0.125, -0.125]
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert [group["power"] for group in base.param_groups] == [2.0, 1.0, 2.0]
    # A bare base knows of no power.
    bare = torch.optim.SGD([{"params": [weights]}, {"params": [bias]}], lr=0.5)
    optimizer = PowerProp(torch.optim.SGD([{"params": [weights]}, {"params": [bias]}], lr=1.0), alpha=3.0)
    optimizer.load_state_dict(bare.state_dict())
    assert [(group["lr"], group["power"]) for group in optimizer.param_groups] == [(0.5, 3.0)] * 2


def test_bases_and_powers_that_do_not_fit_are_refused():
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ArgumentError, match=r"steps from p\.grad"):
        PowerProp(Sven([weight]))
    with pytest.raises(ArgumentError, match="power >= 1"):
        PowerProp(torch.optim.SGD([weight], 0.1), alpha=0.5)
