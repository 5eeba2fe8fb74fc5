"""NVRM: noise around clean weights, and never inside them."""

import copy
import io

import pytest
import scipy.stats
import torch
from torch import nn

from neuralop_kit.optim import NVRM, Gaussian, Laplace, Lion, Uniform
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.gradient_optimizer import GradientContract
from tests.contracts.optimizer import Problem, assert_same_weights

BASES = {
    "sgd": lambda params: torch.optim.SGD(params, 0.05),
    "momentum": lambda params: torch.optim.SGD(params, 0.05, momentum=0.9, weight_decay=0.1),
    "adam": lambda params: torch.optim.Adam(params, 0.01),
    "lion": lambda params: Lion(params, 1e-3, weight_decay=0.1),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestNVRM(GradientContract):
    """The contract, on Lion with little noise."""

    foreach = True
    weight_copies = ("clean",)
    not_compiled = "torch does not write back what a compiled step sets on the optimizer: here, the number of the step"

    def make(self, groups, lr, **options):
        return NVRM(Lion(groups, lr, **options), b=1e-3, generator=generator())

    def finish(self, optimizer):
        optimizer.eval()


def advance(optimizer, problem, count=1):
    for _ in range(count):
        optimizer.zero_grad()
        problem.loss().backward()
        optimizer.step()


@pytest.mark.parametrize("base", BASES)
def test_without_noise_every_bit_is_that_of_the_base(base):
    problem, other = Problem(), Problem()
    wrapped, plain = NVRM(BASES[base](problem.parameters()), b=0.0), BASES[base](other.parameters())
    advance(wrapped, problem, 10)
    advance(plain, other, 10)
    assert_same_weights(problem, other)


@pytest.mark.parametrize("base", BASES)
def test_clean_weights_follow_the_base_with_gradients_at_noisy_ones(base):
    problem, other = Problem(), Problem()
    wrapped, plain = (
        NVRM(BASES[base](problem.parameters()), b=0.05, generator=generator()),
        BASES[base](other.parameters()),
    )
    for _ in range(8):
        noisy = copy.deepcopy(problem)
        advance(wrapped, problem)
        noisy.zero_grad()
        noisy.loss().backward()
        for p, q in zip(other.parameters(), noisy.parameters(), strict=True):
            p.grad = q.grad
        plain.step()
        with wrapped.clean():
            assert_same_weights(problem, other)
        assert not torch.equal(problem.wide, other.wide)


def test_noise_comes_back_bit_by_bit():
    problem = Problem()
    optimizer = NVRM(torch.optim.SGD(problem.parameters(), 0.1), b=0.1, generator=generator())
    advance(optimizer, problem, 3)
    noisy = copy.deepcopy(problem)
    optimizer.eval()
    clean = copy.deepcopy(problem)
    assert not torch.equal(noisy.wide, clean.wide)
    optimizer.eval()
    assert_same_weights(problem, clean)
    optimizer.train()
    optimizer.train()
    assert_same_weights(problem, noisy)


@pytest.mark.parametrize("evaluating", [False, True])
def test_checkpoint_holds_the_clean_weights(evaluating):
    problem = Problem()
    optimizer = NVRM(torch.optim.Adam(problem.parameters(), 0.05), b=0.1, generator=generator())
    advance(optimizer, problem, 3)
    if evaluating:
        optimizer.eval()
    file = io.BytesIO()
    torch.save({"weights": problem.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = Problem(seed=4)
    other.load_state_dict(saved["weights"])
    resumed = NVRM(torch.optim.Adam(other.parameters(), 0.9), b=0.7, generator=generator(9))
    advance(resumed, other, 2)  # its own noise must not survive either
    other.load_state_dict(saved["weights"])
    resumed.load_state_dict(saved["optimizer"])
    assert_same_weights(problem, other)
    for one in (optimizer, resumed):
        one.train()
    advance(optimizer, problem, 3)
    advance(resumed, other, 3)
    assert_same_weights(problem, other)
    optimizer.eval()
    resumed.eval()
    assert_same_weights(problem, other)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_the_authors_with_the_same_noise(momentum):
    # There the base moves noisy weights, and the difference of two noises is added.
    problem, theirs = Problem(), Problem()
    optimizer = NVRM(torch.optim.SGD(problem.parameters(), 0.05, momentum=momentum), b=0.05, generator=generator())
    base = torch.optim.SGD(theirs.parameters(), 0.05, momentum=momentum)
    noises = [torch.zeros_like(p) for p in theirs.parameters()]
    for _ in range(10):
        advance(optimizer, problem)
        noisy = [p.detach().clone() for p in problem.parameters()]
        with optimizer.clean():
            fresh = [p - q.detach() for p, q in zip(noisy, problem.parameters(), strict=True)]
        advance(base, theirs)
        with torch.no_grad():
            for p, new, old in zip(theirs.parameters(), fresh, noises, strict=True):
                p.add_(new - old)
        noises = fresh
        for p, q in zip(problem.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    assert max(noise.abs().max() for noise in noises) > 0.1


def test_noise_that_is_added_and_subtracted_would_drift():
    # Negative control: the authors' way, in float32.
    weight, clean = torch.ones(1000), torch.ones(1000)
    draws = generator()
    for _ in range(300):
        noise = 0.01 * torch.randn(1000, generator=draws)
        weight.add_(noise).sub_(noise)
    assert not torch.equal(weight, clean)


@pytest.mark.parametrize(
    ("noise", "law"),
    [
        (Gaussian(), scipy.stats.norm()),
        (Laplace(), scipy.stats.laplace()),
        (Uniform(), scipy.stats.uniform(-1, 2)),
    ],
)
def test_noise_has_the_law_it_names(noise, law):
    weight = nn.Parameter(torch.zeros(50_000, dtype=torch.float64))
    optimizer = NVRM(torch.optim.SGD([weight], 0.1), b=0.25, noise=noise, generator=generator(1))
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    draws = weight.detach().numpy() / 0.25
    assert scipy.stats.kstest(draws, law.cdf).pvalue > 1e-3
    assert draws.var() == pytest.approx(law.var(), rel=0.03)
    # Power: a scale wrong by 5 % does not pass.
    assert scipy.stats.kstest(1.05 * draws, law.cdf).pvalue < 1e-3


def test_mean_loss_under_noise_is_the_loss_and_half_the_trace():
    # E L(theta + e) - L(theta) = b^2 / 2 tr H on a quadratic: here 0.5 x^T diag(1..20) x with trace 210.
    curvature = torch.arange(1.0, 21.0, dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(20, dtype=torch.float64))
    optimizer = NVRM(torch.optim.SGD([weight], 0.0), b=0.1, generator=generator())
    losses = []
    for _ in range(4000):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        losses.append(0.5 * (curvature * weight.detach().square()).sum())
    losses = torch.stack(losses)
    expected = 0.5 * 0.1**2 * 210
    deviation = (losses.mean() - expected) / (losses.std() / len(losses) ** 0.5)
    assert abs(deviation.item()) < 4


def test_groups_and_schedules_are_those_of_the_base():
    problem = Problem()
    base = torch.optim.SGD(problem.parameters(), 0.1)
    optimizer = NVRM(base, b=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    advance(optimizer, problem)
    scheduler.step()
    assert base.param_groups[0]["lr"] == 0.05
    extra = nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": [extra]})
    assert len(base.param_groups) == len(optimizer.param_groups) == 2


def test_one_cycle_turns_the_betas_of_the_base():
    weight = nn.Parameter(torch.ones(2))
    base = torch.optim.Adam([weight])
    optimizer = NVRM(base, b=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    weight.grad = torch.ones(2)
    optimizer.step()
    scheduler.step()
    assert base.param_groups[0]["betas"][0] < 0.95


def test_bad_values_are_refused():
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ArgumentError, match="b >= 0"):
        NVRM(torch.optim.SGD([weight], 0.1), b=-0.1)
    with pytest.raises(ArgumentError, match="expected an optimizer"):
        NVRM([weight], b=0.1)
