"""The memory budget of engines bounds what a step holds of J and makes of it; products stay exact."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from neuralop_kit import Domain
from neuralop_kit.models import FNO
from neuralop_kit.optim import SPRING, BatchedVJP, DataParallel, GaussNewton, Ghost, LevenbergMarquardt, Sharded, Sven
from neuralop_kit.optim.gram.passes import ColumnPasses, RowPasses
from neuralop_kit.optim.gram.recomputed import RecomputedJacobian
from neuralop_kit.solvers.errors import ArgumentError
from tests.optim.test_gram_engines import convolutions, explicit, lookup, pinn
from tests.optim.test_gram_engines import spectral as small_spectral

DOUBLE = {"dtype": torch.float64}
KB = 2**10
Problem = tuple[nn.Module, Callable[[], Tensor]]


def allocated_peak(work: Callable[[], object]) -> int:
    """Bytes that torch has allocated at the worst moment, on top of what there was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(sizes.cumsum(0).max())


def unavoidable(problem: Problem) -> int:
    """What no budget can be for: the graph and a backward pass, squares of the smaller side, vectors of parameters."""
    model, function = problem
    parameters = list(model.parameters())
    num_rows, size = len(function()), sum(p.numel() for p in parameters)
    graph = allocated_peak(lambda: torch.autograd.grad(function().sum(), parameters))
    return 2 * graph + 8 * (4 * min(num_rows, size) ** 2 + 6 * size)


# ---- peaks of whole steps


class Bare(nn.Module):
    """A weight that no layer owns, before some that do."""

    def __init__(self, size: int, **options) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, 8, **options) / size**0.5)
        self.head = nn.Sequential(nn.Linear(8, 4, **options), nn.Tanh(), nn.Linear(4, 1, **options))

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x @ self.weight).sin()).squeeze(1)


def bare() -> Problem:
    model, x = Bare(2000), torch.randn(48, 2000)
    return model, lambda: model(x) - 1.0


def bare_double() -> Problem:
    model, x = Bare(1000, **DOUBLE), torch.randn(48, 1000, **DOUBLE)
    return model, lambda: model(x) - 1.0


def tall() -> Problem:
    """More rows than parameters, each batch of which takes far more than its part of J."""
    model, x = Bare(12, **DOUBLE), torch.randn(800, 12, **DOUBLE)
    return model, lambda: model(x) - 1.0


def spectral() -> Problem:
    domain = Domain.periodic((1.0, 1.0))
    model, x = FNO(1, 1, domain=domain, width=32, num_layers=2, modes=(8, 8)), torch.randn(16, 1, 8, 8)
    return model, lambda: model(x).square().mean(dim=(1, 2, 3)) - 1.0


def table() -> Problem:
    model, x = nn.Sequential(nn.Embedding(2000, 8), nn.Linear(8, 1)), torch.randint(0, 2000, (48, 5))
    return model, lambda: model(x).squeeze(2).tanh().sum(dim=1) - 1.0


class TiedTable(nn.Module):
    """A table that is looked up in and multiplied with."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(2000, 8), nn.Linear(50, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.table(x).sum(dim=1) @ self.table.weight[:50].T).tanh()).squeeze(1)


def tied_table() -> Problem:
    model, x = TiedTable(), torch.randint(0, 2000, (48, 5))
    return model, lambda: model(x) - 1.0


BUDGETS = [
    (bare, Ghost, 1200 * KB), (bare, BatchedVJP, 1500 * KB), (bare_double, Ghost, 800 * KB),
    (tall, BatchedVJP, 800 * KB), (tall, Ghost, 600 * KB), (spectral, Ghost, 3000 * KB), (table, Ghost, 400 * KB),
    (tied_table, Ghost, 1200 * KB),
]  # fmt: skip


@pytest.mark.parametrize(("make", "engine", "budget"), BUDGETS)
def test_a_step_keeps_to_its_budget(make, engine, budget):
    problem = make()
    model, function = problem
    groups = [{"params": [p], "weight_decay": 0.01 * i} for i, p in enumerate(model.parameters())]
    optimizer = SPRING(groups, lr=0.1, engine=engine(memory_budget=budget))
    peak = allocated_peak(lambda: optimizer.step(function))
    assert peak <= budget + unavoidable(problem)
    assert optimizer.info.status == "moved"


@pytest.mark.parametrize("passes", [RowPasses, ColumnPasses])
@pytest.mark.parametrize("make", [convolutions, pinn, small_spectral, bare])
def test_what_passes_take_is_known_before(make, passes):
    model, function = make()
    value = function()
    rows = torch.cat(list(value.values())) if isinstance(value, dict) else value
    found = passes(rows, list(model.parameters()))
    count = min(found.count, 8)
    found.slab(0, count)
    assert allocated_peak(lambda: found.slab(0, count)) <= count * found.pass_bytes()


# ---- products with a Jacobian that is not held


class Once(torch.autograd.Function):
    """A sine that cannot be differentiated twice."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0].cos()


def recomputed(num_rows: int, width: int, budget: int, *, activation: Callable = torch.sin) -> RecomputedJacobian:
    x, weights = torch.randn(num_rows, 5, **DOUBLE), [torch.randn(5, width, **DOUBLE), torch.randn(width, **DOUBLE)]
    weights = [w.requires_grad_() for w in weights]
    rows = activation(x @ weights[0]) @ weights[1]
    jacobian = RecomputedJacobian(rows, weights, weights=weights, memory_budget=budget)
    jacobian.expected = explicit(lambda: rows, weights)
    return jacobian


def check_products(jacobian: RecomputedJacobian, expected: Tensor) -> None:
    tolerance = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(jacobian.gram(), expected @ expected.T, **tolerance)
    torch.testing.assert_close(jacobian.normal(), expected.T @ expected, **tolerance)
    torch.testing.assert_close(jacobian.dense(), expected, **tolerance)
    v, w = torch.randn(expected.shape[1], **DOUBLE), torch.randn(expected.shape[0], **DOUBLE)
    torch.testing.assert_close(jacobian.times(v), expected @ v, **tolerance)
    torch.testing.assert_close(jacobian.transposed_times(w), expected.T @ w, **tolerance)


# More and fewer rows than columns; the ways that are cheapest differ.
@pytest.mark.parametrize(("num_rows", "width"), [(12, 8), (20, 3), (40, 2)])
@pytest.mark.parametrize("budget", [1, 3000, 10**6])
@pytest.mark.parametrize("way", ["_by_pairs", "_by_sums", "_by_products", None])
def test_products_are_exact_at_every_budget_whatever_the_way(num_rows, width, budget, way, monkeypatch):
    jacobian = recomputed(num_rows, width, budget)
    if way:
        for name in ("_by_pairs", "_by_sums", "_by_products"):
            monkeypatch.setattr(RecomputedJacobian, name, getattr(RecomputedJacobian, way))
    check_products(jacobian, jacobian.expected)


def test_what_can_be_differentiated_but_once_has_passes_for_rows_alone():
    jacobian = recomputed(40, 3, 3000, activation=Once.apply)
    check_products(jacobian, jacobian.expected)


def test_a_float32_jacobian_has_a_float64_gram_matrix():
    # Products in float32 would lose the smallest eigenvalues: they are squares.
    torch.manual_seed(0)
    x, weight = torch.randn(12, 40) * torch.logspace(0, -3, 12)[:, None], torch.randn(40, requires_grad=True)
    for budget in (1, 2000):
        jacobian = RecomputedJacobian(x @ weight, [weight], weights=[weight], memory_budget=budget)
        smallest = torch.linalg.eigvalsh(jacobian.gram())[0]
        exact = torch.linalg.svdvals(x.double())[-1] ** 2
        assert abs(smallest - exact) < 1e-6 * exact


def test_products_are_those_at_the_start_while_weights_are_elsewhere(monkeypatch):
    jacobian = recomputed(12, 9, 3000)
    weight = jacobian.parameters[1]
    there = weight.detach() + 1.0
    weight.data.copy_(there)
    check_products(jacobian, jacobian.expected)
    assert torch.equal(weight, there)
    # Negative control: the graph by itself looks at weights where they are, and does not say so.
    monkeypatch.setattr(RecomputedJacobian, "_at_start", lambda self: torch.enable_grad())
    with pytest.raises(AssertionError, match="not close"):
        check_products(jacobian, jacobian.expected)


MAKES = [
    lambda p, e: SPRING(p, engine=e), lambda p, e: GaussNewton(p, engine=e, control=LevenbergMarquardt()),
    lambda p, e: Sven(p, rtol=1e-3, engine=e),
]  # fmt: skip


@pytest.mark.parametrize("engine", [Ghost, BatchedVJP])
@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("problem", [pinn, small_spectral])
def test_steps_do_not_depend_on_the_budget(problem, make, engine):
    ends = []
    for budget in (2000, 2**30):
        torch.manual_seed(0)
        model, function = problem()
        optimizer = make(model.parameters(), engine(memory_budget=budget))
        for _ in range(3):
            optimizer.step(function)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-8)


def test_complex_weights_that_are_not_held_have_real_columns():
    weight = nn.Parameter(torch.randn(6, dtype=torch.complex128))
    x = torch.randn(5, 6, dtype=torch.complex128)
    jacobians = [
        BatchedVJP(memory_budget=budget).linearize(lambda: (x @ weight).abs(), [weight], None)[1]
        for budget in (1, 2**20)
    ]
    assert isinstance(jacobians[0], RecomputedJacobian)
    check_products(jacobians[0], jacobians[1].dense())


# ---- several processes


@pytest.fixture
def one_rank(tmp_path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'ranks'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("engine", [DataParallel, Sharded])
@pytest.mark.parametrize("inner", [Ghost, BatchedVJP])
def test_several_processes_refuse_what_does_not_fit(engine, inner):
    model, function = bare_double()
    for budget, fits in ((2**30, True), (100_000, False)):
        optimizer = Sven(model.parameters(), engine=engine(inner(memory_budget=budget)))
        if fits:
            optimizer.step(function)
        else:
            with pytest.raises(ArgumentError, match="within the memory budget of every rank"):
                optimizer.step(function)


def test_columns_are_not_taken_where_they_would_leave_something_out():
    # With many more rows than parameters a Jacobian that fits comes by columns, which cannot be had here.
    jacobian = recomputed(40, 2, 1, activation=Once.apply)
    function, weights = (lambda: jacobian.rows), jacobian.parameters
    _, dense = BatchedVJP().linearize(function, weights, None)
    torch.testing.assert_close(dense.dense(), jacobian.expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("make", [lookup, small_spectral])
def test_factors_of_tables_and_modes_travel(make):
    model, function = make()
    parameters = list(model.parameters())
    alone, joined = (engine.linearize(function, parameters, None)[1] for engine in (Ghost(), DataParallel(Ghost())))
    torch.testing.assert_close(joined.gram(), alone.gram(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(joined.dense(), alone.dense(), rtol=1e-12, atol=1e-12)
