"""Momentum as a memory: both rules against numpy, and what they have in common with plain momentum."""

import numpy as np
import pytest
import torch
from torch import nn

from neuralop_kit.optim import DeepMomentum, DeltaMomentum
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.gradient_optimizer import GradientContract


def rows_of(array: np.ndarray) -> np.ndarray:
    """One row per output; complex numbers as pairs of reals."""
    pairs = np.stack([array.real, array.imag], axis=-1) if np.iscomplexobj(array) else array
    return pairs.reshape(pairs.shape[0] if pairs.ndim > 1 else 1, -1).copy()


def moved(weight: np.ndarray, change: np.ndarray, decay: float) -> np.ndarray:
    pairs = np.stack([weight.real, weight.imag], axis=-1) if np.iscomplexobj(weight) else weight
    pairs = pairs * (1 - decay) + change.reshape(pairs.shape)
    return pairs[..., 0] + 1j * pairs[..., 1] if np.iscomplexobj(weight) else pairs


class DeltaRule:
    def __init__(self, lr, weight_decay, rate=0.5):
        self.lr, self.decay, self.rate, self.memory = lr, lr * weight_decay, rate, None

    def step(self, weight, gradient):
        g = rows_of(gradient)
        memory = np.zeros_like(g) if self.memory is None else self.memory
        eye = np.eye(g.shape[1])
        self.memory = memory @ (0.9 * eye - self.rate * g.T @ g / np.sum(g**2)) - g
        return moved(weight, self.lr * self.memory, self.decay)


class DeepRule:
    """The inner slopes by central differences of the printed objective: nothing here knows the chain rule."""

    def __init__(self, lr, weight_decay, width=5):
        self.lr, self.decay, self.width, self.keys = lr, lr * weight_decay, width, None

    def step(self, weight, gradient):
        g = rows_of(gradient)
        size = np.sqrt(np.mean(g**2))
        u = g / size
        if self.keys is None:
            generator = torch.Generator().manual_seed(0)
            keys = torch.randn(self.width, g.shape[1], generator=generator, dtype=torch.float64)
            self.keys = self.first = (keys / keys.norm(dim=1, keepdim=True)).numpy()
            self.values = np.zeros((g.shape[1], self.width))

        def objective(keys, values):
            return np.mean(np.sum(u * (np.tanh(u @ keys.T) @ values.T), axis=1)) / g.shape[1]

        keys, values = self.keys, self.values
        keys_slope = slope(lambda k: objective(k, values), keys)
        values_slope = slope(lambda v: objective(keys, v), values)
        self.values = 0.9 * values - 0.5 * values_slope
        self.keys = 0.9 * keys + 0.1 * self.first - 0.5 * keys_slope
        return moved(weight, self.lr * size * np.tanh(u @ self.keys.T) @ self.values.T, self.decay)


def slope(function, x: np.ndarray) -> np.ndarray:
    """By complex steps: exact to rounding, for functions without branches."""
    result = np.empty_like(x)
    for index in np.ndindex(x.shape):
        shifted = x.astype(complex)
        shifted[index] += 1e-40j
        result[index] = function(shifted).imag / 1e-40
    return result


class TestDeltaMomentum(GradientContract):
    lr = 0.1
    num_descent = 200
    variants = ({}, {"rate": 0.0}, {"rate": 1.0})

    def make(self, groups, lr, **options):
        return DeltaMomentum(groups, lr, **options)

    def reference(self, lr, weight_decay, **options):
        return DeltaRule(lr, weight_decay, **options)


class TestDeepMomentum(GradientContract):
    lr = 0.2
    num_descent = 300
    variants = ({"width": 5},)

    def make(self, groups, lr, **options):
        return DeepMomentum(groups, lr, **options)

    def reference(self, lr, weight_decay, **options):
        return DeepRule(lr, weight_decay, **options)


def test_without_forgetting_it_is_heavy_ball():
    a, b = (nn.Parameter(torch.ones(3, 2, dtype=torch.float64)) for _ in range(2))
    ours, plain = DeltaMomentum([a], 0.1, rate=0.0), torch.optim.SGD([b], 0.1, momentum=0.9)
    for _ in range(5):
        for weight, optimizer in ((a, ours), (b, plain)):
            optimizer.zero_grad()
            weight.pow(4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(a, b, rtol=1e-14, atol=0)


def test_full_forgetting_answers_a_repeated_gradient_with_that_gradient_alone():
    weight = nn.Parameter(torch.zeros(1, 3))
    optimizer = DeltaMomentum([weight], 1.0, alpha=0.5, rate=0.5)
    for _ in range(5):
        before = weight.detach().clone()
        weight.grad = torch.tensor([[0.0, 2.0, 0.0]])
        optimizer.step()
        # alpha - rate = 0: the memory holds one gradient, where plain momentum would add up 1 + 1/2 + 1/4 + ...
        torch.testing.assert_close(weight.detach() - before, torch.tensor([[0.0, -2.0, 0.0]]))


@pytest.mark.parametrize("make", [
    lambda p: DeltaMomentum(p, alpha=1.0),
    lambda p: DeltaMomentum(p, rate=1.5),
    lambda p: DeepMomentum(p, rate=0.0),
    lambda p: DeepMomentum(p, width=0),
])  # fmt: skip
def test_bad_arguments(make):
    with pytest.raises(ArgumentError, match="expected"):
        make([nn.Parameter(torch.ones(2))])
