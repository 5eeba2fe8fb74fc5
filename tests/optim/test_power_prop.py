"""PowerPropSGD is gradient descent on the roots, and a preconditioner to first order."""

import numpy as np
import pytest
import torch
from torch import nn

from neuralop_kit.optim import PowerPropSGD
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.gradient_optimizer import GradientContract


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
