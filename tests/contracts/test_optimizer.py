"""The optimizer contract itself: an honest optimizer passes, each broken one fails the test that is meant for it."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit

from neuralop_kit.optim import KitOptimizer
from tests.contracts.gradient_optimizer import GradientContract


class Momentum(KitOptimizer):
    """An honest optimizer: heavy ball with decoupled decay."""

    def __init__(self, params, lr=0.1, *, weight_decay=0.0, maximize=False, complex_weights=False):
        defaults = {"lr": lr, "weight_decay": weight_decay, "maximize": maximize, "complex_weights": complex_weights}
        super().__init__(params, defaults)

    def init_state(self, parameter, group):
        return {"momentum": torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32))}

    def update(self, group, parameters, gradients, states):
        for parameter, gradient, state in zip(parameters, gradients, states, strict=True):
            self.move(group, parameter, gradient, state)

    def move(self, group, parameter: Tensor, gradient: Tensor, state) -> None:
        state["momentum"].mul_(0.9).add_(gradient)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * state["momentum"])


class MomentumRule:
    def __init__(self, lr, weight_decay):
        self.lr, self.weight_decay, self.momentum = lr, weight_decay, 0.0

    def step(self, weight, gradient):
        self.momentum = 0.9 * self.momentum + gradient
        return weight * (1 - self.lr * self.weight_decay) - self.lr * self.momentum


class TestHonest(GradientContract):
    lr = 0.2
    optimizer_class = Momentum

    def make(self, groups, lr, **options):
        return self.optimizer_class(groups, lr, **options)

    def reference(self, lr, weight_decay, **options):
        return MomentumRule(lr, weight_decay)


class ForgetsItsState(Momentum):
    """Keeps the momentum where no checkpoint sees it."""

    def move(self, group, parameter, gradient, state):
        self.hidden = getattr(self, "hidden", {})
        memory = self.hidden.setdefault(id(parameter), torch.zeros_like(parameter))
        super().move(group, parameter, gradient, {"momentum": memory})


class CastsItsState(Momentum):
    """Loads as torch does: every state in the dtype of its parameter."""

    def load_state_dict(self, state_dict):
        torch.optim.Optimizer.load_state_dict(self, state_dict)


class SharesTheFile(Momentum):
    """Goes on in the memory of what it was given."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        states = list(state_dict["state"].values())
        for parameter, state in zip((p for g in self.param_groups for p in g["params"]), states, strict=False):
            self.state[parameter] = state


class UsesTheGradientAsMemory(Momentum):
    def move(self, group, parameter, gradient, state):
        gradient.add_(state["momentum"], alpha=0.9)
        state["momentum"].copy_(gradient)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(gradient, alpha=-group["lr"])


class HidesBadGradients(Momentum):
    def move(self, group, parameter, gradient, state):
        super().move(group, parameter, gradient.nan_to_num(posinf=0.0, neginf=0.0), state)


class SpreadsBadGradients(Momentum):
    def update(self, group, parameters, gradients, states):
        scale = sum(g.square().sum() for g in gradients).sqrt() * 0 + 1
        super().update(group, parameters, [g * scale for g in gradients], states)


class DecaysTwice(Momentum):
    def move(self, group, parameter, gradient, state):
        parameter.mul_(1 - 1e-9 * group["weight_decay"])
        super().move(group, parameter, gradient, state)


class FirstRateForAll(Momentum):
    def move(self, group, parameter, gradient, state):
        super().move({**group, "lr": self.param_groups[0]["lr"]}, parameter, gradient, state)


class MovesFrozenWeights(Momentum):
    def update_group(self, group):
        super().update_group(group)
        for parameter in group["params"]:
            parameter.mul_(1 - 1e-6)


class DrawsFromNowhere(Momentum):
    draws = torch.Generator()

    def move(self, group, parameter, gradient, state):
        noise = torch.randn(gradient.shape, generator=self.draws).to(gradient.dtype)
        super().move(group, parameter, gradient + 1e-6 * noise, state)


class ReadsTheRate(Momentum):
    """Takes it as an option of an operation, which is a number."""

    def move(self, group, parameter, gradient, state):
        super().move({**group, "lr": 0.0}, parameter, gradient, state)
        parameter.add_(state["momentum"], alpha=-group["lr"])


class CompilesForOneRate(ReadsTheRate):
    """The same with the rate as it is in its group, a number, which then is part of the graph."""

    def move(self, group, parameter, gradient, state):
        rates = [g["lr"] for g in self.param_groups if any(p is parameter for p in g["params"])]
        super().move({**group, "lr": rates[0]}, parameter, gradient, state)


BROKEN = [
    (ForgetsItsState, "test_saved_and_loaded_run_is_the_same_run"),
    (CastsItsState, "test_bfloat16_weights_have_float32_states"),
    (SharesTheFile, "test_loading_does_not_share_memory_with_the_file"),
    (UsesTheGradientAsMemory, "test_gradients_are_left_alone"),
    (HidesBadGradients, "test_a_gradient_that_is_not_finite_is_never_hidden"),
    (SpreadsBadGradients, "test_a_bad_gradient_does_not_harm_other_weights"),
    (DecaysTwice, "test_rule_is_the_published_one"),
    (FirstRateForAll, "test_a_group_with_rate_zero_stays"),
    (MovesFrozenWeights, "test_weights_without_gradient_are_left_alone"),
    (DrawsFromNowhere, "test_two_runs_are_the_same"),
    (ReadsTheRate, "test_a_rate_in_a_tensor_is_never_read"),
    (CompilesForOneRate, "test_compiled_step_equals_the_plain_one"),
]


@pytest.mark.parametrize(("broken", "test"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_broken_optimizer_fails(broken, test):
    suite = TestHonest()
    suite.optimizer_class = broken
    with pytest.raises((AssertionError, KeyError, FailOnRecompileLimitHit)):
        getattr(suite, test)()
