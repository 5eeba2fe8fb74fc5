"""What a residual function may return, and derivatives that are not finite where the residual is."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from neuralop_kit.optim import Automatic, BatchedVJP, FixedStep, GaussNewton, Ghost, Randomized, Sven
from neuralop_kit.optim.gram.residual import differentiable
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from tests.contracts.optimizer import CountingBackend


def test_nothing_is_no_residual():
    weight = nn.Parameter(torch.ones(3))
    optimizer = Sven([weight])
    with pytest.raises(ArgumentError, match="at least one block"):
        optimizer.step(dict)
    with pytest.raises(ShapeError, match=r"'walls', got none.*leave the block"):
        optimizer.step(lambda: {"inside": weight, "walls": weight[:0]})


@pytest.mark.parametrize("engine", [BatchedVJP, lambda: Randomized(1)])
@pytest.mark.parametrize("make", [GaussNewton, Sven])
@pytest.mark.parametrize("num_rows", [1, 8])
def test_derivatives_that_are_not_finite_are_refused(make, engine, num_rows):
    # The root of a square: at zero its value is zero, and its derivative 0/0.
    weight, scales = nn.Parameter(torch.zeros(2).double()), torch.ones(num_rows).double()
    optimizer = make([weight], engine=engine())
    optimizer.step(lambda: weight.square().sum().sqrt() * scales - 1)
    assert optimizer.info.status == "refused"
    assert f"{num_rows} of {num_rows} rows" in optimizer.info.reason
    assert torch.equal(weight, torch.zeros_like(weight))
    with torch.no_grad():
        weight.fill_(0.1)
    optimizer.step(lambda: weight.square().sum().sqrt() * scales - 1)
    assert optimizer.info.status == "moved"


@pytest.mark.parametrize("make", [Sven, GaussNewton, lambda p, **kw: Sven(p, rtol=1e-10, **kw)])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 8])
def test_factors_of_derivatives_that_are_not_finite_are_refused(make, num_rows):
    # No row of J is formed here, and no control looks at the loss.
    model = nn.Linear(2, 1).double()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    points = torch.rand(num_rows, 2).double()
    optimizer = make(model.parameters(), engine=Ghost(), control=FixedStep())
    optimizer.step(lambda: model(points).squeeze(1).square().sqrt() + 1)
    assert optimizer.info.status == "refused"
    assert "finite derivatives" in optimizer.info.reason
    assert not any(p.any() for p in model.parameters())


def network(num_rows: int = 6) -> tuple[nn.Sequential, torch.Tensor]:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    return model, torch.rand(num_rows, 2).double()


@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize("engine", [Automatic, BatchedVJP, Ghost])
@pytest.mark.parametrize("of_inputs", [False, True], ids=["inputs without graph", "inputs with graph"])
def test_reentrant_checkpoints_are_refused(engine, of_inputs):
    model, points = network()
    parameters = list(model.parameters())

    def residual(is_reentrant=True):
        x = points.requires_grad_() if of_inputs else points
        return model[2](checkpoint(model[:2], x, use_reentrant=is_reentrant)).squeeze(1) - 1

    with pytest.raises(ArgumentError, match="use_reentrant=False"):
        engine().linearize(differentiable(residual), parameters, None)
    with torch.no_grad():
        assert torch.equal(differentiable(residual)(), residual())
    assert "apply" not in vars(CheckpointFunction)
    # Without the check half of the network seems to have no effect.
    hidden = BatchedVJP().linearize(residual, parameters, None)[1].dense()
    assert not hidden[:, :9].any()
    found = Automatic().linearize(differentiable(lambda: residual(False)), parameters, None)[1].dense()
    plain = BatchedVJP().linearize(lambda: model(points).squeeze(1) - 1, parameters, None)[1].dense()
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    assert plain[:, :9].any()


@pytest.mark.parametrize("engine", [Automatic, BatchedVJP, lambda: Randomized(4)])
@pytest.mark.parametrize("num_rows", [6, 40])
def test_compiled_networks_are_seen_as_they_were_written(engine, num_rows):
    graphs, (model, points) = CountingBackend(), network(num_rows)
    parameters, compiled = list(model.parameters()), torch.compile(model, backend=graphs)
    compiled(points)
    found, plain = (
        engine().linearize(function, parameters, None)
        for function in (differentiable(lambda: compiled(points).squeeze(1) - 1), lambda: model(points).squeeze(1) - 1)
    )
    assert graphs.num_runs == 1
    assert torch.equal(found[0], plain[0])
    torch.manual_seed(0)
    v = torch.randn(found[1].num_columns, dtype=torch.float64)
    torch.testing.assert_close(found[1].times(v), plain[1].times(v), rtol=1e-12, atol=1e-12)


def test_running_statistics_see_every_call_and_steps_do_not_see_them():
    ends = []
    for with_statistics in (True, False):
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(3, track_running_stats=with_statistics)
        model, points = nn.Sequential(nn.Linear(2, 3), norm, nn.Tanh(), nn.Linear(3, 1)).double(), network()[1]
        optimizer = GaussNewton(model.parameters(), engine=BatchedVJP())
        for _ in range(3):
            optimizer.step(lambda model=model, points=points: model(points).squeeze(1) - points[:, 0])
        assert optimizer.info.status == "moved"
        assert not with_statistics or norm.num_batches_tracked > 2 * 3
        ends.append(model)
    for a, b in zip(*(model.parameters() for model in ends), strict=True):
        assert torch.equal(a, b)


def test_weights_that_nothing_depends_on_are_told_from_a_missing_graph():
    model, points = network()
    unused = nn.Linear(2, 2).double()
    optimizer = Sven([*model.parameters(), *unused.parameters()])
    before = unused.weight.detach().clone()
    optimizer.step(lambda: model(points).squeeze(1) - 1)
    assert optimizer.info.status == "moved"
    assert torch.equal(unused.weight, before)
    with pytest.raises(ArgumentError, match="'walls' without a graph"):
        optimizer.step(lambda: {"inside": model(points).squeeze(1), "walls": model(points).squeeze(1).detach()})
    model.requires_grad_(False)
    with pytest.raises(ArgumentError, match="'residual' without a graph"):
        optimizer.step(lambda: model(points).squeeze(1))
    unused.requires_grad_(False)
    with pytest.raises(ArgumentError, match="unfreeze"):
        optimizer.step(lambda: model(points).squeeze(1))


@pytest.mark.parametrize("make", [Sven, GaussNewton, lambda p: GaussNewton(p, control=FixedStep())])
def test_residuals_without_a_sum_of_squares_are_refused(make):
    (model, points), refused = network(), []
    optimizer, before = make(model.parameters()), [p.detach().clone() for p in model.parameters()]
    for size in (1e160, 1e30):
        optimizer.step(lambda size=size: size * (model(points).squeeze(1) - 1))
        refused.append(optimizer.info.status == "refused")
        if size == 1e160:
            assert "sum of squares" in optimizer.info.reason
            assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert refused == [True, False]


@pytest.mark.parametrize("num_rows", [6, 40])
@pytest.mark.parametrize("make", [GaussNewton, lambda p: Sven(p, engine=BatchedVJP())], ids=["ghost", "passes"])
def test_steps_of_compiled_networks_are_those_of_plain_ones(make, num_rows):
    ends, graphs = [], CountingBackend()
    for is_compiled in (False, True):
        torch.manual_seed(0)
        model, points = network(num_rows)
        called, optimizer = torch.compile(model, backend=graphs) if is_compiled else model, make(model.parameters())
        for _ in range(3):
            optimizer.step(lambda called=called, points=points: called(points).squeeze(1) - points[:, 0].sin())
        assert optimizer.info.status == "moved"
        ends.append(model)
    for a, b in zip(*(model.parameters() for model in ends), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_steps_through_reentrant_checkpoints_are_refused():
    model, points = network()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = GaussNewton(model.parameters())
    with pytest.raises(ArgumentError, match="use_reentrant=False"):
        optimizer.step(lambda: model[2](checkpoint(model[:2], points, use_reentrant=True)).squeeze(1) - 1)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    optimizer.step(lambda: model[2](checkpoint(model[:2], points, use_reentrant=False)).squeeze(1) - 1)
    assert optimizer.info.status == "moved"


@pytest.mark.parametrize("affine", [False, True])
def test_a_batch_norm_that_is_switched_to_training_is_found_out(affine):
    ends = []
    for engine in (Automatic(), BatchedVJP()):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, affine=affine), nn.Tanh(), nn.Linear(3, 1)).double()
        points, optimizer = torch.rand(6, 2).double(), GaussNewton(model.parameters(), engine=engine)
        for is_training in (False, True):
            model.train(is_training)
            optimizer.step(lambda model=model, points=points: model(points).squeeze(1) - points[:, 0].sin())
        ends.append(model)
    for a, b in zip(*(model.parameters() for model in ends), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("engine", [Automatic(), BatchedVJP(), Randomized(2)], ids=["ghost", "passes", "randomized"])
def test_sparse_gradients_are_refused(engine):
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 1))
    optimizer = GaussNewton(model.parameters(), engine=engine)
    with pytest.raises(ArgumentError, match="sparse=False"):
        optimizer.step(lambda: model(torch.arange(6)).squeeze(1) - 1)
