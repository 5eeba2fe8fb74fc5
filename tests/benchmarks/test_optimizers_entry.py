"""The optimizers' entry: what a step keeps counts as its memory, on both sides."""

import torch

from benchmarks.entries.optimizers import OptimizerStep, RegressionCase, adam_step, residual_step, sven


def test_what_an_optimizer_keeps_between_steps_counts():
    inputs = RegressionCase(batch=8).inputs(torch.Generator().manual_seed(0))
    adam, ours = adam_step(), residual_step(sven)
    weights = 4 * sum(weight.numel() for group in adam.optimizer.param_groups for weight in group["params"])
    assert OptimizerStep().held_bytes(adam) == 0
    for step in (adam, ours):
        step(*inputs)
    held = OptimizerStep().held_bytes(adam)
    # Gradients and two moments, and a counter for each tensor.
    assert held == 3 * weights + 4 * 8
    assert OptimizerStep().held_bytes(ours) == 0
