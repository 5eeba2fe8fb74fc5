"""NodePerturbation: unbiased for layers and for all other weights, with the variance that it promises."""

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.optim import SPSA, NodePerturbation, Noise, WeightPerturbation
from neuralop_kit.solvers.errors import ArgumentError
from tests.optim.test_zeroth_order import ValueContract, generator, worst_p_value

NUM_DRAWS = 1200


class TestNodePerturbation(ValueContract):
    # No weight of the problem is in a layer: all of them are perturbed themselves, but for those that are not used.
    lr = 0.1
    moves_unused_weights = False
    runs_compiled = False

    def make(self, groups, lr, **options):
        return NodePerturbation(groups, lr, num_samples=2, generator=generator(), **options)


class Network(nn.Module):
    """A convolution, a layer that is used twice, a norm and a factor of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.twice, self.head = nn.Conv1d(1, 2, 3, padding=1), nn.Linear(4, 2), nn.Linear(2, 1)
        self.mix, self.scale = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.tensor(1.3))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv(x)).mean(dim=-1) @ self.mix
        return self.scale * self.head(self.twice(torch.tanh(self.twice(y) @ self.mix))).squeeze(1)


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 1, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)


def network_and_losses():
    network, (x, y) = Network(), batch()
    return network, lambda: (network(x) - y).square()


def samples(function, network, **options) -> tuple[Tensor, Tensor]:
    """Estimates, flat, and the gradient by backpropagation."""
    function().mean().backward()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters()])
    optimizer = NodePerturbation(network.parameters(), generator=generator(), **options)
    draws = [torch.cat([g.flatten() for g in optimizer.estimate(function)]) for _ in range(NUM_DRAWS)]
    return torch.stack(draws), gradient


class OneSided(Noise):
    """Not symmetric: 0 or the square root of 2."""

    def sample(self, zeros: Tensor, generator: torch.Generator) -> Tensor:
        return zeros.bernoulli_(generator=generator).mul_(2**0.5)


def test_estimate_is_unbiased_for_layers_and_for_the_rest():
    network, losses = network_and_losses()
    mean, gradient = samples(lambda: losses().mean(), network)
    assert worst_p_value(mean, gradient) > 1e-3
    each, _ = samples(losses, network)
    assert worst_p_value(each, gradient) > 1e-3
    # Power: a forgotten factor, and noise with a mean, in which the parts of other layers do not cancel.
    assert worst_p_value(2 * mean, gradient) < 1e-4
    assert worst_p_value(0.8 * each, gradient) < 1e-4
    biased, _ = samples(losses, network, noise=OneSided())
    assert worst_p_value(biased, gradient) < 1e-4


def test_outputs_and_weights_have_noise_of_their_own():
    # With the same stream for both, products of the two would not average out.
    layer = nn.Linear(1, 8, bias=False).double()
    factor = nn.Parameter(torch.ones(8, dtype=torch.float64))
    optimizer = NodePerturbation([layer.weight, factor], generator=generator())
    (weights, factors) = optimizer.estimate(lambda: (layer(torch.ones(1, 1).double()) * factor).sum())
    assert (weights.sign().flatten() * factors.sign()).sum().abs() < 8


def relative_variance(optimizer, layer: nn.Linear, function) -> float:
    layer.zero_grad()
    function().mean().backward()
    gradient = layer.weight.grad
    draws = torch.stack([optimizer.estimate(function)[0] for _ in range(1500)])
    return ((draws - gradient).square().sum(dim=(1, 2)).mean() / gradient.square().sum()).item()


def test_variance_counts_outputs_not_weights():
    torch.manual_seed(0)
    layer, y = nn.Linear(6, 3, bias=False).double(), torch.randn(4, 3, dtype=torch.float64)
    # Orthonormal inputs: errors of samples add up without mixing.
    x = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64)).Q.T
    errors = lambda: (layer(x) - y).square().sum(dim=1)  # noqa: E731
    node = NodePerturbation(layer.parameters(), generator=generator())
    weight = WeightPerturbation(layer.parameters(), generator=generator())
    assert relative_variance(node, layer, lambda: errors().mean()) == pytest.approx(4 * 3 - 1, rel=0.1)
    assert relative_variance(weight, layer, lambda: errors().mean()) == pytest.approx(6 * 3 - 1, rel=0.1)
    each = relative_variance(node, layer, errors)
    assert each == pytest.approx(3 - 1, rel=0.1)


def test_weight_perturbation_is_spsa():
    assert WeightPerturbation is SPSA


def test_step_is_the_estimate_times_the_rate():
    ends = []
    for _ in range(2):
        network, losses = network_and_losses()
        optimizer = NodePerturbation(network.parameters(), 0.1, num_samples=3, weight_decay=0.2, generator=generator(4))
        ends.append((network, losses, optimizer))
    (moved, function, optimizer), (still, other_function, other) = ends
    expected = [
        p - 0.1 * (g + 0.2 * p) for p, g in zip(still.parameters(), other.estimate(other_function), strict=True)
    ]
    loss = optimizer.step(function)
    assert loss.item() == pytest.approx(other_function().mean().item(), rel=1e-14)
    for p, value in zip(moved.parameters(), expected, strict=True):
        torch.testing.assert_close(p, value, rtol=1e-12, atol=1e-12)


def test_probes_leave_the_weights_and_count_their_passes():
    network, losses = network_and_losses()
    before, calls = [p.detach().clone() for p in network.parameters()], []
    NodePerturbation(network.parameters(), num_samples=5).estimate(lambda: calls.append(1) or losses())
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert len(calls) == 11


def test_layers_inside_attention_and_frozen_ones():
    # Attention reads the weight of its last layer without calling the layer.
    torch.manual_seed(0)
    attention, last = nn.MultiheadAttention(4, 2, batch_first=True).double(), nn.Linear(4, 1).double()
    last.weight.requires_grad_(False)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    weights = [*attention.parameters(), *last.parameters()]
    optimizer = NodePerturbation(weights, generator=generator())
    estimate = optimizer.estimate(lambda: last(attention(x, x, x)[0]).square().mean())
    assert all(g.abs().max() > 0 for g in estimate)
    assert len(estimate) == len(weights) - 1


def test_noise_depends_on_neither_layout_nor_memory_format():
    torch.manual_seed(0)
    layer, x = nn.Conv2d(2, 3, 3), torch.randn(2, 2, 5, 4)
    estimates = [
        NodePerturbation(layer.parameters(), generator=generator()).estimate(lambda x=x: layer(x).square().mean())
        for x in (x, x.to(memory_format=torch.channels_last))
    ]
    for plain, other in zip(*estimates, strict=True):
        torch.testing.assert_close(plain, other, rtol=1e-3, atol=1e-4)


class Changing:
    """A loss whose second pass is another network."""

    def __init__(self) -> None:
        self.layer, self.count = nn.Linear(2, 2), 0

    def __call__(self) -> Tensor:
        self.count += 1
        out = self.layer(torch.ones(1, 2))
        return (self.layer(out) if self.count > 1 else out).sum()


def test_bad_losses_are_refused():
    layer = nn.Linear(2, 2)
    x = torch.ones(3, 2)

    def refuse(function, match: str, weights=layer) -> None:
        before = [p.detach().clone() for p in weights.parameters()]
        with pytest.raises(ArgumentError, match=match):
            NodePerturbation(weights.parameters()).step(function)
        assert all(torch.equal(a, b) for a, b in zip(before, weights.parameters(), strict=True))

    def with_gradients() -> Tensor:
        with torch.enable_grad():
            return layer(x).sum()

    def in_place() -> Tensor:
        u = x.clone()
        out = layer(u)
        u += out
        return u.sum()

    refuse(with_gradients, "without gradients")
    refuse(in_place, "changed in place")
    refuse(lambda: layer(x), "one per sample")
    refuse(lambda: layer(x).flatten(), "one row of outputs")
    changing = Changing()
    refuse(changing, "same layers in the same order", changing.layer)
    with pytest.raises(ArgumentError, match="radius"):
        NodePerturbation(layer.parameters(), radius=-1.0)
