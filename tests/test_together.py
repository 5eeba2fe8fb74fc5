"""The parts of the library in one model: what each of them promises still holds inside of the others."""

import copy
import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from neuralop_kit import Domain
from neuralop_kit.constraints import AtStart, FiniteDifference, LeastSquaresConstraint, SpectralDerivative
from neuralop_kit.models import FNO
from neuralop_kit.neural_ode import Autonomous, ErrorRegularizer, NeuralODE, NeuralSDE

STRIP = Domain.box((1.0, 1.0), boundary=("dirichlet", "periodic"), nodes=("vertex", "left"))


@pytest.fixture
def example(monkeypatch):
    pytest.importorskip("tyro")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    return importlib.import_module("all_together")


def solved(rate: nn.Module, w: Tensor):
    """After half a time unit, by a step size that the solver chooses."""
    return NeuralODE(Autonomous(rate), rtol=1e-4, atol=1e-4, control="joint")(w, torch.tensor([0.0, 0.5]))


def drift(before: Tensor, after: Tensor) -> float:
    return ((after - before).mean(dim=(1, 2, 3)).abs().max() / before.abs().mean()).item()


def test_the_constraint_on_the_rate_keeps_the_total_of_the_solution(example):
    w, rate = example.flows(2, 16, 0)[:, 0].double(), example.Rate(16).double()
    assert drift(w, solved(rate, w).ys[-1]) < 1e-15
    finer = example.flows(2, 32, 0)[:, 0].double()
    assert drift(finer, solved(rate, finer).ys[-1]) < 1e-15
    rate.constraint.forward = lambda u, totals: (u, None)
    assert drift(w, solved(rate, w).ys[-1]) > 1e-5, "it would have been kept anyway"


def test_every_part_learns_from_the_loss_and_from_the_regularizer(example):
    w, rate = example.flows(2, 32, 0)[:, 0], example.Rate(32)
    solution = solved(rate, w)
    for number in (solution.ys[-1].square().mean(), ErrorRegularizer(1.0)(solution.stats)):
        gradients = torch.autograd.grad(number, [*rate.far.parameters(), *rate.near.parameters()], retain_graph=True)
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)


def test_it_trains_with_any_optimizer_from_gradients(example):
    data = example.flows(4, 16, 0)
    for name in ("soap", "muon", "nvrm"):
        settings = example.Settings(resolution=16, steps=6, optimizer=name)
        before, after = (
            example.evaluate(example.train(data, replace(settings, steps=steps), weight=0.1), data)[0]
            for steps in (0, 6)
        )
        assert after["at t = 2"] < before["at t = 2"], name


def test_it_is_saved_and_copied(example):
    w, rate = example.flows(2, 16, 0)[:, 0], example.Rate(16)
    expected = solved(rate, w).ys[-1]
    stored, other = safetensors.torch.save(rate.state_dict()), example.Rate(16)
    assert not torch.equal(solved(other, w).ys[-1], expected)
    other.load_state_dict(safetensors.torch.load(stored))
    assert torch.equal(solved(other, w).ys[-1], expected)
    twin = copy.deepcopy(rate)
    with torch.no_grad():
        for parameter in rate.parameters():
            parameter.zero_()
    assert torch.equal(solved(twin, w).ys[-1], expected)


class Classifier(nn.Module):
    """A differential equation between two matrices."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, 3), middle, nn.Linear(3, 2)

    def forward(self, u: Tensor) -> Tensor:
        u = torch.tanh(self.first(u))
        options = {"generator": torch.Generator().manual_seed(0)} if isinstance(self.middle, NeuralSDE) else {}
        return self.last(self.middle(u, torch.tensor([0.0, 1.0], dtype=u.dtype), **options).ys[-1])


def equations() -> list[nn.Module]:
    field = Autonomous(nn.Linear(3, 3))
    return [NeuralODE(field), NeuralODE(field, control="joint"), NeuralSDE(field, lambda t, u: 0.1 * u)]


@pytest.mark.parametrize("number", range(3))
def test_what_is_around_a_differential_equation_compiles(number):
    model, u = Classifier(equations()[number]).double(), torch.randn(4, 3, dtype=torch.float64)
    compiled = torch.compile(model, backend="aot_eager")
    expected, value = model(u), compiled(u)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-13)
    wanted = torch.autograd.grad(expected.sum(), list(model.parameters()))
    for got, want in zip(torch.autograd.grad(value.sum(), list(model.parameters())), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


class Physics(nn.Module):
    """Burgers' equation, solved in the functions of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.functions = FNO(1, 4, domain=STRIP, width=6, num_layers=1, modes=4)
        self.equation = LeastSquaresConstraint(
            lambda u, u_t, u_x, u_xx: u_t + u * u_x - 0.1 * u_xx, STRIP, conditions=[AtStart("initial", 0)]
        )

    def forward(self, u: Tensor) -> Tensor:
        return self.equation(self.functions(u), targets={"initial": u[:, 0, 0]})[0]


def test_what_is_around_an_equation_that_is_solved_compiles():
    model, u = Physics().double(), 0.3 * torch.randn(2, 1, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(u), model(u), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("derivative", [FiniteDifference(), SpectralDerivative()])
def test_derivatives_compile_for_sizes_and_orders_that_vary(derivative):
    circle = Domain.periodic((1.0,))
    compiled = torch.compile(
        lambda u, order: derivative(u, circle, 0, order=order), backend="aot_eager", fullgraph=True
    )
    for size, order in ((8, 1), (10, 2), (12, 3)):
        u = torch.randn(2, size, dtype=torch.float64)
        torch.testing.assert_close(compiled(u, order), derivative(u, circle, 0, order=order), rtol=1e-12, atol=1e-9)
