"""DeltaGD: the closed form is the minimiser of the printed objective."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.models import MgNO
from neuralop_kit.optim import DeltaGD
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.optimizer import CountingBackend


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(4, 3, dtype=torch.float64)


def backward(layer: nn.Linear, x: torch.Tensor) -> None:
    layer.zero_grad()
    layer(x).sin().square().sum(dim=-1).mean().backward()


def objective_gradient(layer: nn.Linear, x: torch.Tensor, lr: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of 1/(2B) sum |W x_b + g_b|^2 + 1/(2 lr) |W - W_t|^2 at W, from per-sample gradients by hand."""
    outputs = layer(x).detach().requires_grad_(True)
    outputs.sin().square().sum(dim=-1).mean().backward()
    slopes = outputs.grad * len(x)
    start = layer.weight.detach().clone()

    def gradient(weight: torch.Tensor) -> torch.Tensor:
        return (x @ weight.T + slopes).T @ x / len(x) + (weight - start) / lr

    return gradient


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("lr", [0.01, 0.3, 10.0])
def test_new_weights_are_the_argmin(layer, batch, lr):
    optimizer = DeltaGD(layer, lr)
    x = torch.randn(batch, 4, dtype=torch.float64)
    gradient = objective_gradient(layer, x, lr)
    backward(layer, x)
    bias, slope = layer.bias.detach().clone(), layer.bias.grad.clone()
    optimizer.step()
    assert gradient(layer.weight.detach()).abs().max() < 1e-12
    torch.testing.assert_close(layer.bias.detach(), bias - lr * slope, rtol=1e-14, atol=1e-14)


def test_one_unit_input_is_the_printed_rule(layer):
    lr = 0.4
    optimizer = DeltaGD(layer, lr)
    x = nn.functional.normalize(torch.randn(1, 4, dtype=torch.float64), dim=-1)
    backward(layer, x)
    e = lr / (1 + lr)
    expected = layer.weight - e * (layer.weight @ x.T) @ x - e * layer.weight.grad
    optimizer.step()
    torch.testing.assert_close(layer.weight, expected, rtol=1e-13, atol=1e-13)


def test_explicit_form_subtracts_the_decay(layer):
    optimizer = DeltaGD(layer, 0.1, decay_coef=0.5, weight_decay=0.2)
    x = torch.randn(5, 4, dtype=torch.float64)
    backward(layer, x)
    weight = layer.weight.detach() * (1 - 0.1 * 0.2)
    expected = weight - 0.5 * weight @ (x.T @ x / 5) - 0.1 * layer.weight.grad
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-13, atol=1e-13)


def test_small_rates_give_gradient_descent(layer):
    x = torch.randn(5, 4, dtype=torch.float64)
    start = layer.weight.detach().clone()
    errors = []
    for lr in (1e-3, 1e-4):
        layer.weight.data.copy_(start)
        optimizer = DeltaGD(layer, lr)
        backward(layer, x)
        plain = start - lr * layer.weight.grad
        # What is left is W C lr, an error of first order beside a step of first order: the decay of the rule.
        decayed = plain - lr * start @ (x.T @ x / 5)
        optimizer.step()
        optimizer.close()
        errors.append((layer.weight.detach() - decayed).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)


def test_tokens_and_repeated_calls_are_rows(layer):
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    ends = []
    for batches in ([x], [x.flatten(0, 1)], [x[0], x[1]]):
        torch.manual_seed(0)
        copy = nn.Linear(4, 3, dtype=torch.float64)
        optimizer = DeltaGD(copy, 0.2)
        sum(copy(rows).square().sum() for rows in batches).backward()
        optimizer.step()
        ends.append(copy.weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-13, atol=1e-13)


def test_evaluation_is_not_watched(layer):
    optimizer = DeltaGD(layer, 0.2)
    x = torch.randn(5, 4, dtype=torch.float64)
    backward(layer, x)
    before = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        layer(100 * x)
    layer.eval()
    layer(100 * x)
    layer.train()
    optimizer.step()
    moved = layer.weight.detach().clone()
    layer.load_state_dict(before)
    backward(layer, x)
    optimizer.step()
    assert torch.equal(layer.weight.detach(), moved)


def test_matrices_on_another_axis_than_the_last_descend_along_the_gradient():
    # As many channels as points: the wrong axis would give a system of the right size.
    model = MgNO(1, 1, domain=Domain.periodic((1.0,)), width=8, num_layers=2, levels=1).double()
    optimizer, wanted = DeltaGD(model, 0.1), copy.deepcopy(model)
    for network in (model, wanted):
        network(torch.linspace(-1, 1, 8, dtype=torch.float64).expand(2, 1, 8)).square().sum().backward()
    optimizer.step()
    torch.optim.SGD(wanted.parameters(), 0.1).step()
    for got, want in zip(model.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)


def test_closed_optimizer_leaves_no_hooks(layer):
    optimizer = DeltaGD(layer, 0.2)
    assert layer._forward_pre_hooks
    optimizer.close()
    assert not layer._forward_pre_hooks


def test_state_needs_nothing(layer):
    optimizer = DeltaGD(layer, 0.2)
    x = torch.randn(5, 4, dtype=torch.float64)
    backward(layer, x)
    optimizer.step()
    resumed = DeltaGD(layer, 0.9)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.param_groups[0]["lr"] == 0.2


def test_a_copy_watches_the_copy_of_the_model(layer):
    optimizer = DeltaGD(layer, 0.2)
    other, other_optimizer = copy.deepcopy((layer, optimizer))
    x = torch.randn(5, 4, dtype=torch.float64)
    for model, owner in ((layer, optimizer), (other, other_optimizer)):
        backward(model, x)
        owner.step()
    assert torch.equal(layer.weight, other.weight)


def test_compiled_steps_and_layers_are_watched_alike(layer):
    other, graphs = copy.deepcopy(layer), CountingBackend()
    optimizer, plain = DeltaGD(layer, 0.2, weight_decay=0.1), DeltaGD(other, 0.2, weight_decay=0.1)
    schedules = [torch.optim.lr_scheduler.ExponentialLR(o, 0.9) for o in (optimizer, plain)]
    compiled, step = torch.compile(layer, backend=graphs), torch.compile(optimizer.step, backend=graphs)
    with torch._dynamo.config.patch(recompile_limit=4, fail_on_recompile_limit_hit=True):
        for x in torch.randn(6, 5, 4, dtype=torch.float64):
            backward(compiled, x)
            step()
            backward(other, x)
            plain.step()
            for schedule in schedules:
                schedule.step()
    torch.testing.assert_close(layer.weight, other.weight, rtol=1e-12, atol=1e-12)
    assert graphs.num_runs == 12


def test_bad_values_are_refused(layer):
    with pytest.raises(ArgumentError, match="decay_coef"):
        DeltaGD(layer, 0.1, decay_coef=-1.0)
    with pytest.raises(ArgumentError, match="lr"):
        DeltaGD(layer, -0.1)


def test_parameters_without_their_network_are_refused(layer):
    with pytest.raises(ArgumentError, match=r"expected a network, got generator; .* give the nn\.Module itself"):
        DeltaGD(layer.parameters())
