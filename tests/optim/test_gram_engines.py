"""Engines: factors, batched passes and one backward pass per row give the same Jacobian."""

import copy
import gc
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from neuralop_kit import Domain
from neuralop_kit.layers import FunctionNorm, SpectralConv, SphericalConv
from neuralop_kit.models import FNO, MgNO, TransformerOperator
from neuralop_kit.optim import Automatic, BatchedVJP, GaussNewton, Ghost, Sven
from neuralop_kit.optim.gram import squares as squares_module
from neuralop_kit.optim.gram.factors import BlockPiece, IndexPiece, OuterPiece
from neuralop_kit.optim.gram.jacobian import FactoredJacobian
from neuralop_kit.optim.gram.pieces import MatrixPiece
from neuralop_kit.solvers.errors import ArgumentError

DOUBLE = {"dtype": torch.float64}


def explicit(function, parameters) -> Tensor:
    """The Jacobian of scaled rows, one backward pass each."""
    value = function()
    if isinstance(value, dict):
        # A component of a field is a block of its own, after those before it.
        columns = [b.flatten(1).unbind(1) if b.ndim > 1 else [b] for b in value.values()]
        rows = torch.cat([c / b.numel() ** 0.5 for b, cs in zip(value.values(), columns, strict=True) for c in cs])
    else:
        rows = value
    table = []
    for row in rows:
        gradients = torch.autograd.grad(row, parameters, retain_graph=True, allow_unused=True)
        found = zip(gradients, parameters, strict=True)
        table.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in found]))
    return torch.stack(table)


def derivatives(u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and Laplacian of u at its points."""
    (gradient,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    seconds = [torch.autograd.grad(gradient[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
    return gradient, sum(seconds)


def points(num: int, dims: int = 2) -> Tensor:
    return torch.rand(num, dims, **DOUBLE, requires_grad=True)


class Mean(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return u.flatten(1).mean(dim=1)


def mlp():
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    return model, points(9)


def pinn():
    """Second derivatives in the residual, and a boundary block with a batch of its own."""
    model, x = mlp()
    edge = torch.rand(5, 2, **DOUBLE)
    return model, lambda: {"pde": derivatives(model(x), x)[1] - 1.0, "boundary": model(edge).squeeze(1)}


def joined_pinn():
    """The same in one vector, the boundary first although it is computed last."""
    model, x = mlp()
    edge = torch.rand(5, 2, **DOUBLE)

    def residual() -> Tensor:
        inside = derivatives(model(x), x)[1] - 1.0
        return torch.cat([model(edge).squeeze(1), inside])

    return model, residual


def system():
    """Three equations at each point, third derivatives, and two evaluations per row (periodicity)."""
    model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, left, right = points(7), torch.rand(4, 2, **DOUBLE), torch.rand(4, 2, **DOUBLE)

    def residual() -> dict[str, Tensor]:
        u = model(x)
        gradient, laplacian = derivatives(u[:, 0], x)
        (third,) = torch.autograd.grad(laplacian.sum(), x, create_graph=True)
        pde = torch.stack([laplacian - u[:, 1], gradient[:, 0] * u[:, 2], third[:, 1]], dim=1)
        return {"pde": pde, "periodic": model(left)[:, 0] - model(right)[:, 0]}

    return model, residual


def tokens():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False), Mean()).double()
    x = torch.randn(6, 5, 3, **DOUBLE)
    return model, lambda: model(x).sin()


def convolutions():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Tanh(),
        nn.Conv2d(3, 4, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(1, 0)), nn.Tanh(),
        nn.Conv2d(4, 2, 2, padding="same", bias=False), Mean(),
    ).double()  # fmt: skip
    x = torch.randn(5, 2, 7, 6, **DOUBLE)
    return model, lambda: model(x)


def line_convolution_with_derivative():
    """The derivative of a convolution's output with respect to its input, inside the residual."""
    model = nn.Sequential(nn.Conv1d(1, 3, 3, stride=2), nn.Tanh(), nn.Conv1d(3, 1, 2)).double()
    x = torch.randn(6, 1, 8, **DOUBLE, requires_grad=True)

    def residual() -> Tensor:
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        return gradient.flatten(1).square().sum(dim=1)

    return model, residual


def spectral():
    domain = Domain.periodic((1.0, 2.0))
    model = nn.Sequential(
        SpectralConv(2, 3, (4, 3)), nn.GELU(), FunctionNorm(3, domain=domain), SpectralConv(3, 2, (3, 4)), Mean()
    ).double()
    x = torch.randn(4, 2, 7, 6, **DOUBLE)
    return model, lambda: model(x)


def mixed():
    """Layers that are recorded, a norm that is copied per sample, a bare parameter, a tied layer, an unused one."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv1d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)
            self.grouped = nn.Conv1d(4, 4, 3, groups=2)
            self.linear, self.unused = nn.Linear(4, 4), nn.Linear(3, 3)
            self.scale = nn.Parameter(torch.rand(4))

        def forward(self, u: Tensor) -> Tensor:
            u = self.grouped(self.norm(self.conv(u)).tanh()).mean(dim=-1)
            return (self.linear(self.linear(u).tanh()) * self.scale).sum(dim=1)

    model = Model().double()
    x = torch.randn(6, 2, 9, **DOUBLE)
    return model, lambda: model(x)


def operator():
    """An FNO, whose pointwise layers get a second field by keyword."""
    domain = Domain.periodic((1.0,))
    model = FNO(1, 1, domain=domain, width=3, num_layers=2, modes=3).double()
    x = torch.randn(4, 1, 8, **DOUBLE)
    return model, lambda: model(x)[:, 0].square().mean(dim=1)


def multigrid():
    """Kernels that are convolved with, and used in other ways beside; a product in a form of its own."""
    domain = Domain.box((1.0,), boundary="dirichlet", nodes="vertex")
    model = MgNO(1, 1, domain=domain, width=2, num_layers=2, levels=2, coarsest=2).double()
    x = torch.randn(3, 1, 9, **DOUBLE)
    return model, lambda: model(x)[:, 0].square().mean(dim=1)


def attention():
    domain = Domain.periodic((1.0,))
    model = TransformerOperator(1, 1, domain=domain, width=4, num_layers=1, num_heads=2).double()
    x = torch.randn(3, 1, 8, **DOUBLE)
    return model, lambda: model(x)[:, 0].square().mean(dim=1)


class Lookup(nn.Module):
    """A table that is looked up in, some times for nothing, and what it gives, in layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layers = nn.Embedding(7, 3, padding_idx=-1), nn.Sequential(nn.Linear(3, 4), nn.Tanh())

    def forward(self, indices: Tensor) -> Tensor:
        return self.layers(self.table(indices)).flatten(1).sum(dim=1).sin()


def lookup():
    """Two batches of different sizes, and another one of single indices, in one vector."""
    model = Lookup().double()
    inside, edge, single = torch.randint(0, 7, (6, 5)), torch.randint(0, 7, (4, 2, 2)), torch.randint(0, 7, (4,))

    def residual() -> dict[str, Tensor]:
        return {"inside": model(inside), "edge": torch.cat([model(edge), model(single)])}

    return model, residual


def tied():
    """A table that is also the weight of a layer."""
    model = nn.Embedding(7, 3).double()
    indices = torch.randint(0, 7, (5, 4))
    return model, lambda: F.linear(model(indices).tanh(), model.weight).flatten(1).square().mean(dim=1)


def positions():
    """A table of positions, which are no samples, and one of words, which are."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.positions, self.head = nn.Embedding(7, 3), nn.Embedding(4, 3), nn.Linear(3, 1)

        def forward(self, indices: Tensor) -> Tensor:
            u = self.words(indices) + self.positions(torch.arange(4))
            return self.head(u.tanh()).flatten(1).sum(dim=1)

    model, indices = Model().double(), torch.randint(0, 7, (6, 4))
    return model, lambda: model(indices)


def sphere():
    """One matrix per degree."""
    model = nn.Sequential(SphericalConv(2, 3, 4, domain=Domain.sphere()), nn.Tanh(), Mean()).double()
    x = torch.randn(3, 2, 5, 8, **DOUBLE)
    return model, lambda: model(x)


def joined_spectral():
    """Two batches of fields in one vector, the second with a derivative with respect to its values."""
    model = nn.Sequential(SpectralConv(1, 2, (5,)), nn.Tanh(), SpectralConv(2, 1, (3,)), Mean()).double()
    x, y = torch.randn(4, 1, 6, **DOUBLE), torch.randn(4, 1, 9, **DOUBLE, requires_grad=True)

    def residual() -> Tensor:
        (gradient,) = torch.autograd.grad(model(y).square().sum(), y, create_graph=True)
        return torch.cat([model(x), gradient.square().mean(dim=(1, 2))])

    return model, residual


OPERATORS = [operator, multigrid, attention]
LOOKUPS = [lookup, tied, positions]
PER_MODE = [sphere, joined_spectral]
CASES = [
    *LOOKUPS,
    *PER_MODE,
    pinn,
    joined_pinn,
    system,
    tokens,
    convolutions,
    line_convolution_with_derivative,
    spectral,
    mixed,
    *OPERATORS,
]


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def case(request):
    torch.manual_seed(0)
    model, function = request.param()
    return model, function, list(model.parameters())


@pytest.mark.parametrize("engine", [Ghost, BatchedVJP, Automatic])
def test_engines_agree_with_one_backward_pass_per_row(case, engine):
    _, function, parameters = case
    expected = explicit(function, parameters)
    engine = engine()
    for _ in range(2):  # the second time nothing is checked any more
        r, jacobian = engine.linearize(function, parameters, None)
    assert isinstance(jacobian, FactoredJacobian) == (not isinstance(engine, BatchedVJP))
    scale = expected.abs().max()
    assert (jacobian.dense() - expected).abs().max() < 1e-12 * scale
    assert (jacobian.gram() - expected @ expected.T).abs().max() < 1e-12 * scale**2 * expected.shape[1]
    assert (jacobian.normal() - expected.T @ expected).abs().max() < 1e-12 * scale**2 * expected.shape[0]
    w, v = torch.randn(len(r), **DOUBLE), torch.randn(expected.shape[1], **DOUBLE)
    torch.testing.assert_close(jacobian.transposed_times(w), expected.T @ w, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(jacobian.times(v), expected @ v, rtol=1e-11, atol=1e-12)


def test_engines_agree_within_any_memory(case):
    _, function, parameters = case
    expected = explicit(function, parameters)
    for engine in (Ghost(memory_budget=500), BatchedVJP(memory_budget=500)):
        _, jacobian = engine.linearize(function, parameters, None)
        scale = expected.abs().max()
        assert (jacobian.gram() - expected @ expected.T).abs().max() < 1e-12 * scale**2 * expected.shape[1]
        assert (jacobian.normal() - expected.T @ expected).abs().max() < 1e-12 * scale**2 * expected.shape[0]


@pytest.mark.parametrize(
    ("make", "kind", "count"),
    [(lookup, IndexPiece, 3), (tied, IndexPiece, 1), (sphere, BlockPiece, 1), (spectral, BlockPiece, 2),
     (operator, BlockPiece, 2), (joined_spectral, BlockPiece, 4)],
)  # fmt: skip
def test_tables_and_weights_per_mode_have_factors(make, kind, count):
    torch.manual_seed(0)
    model, function = make()
    _, jacobian = Ghost().linearize(function, list(model.parameters()), None)
    assert sum(isinstance(piece, kind) for piece in jacobian.pieces) == count


class Silent(nn.Module):
    """Two batches in one vector, which at first do not depend on the layer with a weight per mode."""

    def __init__(self) -> None:
        super().__init__()
        self.spectral, self.last = nn.Sequential(SpectralConv(1, 2, (3,)), nn.Tanh(), Mean()), nn.Linear(1, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([self.last(self.spectral(u)[:, None]) for u in (x, y)]).squeeze(1)


def test_what_got_nothing_yet_is_looked_at_again():
    # Of a layer that is silent no comparison says which rows its samples are.
    torch.manual_seed(0)
    model, engine = Silent().double(), Ghost()
    x, y = torch.randn(4, 1, 6, **DOUBLE), torch.randn(4, 1, 8, **DOUBLE)
    parameters = list(model.parameters())
    for weight in (0.0, 1.0):
        nn.init.constant_(model.last.weight, weight)
        _, jacobian = engine.linearize(lambda: model(x, y), parameters, None)
        expected = explicit(lambda: model(x, y), parameters)
        torch.testing.assert_close(jacobian.dense(), expected, rtol=1e-12, atol=1e-12)


def test_lookups_that_change_the_table_are_done_by_passes():
    model = nn.Sequential(nn.Embedding(7, 3, max_norm=1.0), nn.Linear(3, 1)).double()
    indices = torch.randint(0, 7, (6, 4))
    _, jacobian = Ghost().linearize(lambda: model(indices).flatten(1).sum(dim=1), list(model.parameters()), None)
    assert not any(isinstance(piece, IndexPiece) for piece in jacobian.pieces)


@pytest.fixture
def without_passes_per_row(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a pass per row")

    monkeypatch.setattr("neuralop_kit.optim.gram.engines.dense_jacobian", refuse)


@pytest.mark.parametrize("make", OPERATORS)
@pytest.mark.usefixtures("without_passes_per_row")
def test_no_row_needs_a_backward_pass_of_its_own(make):
    model, function = make()
    _, jacobian = Ghost().linearize(function, list(model.parameters()), None)
    assert jacobian.dense().abs().max() > 0


@pytest.mark.usefixtures("without_passes_per_row")
def test_modules_with_layers_inside_are_not_run_again_where_it_does_not_pay():
    model, function = mixed()
    with pytest.raises(AssertionError, match="a pass per row"):
        Ghost().linearize(function, list(model.parameters()), None)


def test_recording_leaves_no_trace(case):
    model, function, parameters = case
    before = copy.deepcopy(model.state_dict())
    Ghost().linearize(function, parameters, None)
    assert all(p.grad is None for p in parameters)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    value = function()
    rows = torch.cat([v.flatten() for v in value.values()]) if isinstance(value, dict) else value
    assert torch.autograd.grad(rows.sum(), parameters, allow_unused=True)[0] is not None


def test_columns_equal_rows():
    # With more than twice as many rows as parameters the fallback goes by columns.
    torch.manual_seed(0)
    model, x = nn.Linear(2, 1).double(), torch.rand(30, 2, **DOUBLE)
    few = [model.weight, model.bias]
    _, jacobian = BatchedVJP().linearize(lambda: model(x).squeeze(1).sin(), few, None)
    expected = explicit(lambda: model(x).squeeze(1).sin(), few)
    torch.testing.assert_close(jacobian.dense(), expected, rtol=0, atol=1e-14)


# ---- rows that do not belong to samples


def coupled():
    """Batch statistics: every row depends on every sample."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(6, 3, **DOUBLE)
    return model, lambda: model(x).squeeze(1)


def differences():
    """Neighbouring samples share rows."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(6, 3, **DOUBLE)
    return model, lambda: model(x).squeeze(1).diff()


def shuffled():
    """Rows in another order than samples."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, order = torch.randn(6, 3, **DOUBLE), torch.tensor([3, 1, 0, 2, 5, 4])
    return model, lambda: model(x).squeeze(1)[order]


def transformed():
    """Function transforms inside the residual."""
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.rand(6, 2, **DOUBLE)

    def residual() -> Tensor:
        hessians = torch.func.vmap(torch.func.hessian(lambda point: model(point).squeeze(0)))(x)
        return hessians.diagonal(dim1=1, dim2=2).sum(dim=1)

    return model, residual


@pytest.mark.parametrize("make", [coupled, differences, shuffled, transformed])
def test_other_rows_are_found_out_and_done_by_passes(make):
    torch.manual_seed(0)
    model, function = make()
    parameters = list(model.parameters())
    with pytest.raises(ArgumentError, match=r"belong to samples.*use BatchedVJP"):
        Ghost().linearize(function, parameters, None)
    engine = Automatic()
    _, jacobian = engine.linearize(function, parameters, None)
    assert isinstance(engine.chosen, BatchedVJP)
    torch.testing.assert_close(jacobian.dense(), explicit(function, parameters), rtol=1e-11, atol=1e-12)


def autocast():
    model, points = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)), torch.rand(6, 2)

    def residual() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(points).squeeze(1).float() - 1

    return model, residual, "under autocast"


def checkpointed():
    model, points = mlp()
    return model, lambda: checkpoint(model, points, use_reentrant=False).squeeze(1) - 1, "checkpoints inside"


@pytest.mark.parametrize("make", [autocast, checkpointed], ids=lambda make: make.__name__)
def test_what_cannot_be_recorded_is_done_by_passes(make):
    model, residual, message = make()
    parameters, engine = list(model.parameters()), Automatic()
    with pytest.raises(ArgumentError, match=f"{message}; use BatchedVJP"):
        Ghost().linearize(residual, parameters, None)
    found = engine.linearize(residual, parameters, None)[1].dense()
    assert isinstance(engine.chosen, BatchedVJP)
    expected = explicit(residual, parameters)
    assert (found - expected).norm() < 2e-2 * expected.norm()


@pytest.mark.parametrize("engine", [Ghost, Automatic, BatchedVJP])
def test_complex_layers_have_real_columns(engine):
    model, points = nn.Linear(3, 2, dtype=torch.complex128), torch.rand(5, 3, dtype=torch.complex128)
    target = torch.rand(5, dtype=torch.complex128)

    def residual() -> dict[str, Tensor]:
        u = model(points).tanh().prod(dim=1) - target
        return {"real": u.real, "imaginary": u.imag}

    parameters = list(model.parameters())
    r, jacobian = engine().linearize(residual, parameters, None)
    theta = [torch.view_as_real(p.detach()) for p in parameters]
    step = torch.randn(jacobian.num_columns, **DOUBLE)
    values = []
    for size in (1e-6, -2e-6):
        for p, part in zip(theta, step.split([p.numel() for p in theta]), strict=True):
            p += size * part.view_as(p)
        u = residual()
        values.append(torch.cat([block.detach() for block in u.values()]) / 5**0.5)
    expected = (values[0] - values[1]) / 2e-6
    assert (jacobian.times(step) - expected).norm() < 1e-6 * expected.norm()
    assert len(r) == 10


def test_without_the_check_coupled_rows_would_be_wrong(monkeypatch):
    # Negative control: what the comparison with a plain backward pass is for.
    torch.manual_seed(0)
    model, function = shuffled()
    parameters = list(model.parameters())
    monkeypatch.setattr("neuralop_kit.optim.gram.engines._verify", lambda *_: None)
    _, jacobian = Ghost().linearize(function, parameters, None)
    assert (jacobian.dense() - explicit(function, parameters)).abs().max() > 1e-2


@pytest.mark.parametrize("engine", [Ghost, Automatic])
def test_a_start_at_the_solution_is_not_taken_for_other_residuals(engine):
    # Two runs of the same function may round differently, and here there is nothing else.
    torch.manual_seed(0)
    model, x = mlp()
    values, generator = model(x).detach(), torch.Generator().manual_seed(0)

    def residual(noise: float) -> Tensor:
        return (model(x) - values).squeeze(1) + noise * torch.randn(9, generator=generator, **DOUBLE)

    engine().linearize(lambda: residual(1e-16), list(model.parameters()), None)
    with pytest.raises(ArgumentError, match="same residual from two calls"):
        engine().linearize(lambda: residual(1e-10), list(model.parameters()), None)


def test_a_jacobian_of_rounding_is_not_taken_for_coupled_rows():
    torch.manual_seed(0)
    model, x = mlp()
    parameters = list(model.parameters())

    def cancelling() -> Tensor:
        return (0.7 * model(x) - sum(0.1 * model(x) for _ in range(7))).squeeze(1) + 1.0

    _, jacobian = Ghost().linearize(cancelling, parameters, None)
    assert 0 < jacobian.dense().abs().max() < 1e-14


# ---- which way the Gram matrix is made


@pytest.mark.parametrize(("num_tokens", "ghost"), [(1, True), (3, True), (40, False)])
def test_factors_are_multiplied_out_where_that_is_cheaper(monkeypatch, num_tokens, ghost):
    torch.manual_seed(0)
    piece = OuterPiece(0, 0, torch.randn(6, num_tokens, 20, **DOUBLE), torch.randn(6, num_tokens, 30, **DOUBLE))
    calls = []
    original = OuterPiece.ghost_products
    monkeypatch.setattr(
        OuterPiece, "ghost_products", lambda *args, **options: calls.append(1) or original(*args, **options)
    )
    total = torch.zeros(6, 6, **DOUBLE)
    squares_module.add_gram(total, [piece], memory_budget=2**30)
    assert bool(calls) == ghost
    rows = torch.einsum("bto,bti->boi", piece.cotangents, piece.inputs).flatten(1)
    torch.testing.assert_close(total, rows @ rows.T, rtol=1e-12, atol=1e-10)


def test_float32_layers_have_a_float64_gram_matrix():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 50), nn.Tanh(), nn.Linear(50, 1))
    x = torch.randn(12, 4)
    _, jacobian = Ghost().linearize(lambda: model(x).squeeze(1), list(model.parameters()), None)
    assert jacobian.gram().dtype == torch.float64
    assert jacobian.factor_eps == torch.finfo(torch.float32).eps
    rows = jacobian.dense()
    # Accumulated in float64 from float32 factors: exact for these factors.
    torch.testing.assert_close(jacobian.gram(), rows @ rows.T, rtol=1e-13, atol=1e-13)


# ---- whole steps


@pytest.mark.parametrize("engine", [Ghost, BatchedVJP])
@pytest.mark.parametrize("make", [lambda p, e: Sven(p, rtol=1e-3, engine=e), lambda p, e: GaussNewton(p, engine=e)])
def test_steps_do_not_depend_on_the_engine(engine, make):
    ends = []
    for used in (engine(), Automatic()):
        torch.manual_seed(0)
        model, function = pinn()
        optimizer = make(model.parameters(), used)
        for _ in range(3):
            optimizer.step(function)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-9)


def test_frozen_layers_are_no_columns():
    torch.manual_seed(0)
    model, function = pinn()
    model[0].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    optimizer = Sven(model.parameters(), engine=Ghost())
    before = copy.deepcopy(model.state_dict())
    optimizer.step(function)
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert moved == ["2.weight", "4.weight", "4.bias"]
    assert optimizer.info.num_parameters == 20 + 4 + 1


def test_shapes_may_change_between_steps():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    optimizer = Sven(model.parameters(), engine=Ghost())
    for num in (8, 11, 8):
        x = torch.rand(num, 2, **DOUBLE)
        optimizer.step(lambda x=x: model(x).squeeze(1) - 1.0)
        assert optimizer.info.num_rows == num


def test_unfold_is_the_patch_of_torch():
    # Tokens of a convolution are torch's own patches.
    from neuralop_kit.optim.gram.layer_kernels import ConvKernel
    from neuralop_kit.optim.gram.recorder import Recorder

    weight = nn.Parameter(torch.randn(3, 2, 3, 2))
    kernel = ConvKernel(Recorder([weight]), weight, None, (2, 1), (1, 2))
    x = torch.randn(4, 2, 7, 6)
    expected = F.unfold(x, (3, 2), dilation=(1, 2), stride=(2, 1)).mT
    assert torch.equal(kernel.input_tokens(x), expected)


def test_recording_leaves_no_global_hook_behind():
    from torch.nn.modules import module as module_hooks

    from neuralop_kit.optim import Sven

    net = torch.nn.Linear(2, 1).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    before = len(module_hooks._global_forward_hooks_with_kwargs)
    Sven(net.parameters()).step(lambda: net(x)[:, 0] - 1.0)
    assert len(module_hooks._global_forward_hooks_with_kwargs) == before
    assert len(module_hooks._global_forward_hooks) == 0


class Scaled(nn.Module):
    """A parameter that no recorded layer owns."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, **DOUBLE))

    def forward(self, u: Tensor) -> Tensor:
        return self.scale * u


@pytest.mark.parametrize(("with_copies", "with_derivatives"), [(False, False), (True, False), (False, True)])
def test_a_step_leaves_nothing_to_the_garbage_collector(with_copies, with_derivatives):
    middle = Scaled() if with_copies else nn.Tanh()
    model = nn.Sequential(nn.Linear(2, 8), middle, nn.Linear(8, 1)).double()
    x = points(9)

    def residual() -> Tensor:
        u = model(x).squeeze(1)
        return derivatives(u, x)[0].sum(dim=1) - 1.0 if with_derivatives else u - 1.0

    optimizer = Sven(model.parameters(), engine=Ghost(), lr=0.1)
    optimizer.step(residual)

    def num_tensors() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sum(isinstance(item, Tensor) for item in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = num_tensors()
        for _ in range(5):
            optimizer.step(residual)
        assert num_tensors() <= before
    finally:
        gc.enable()


def test_a_weight_and_its_bias_share_the_products_of_their_cotangents(monkeypatch):
    torch.manual_seed(0)
    inputs, cotangents = torch.randn(6, 1, 16).double(), torch.randn(6, 1, 12).double()
    weight = OuterPiece(0, 0, inputs, cotangents)
    bias = MatrixPiece(192, 0, cotangents.squeeze(1))
    strangers = {
        "same numbers, other memory": MatrixPiece(192, 0, cotangents.squeeze(1).clone()),
        "same memory, other rows": MatrixPiece(192, 2, cotangents.squeeze(1)),
        "part of it": MatrixPiece(192, 0, cotangents.squeeze(1)[:, :5]),
    }
    calls = []
    original = squares_module._own_products
    monkeypatch.setattr(squares_module, "_own_products", lambda factor: calls.append(1) or original(factor))

    def check(other: MatrixPiece) -> bool:
        calls.clear()
        columns = 192 + other.num_columns
        jacobian = FactoredJacobian(
            8, columns, [other, weight], factor_eps=1e-16, memory_budget=2**20, device=torch.device("cpu")
        )
        dense = jacobian.dense()
        torch.testing.assert_close(jacobian.gram(), dense @ dense.T, rtol=1e-13, atol=1e-13)
        w = torch.randn(8).double()
        torch.testing.assert_close(jacobian.transposed_times(w), dense.T @ w, rtol=1e-13, atol=1e-13)
        return squares_module.bias_of(weight, [other]) is not None

    assert check(bias)
    assert calls == [1, 1]
    assert not any(check(other) for other in strangers.values())
