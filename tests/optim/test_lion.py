"""Lion: the published rule, its phase form, its cautious form."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from neuralop_kit.optim import Lion
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.gradient_optimizer import GradientContract
from tests.contracts.optimizer import Problem, assert_same_weights


class LionRule:
    """Algorithm 2 of the paper, entry by entry; a complex number is two reals, or one with a phase."""

    def __init__(self, lr: float, weight_decay: float, *, phase: bool = False) -> None:
        self.lr, self.weight_decay, self.phase, self.momentum = lr, weight_decay, phase, 0.0

    def step(self, weight: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        mixed = 0.9 * self.momentum + 0.1 * gradient
        self.momentum = 0.99 * self.momentum + 0.01 * gradient
        if np.iscomplexobj(mixed):
            sign = mixed / abs(mixed) if self.phase else np.sign(mixed.real) + 1j * np.sign(mixed.imag)
        else:
            sign = np.sign(mixed)
        return weight - self.lr * (sign + self.weight_decay * weight)


class TestLion(GradientContract):
    lr = 1e-2
    foreach = True
    variants = ({}, {"phase": True})
    phase_options: ClassVar[dict[str, Any]] = {"phase": True}

    def make(self, groups, lr, **options):
        return Lion(groups, lr, **options)

    def reference(self, lr, weight_decay, **options):
        return LionRule(lr, weight_decay, **options)

    def test_signs_of_parts_do_not_turn_with_the_phase(self):
        # Negative control for the test of phases: without phase=True it must fail.
        self.phase_options = {}
        with pytest.raises(AssertionError):
            self.test_step_turns_with_the_phase()

    def test_every_weight_moves_by_the_rate(self):
        weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
        optimizer = Lion([weight], 1e-3)
        for scale in (1.0, 1e-8, 1e8):
            before = weight.detach().clone()
            weight.grad = scale * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
            optimizer.step()
            torch.testing.assert_close(before - weight.detach(), torch.full_like(before, 1e-3), rtol=1e-9, atol=0)

    def test_the_size_of_gradients_does_not_matter(self):
        small, large, opposite = Problem(), Problem(), Problem()
        for problem, factor in ((small, 1e-3), (large, 1e5), (opposite, -1.0)):
            optimizer = self.optimizer(problem)
            for _ in range(5):
                optimizer.zero_grad()
                (factor * problem.loss()).backward()
                optimizer.step()
        assert_same_weights(small, large)
        assert not torch.equal(small.wide, opposite.wide)

    def test_cautious_keeps_agreeing_entries_and_the_mean(self):
        weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        optimizer = Lion([weight], 1e-3, cautious=True)
        weight.grad = torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
        for _ in range(50):
            optimizer.step()
        before = weight.detach().clone()
        # The momentum (0.39) still rules the sign of the last entry, whose gradient has turned.
        weight.grad = torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
        optimizer.step()
        expected = 1e-3 * torch.tensor([4 / 3, 4 / 3, 4 / 3, 0.0], dtype=torch.float64)
        torch.testing.assert_close(before - weight.detach(), expected, rtol=1e-12, atol=1e-15)

    def test_betas_outside_the_range_are_refused(self):
        with pytest.raises(ArgumentError, match="betas"):
            Lion([nn.Parameter(torch.ones(1))], betas=(0.9, 1.0))
