"""Jacobians that would be wrong, and say nothing: each is compared with one backward pass per row."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralop_kit.optim import Automatic, BatchedVJP, Ghost, Randomized
from neuralop_kit.optim.gram.jacobian import Jacobian
from neuralop_kit.solvers.errors import ArgumentError

NUM_ROWS = 6
TINY = 1


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def check(jacobian: Jacobian, function: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    expected = []
    for row in function():
        gradients = torch.autograd.grad(row, parameters, retain_graph=True, allow_unused=True)
        found = zip(parameters, gradients, strict=True)
        expected.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in found]))
    matrix = torch.stack(expected)
    v, w = torch.randn(matrix.shape[1]), torch.randn(matrix.shape[0])
    tolerance = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(jacobian.gram(), matrix @ matrix.T, **tolerance)
    torch.testing.assert_close(jacobian.normal(), matrix.T @ matrix, **tolerance)
    torch.testing.assert_close(jacobian.dense(), matrix, **tolerance)
    torch.testing.assert_close(jacobian.times(v), matrix @ v, **tolerance)
    torch.testing.assert_close(jacobian.transposed_times(w), matrix.T @ w, **tolerance)


@pytest.mark.parametrize("budget", [2**30, TINY])
def test_layers_whose_outputs_are_added_have_a_bias_each(budget):
    # What comes back to both is one tensor, which was taken for the bias of the first one twice.
    x, left, right, last = torch.randn(NUM_ROWS, 3), nn.Linear(3, 20), nn.Linear(3, 20), nn.Linear(20, 1)
    parameters = [*left.parameters(), *right.parameters(), *last.parameters()]

    def function():
        return last(torch.tanh(left(x) + right(x))).squeeze(1)

    _, jacobian = Ghost(memory_budget=budget).linearize(function, parameters, None)
    check(jacobian, function, parameters)


@pytest.mark.parametrize("budget", [2**30, TINY])
def test_a_bias_that_is_used_elsewhere_too_is_counted_once(budget):
    x, first, last = torch.randn(NUM_ROWS, 3), nn.Linear(3, 4), nn.Linear(4, 1)
    parameters = [*first.parameters(), *last.parameters()]

    def function():
        return last(torch.tanh(first(x)) * first.bias).squeeze(1)

    _, jacobian = Ghost(memory_budget=budget).linearize(function, parameters, None)
    check(jacobian, function, parameters)


# ---- behind a layer of zeros nothing is seen in the first step


class Hidden(torch.autograd.Function):
    """A product that no mode of torch sees."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return g @ weight, g.T @ x


def centred(h: Tensor) -> Tensor:
    """Couples all samples."""
    return h - h.mean(dim=0)


@pytest.mark.parametrize("scale", [0.0, 1e-13])
@pytest.mark.parametrize(
    "features", [lambda x, layer: centred(torch.tanh(layer(x))), lambda x, layer: Hidden.apply(x, layer.weight)]
)
def test_what_a_last_layer_of_zeros_hides_is_found_when_it_has_moved(features, scale):
    x, first, last = torch.randn(NUM_ROWS, 3), nn.Linear(3, 4), nn.Linear(4, 1)
    parameters, engine = [*first.parameters(), *last.parameters()], Automatic()

    def function():
        return last(features(x, first)).squeeze(1)

    nn.init.constant_(last.weight, scale)
    _, jacobian = engine.linearize(function, parameters, None)
    check(jacobian, function, parameters)
    nn.init.normal_(last.weight)
    _, jacobian = engine.linearize(function, parameters, None)
    check(jacobian, function, parameters)
    assert isinstance(engine.chosen, BatchedVJP)


def test_what_has_been_seen_is_not_compared_again():
    x, first, last = torch.randn(NUM_ROWS, 3), nn.Linear(3, 4), nn.Linear(4, 1)
    parameters, engine, calls = [*first.parameters(), *last.parameters(), nn.Parameter(torch.ones(2))], Ghost(), []

    def function():
        calls.append(0)
        return last(torch.tanh(first(x))).squeeze(1)

    nn.init.zeros_(last.weight)
    for expected in (2, 2, 1):
        calls.clear()
        engine.linearize(function, parameters, None)
        assert len(calls) == expected
        with torch.no_grad():
            last.weight += 1.0 if expected == 2 else 0.0


# ---- the same shapes, and something else


class Centred(nn.Module):
    """Couples all samples in training."""

    def forward(self, h: Tensor) -> Tensor:
        return centred(h) if self.training else h


def test_another_function_of_the_same_shapes_is_compared_again():
    x, model = torch.randn(NUM_ROWS, 3), nn.Sequential(nn.Linear(3, 4), Centred(), nn.Tanh(), nn.Linear(4, 1))
    parameters, engine = list(model.parameters()), Automatic()
    for is_coupled in (False, True):
        model.train(is_coupled)
        _, jacobian = engine.linearize(lambda: model(x).squeeze(1), parameters, None)
        check(jacobian, lambda: model(x).squeeze(1), parameters)
    assert isinstance(engine.chosen, BatchedVJP)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_of_few_digits_do_not_hide_that_the_first_axis_is_another_one(dtype):
    # As many tokens as samples, tokens first: every row depends on every row of the layer's input.
    tokens = torch.randn(8, 8, 16, dtype=dtype)
    model, last = nn.Linear(16, 16, dtype=dtype), nn.Linear(16, 1, dtype=dtype)
    parameters, engine = [*model.parameters(), *last.parameters()], Automatic()

    def function():
        return last(torch.tanh(model(tokens)).mean(dim=0)).squeeze(1)

    engine.linearize(function, parameters, None)
    assert isinstance(engine.chosen, BatchedVJP)
    plain = nn.Sequential(model, nn.Tanh(), last)
    engine = Automatic()
    engine.linearize(lambda: plain(tokens[0]).squeeze(1), parameters, None)
    assert not isinstance(engine.chosen, BatchedVJP)


# ---- columns come from a backward pass through a backward pass


class CutOff(torch.autograd.Function):
    """A sine whose backward pass hides what it does."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        with torch.no_grad():
            return g * ctx.saved_tensors[0].cos()


def attended(h: Tensor) -> Tensor:
    """Fused attention on the CPU has no second derivative."""
    tokens = h.view(1, 1, *h.shape)
    return F.scaled_dot_product_attention(tokens, tokens, tokens).view(h.shape)


@pytest.mark.parametrize("budget", [2**30, TINY])
@pytest.mark.parametrize("activation", [CutOff.apply, attended])
@pytest.mark.parametrize("is_linear_after", [True, False])
def test_columns_that_would_lack_something_are_not_taken(activation, is_linear_after, budget):
    x, first, last = torch.randn(40, 1), nn.Linear(1, 2), nn.Linear(2, 1)
    parameters = [*first.parameters(), *(last.parameters() if is_linear_after else [])]

    def function():
        return centred(last(activation(first(x)))).squeeze(1)

    _, jacobian = BatchedVJP(memory_budget=budget).linearize(function, parameters, None)
    check(jacobian, function, parameters)
    with pytest.raises(ArgumentError, match="differentiated twice"):
        Randomized(2).linearize(function, parameters, None)


# ---- tables


def test_lookups_of_nothing_and_of_repeated_memory():
    table, other, last = nn.Embedding(50, 30), nn.Embedding(50, 30), nn.Linear(30, 1)
    indices = torch.randint(0, 50, (NUM_ROWS, 1)).expand(NUM_ROWS, 2)
    parameters = [table.weight, other.weight, *last.parameters()]

    def function():
        return last(torch.tanh(table(indices).sum(dim=1) + other(indices[:, :0]).sum(dim=1))).squeeze(1)

    _, jacobian = Ghost().linearize(function, parameters, None)
    check(jacobian, function, parameters)
