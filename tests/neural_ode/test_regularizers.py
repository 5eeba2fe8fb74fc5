"""Regularizers: their values from closed forms, their gradients, and that they do what they promise."""

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.neural_ode import (
    RNODE,
    Autonomous,
    ErrorRegularizer,
    ExponentialDecay,
    LocalRegularizer,
    NeuralODE,
    NeuralSDE,
    StiffnessRegularizer,
    TayNODE,
    end_points,
    largest,
    mean_of_squares,
    mean_of_steps,
    sum_of_squares,
    sum_of_steps,
)
from neuralop_kit.neural_ode.integrals import IntegralRegularizer
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.ode import FixedStep
from neuralop_kit.solvers.ode.solution import Statistics
from neuralop_kit.solvers.sde import BrownianTree

UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)
AGGREGATES = [mean_of_steps, sum_of_steps, sum_of_squares, mean_of_squares, largest]


def statistics() -> Statistics:
    """Two samples: steps of 0.25 and 0.75, and one of 1; the empty place of the second holds zeros."""
    counts = torch.tensor([2, 1])
    return Statistics(
        counts, 0 * counts, 6 * counts, 0 * counts,
        error=torch.tensor([[0.2, 0.5], [0.4, 0.0]]), stiffness=torch.tensor([[3.0, 2.0], [7.0, 0.0]]),
        step_size=torch.tensor([[0.25, 1.0], [0.75, 0.0]]), step_start=torch.tensor([[0.0, 0.0], [0.25, 0.0]]),
        accepted=torch.tensor([[True, True], [True, False]]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("over", "error", "stiffness"),
    [
        (mean_of_steps, (0.35 / 2 + 0.5) / 2, (6.0 / 2 + 2) / 2),
        (sum_of_steps, (0.35 + 0.5) / 2, (6.0 + 2) / 2),
        (sum_of_squares, (0.2 + 0.25) / 2, (58 + 4) / 2 / 3.5068),
        (mean_of_squares, (0.1 + 0.25) / 2, (29 + 4) / 2 / 3.5068),
        (largest, (0.4 + 0.5) / 2, (7 + 2) / 2),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_values_by_hand(over, error, stiffness):
    assert ErrorRegularizer(3.0, over=over)(statistics()).item() == pytest.approx(3 * error, rel=1e-6)
    found = StiffnessRegularizer(3.0, over=over)(statistics()).item()
    assert found == pytest.approx(3 * stiffness / 3.5068, rel=1e-6)


def test_defaults_are_those_of_the_published_code():
    assert ErrorRegularizer().over is mean_of_steps
    assert StiffnessRegularizer().over is largest


def test_the_text_form_of_stiffness_is_the_integral_of_the_rate():
    """For u' = -L u, S_j = L at every step, so that sum S h = L T."""
    solution = NeuralODE(lambda t, u: -5.0 * u)(torch.ones(2, 1, dtype=torch.float64), 2 * UNIT)
    penalty = StiffnessRegularizer(1.0, over=sum_of_steps)(solution.stats)
    assert penalty.item() == pytest.approx(10 / 3.5068, rel=1e-7)


def test_schedule():
    schedule = ExponentialDecay(100.0, 1.0)
    assert [schedule(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([100, 10, 1])
    found = ErrorRegularizer(schedule)(statistics(), progress=0.5)
    assert found.item() == pytest.approx(ErrorRegularizer(10.0)(statistics()).item(), rel=1e-6)


class Wave(nn.Module):
    """A small nonlinear field that depends on time."""

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(scale * torch.tensor([[0.3, -1.1], [0.9, 0.2]], dtype=torch.float64))

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(u @ self.weight + torch.sin(2 * t))


@pytest.mark.parametrize("over", AGGREGATES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_gradients_with_steps_held_constant(over, control):
    u0 = torch.tensor([[0.5, -0.2], [0.1, 1.0]], dtype=torch.float64)
    field = Wave()
    node = NeuralODE(field, control=control, controller=FixedStep(0.25))

    def penalty(weight: Tensor) -> tuple[Tensor, Tensor]:
        stats = torch.func.functional_call(node, {"field.weight": weight}, (u0, UNIT)).stats
        return ErrorRegularizer(1e-3, over=over)(stats), StiffnessRegularizer(1.0, over=over)(stats)

    assert torch.autograd.gradcheck(penalty, (field.weight.detach().requires_grad_(),), eps=1e-6)


@pytest.mark.parametrize("over", AGGREGATES, ids=lambda f: f.__name__)
def test_gradients_are_finite_where_the_error_is_zero(over):
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    stats = NeuralODE(lambda t, u: weight * u)(torch.ones(3, 2, dtype=torch.float64), UNIT).stats
    assert stats.error.max() == 0
    (ErrorRegularizer(over=over)(stats) + StiffnessRegularizer(over=over)(stats)).backward()
    assert torch.isfinite(weight.grad)


def test_a_solve_without_steps_costs_nothing():
    empty = {
        name: getattr(statistics(), name)[:0] for name in ("error", "stiffness", "step_size", "step_start", "accepted")
    }
    for over in AGGREGATES:
        assert ErrorRegularizer(over=over)(replace(statistics(), **empty)).item() == 0


def test_on_stochastic_paths():
    weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    sde = NeuralSDE(lambda t, u: -weight * u, lambda t, u: 0.2 * u, method="sosri2", rtol=0.1, atol=0.1)
    u0 = torch.ones(4, 2, dtype=torch.float64)
    stats = sde(u0, UNIT, brownian=BrownianTree(0, 1, (4, 2))).stats
    (ErrorRegularizer(1.0)(stats) + StiffnessRegularizer(1.0)(stats)).backward()
    assert weight.grad > 0


class TestLocal:
    u0 = torch.tensor([[0.5, -0.2], [0.1, 1.0], [2.0, 0.3]], dtype=torch.float64)
    times = torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)

    @pytest.mark.parametrize("h", ["accepted", "initial"])
    @pytest.mark.parametrize("times", ["uniform", "steps"])
    @pytest.mark.parametrize("control", ["per_sample", "joint"])
    def test_the_solution_is_the_nodes_own_and_gradients_are_those_of_one_step(self, h, times, control, generator):
        node = NeuralODE(Wave(scale=3.0), control=control)
        local = LocalRegularizer(2.0, times=times, h=h)
        solution, penalty = local.solve(node, self.u0, self.times, generator=generator)
        plain = node(self.u0, self.times)
        assert torch.equal(solution.ts, self.times)
        assert torch.allclose(solution.ys, plain.ys, rtol=0, atol=1e-12)
        assert torch.equal(solution.stats.num_evaluations, plain.stats.num_evaluations)
        assert penalty > 0
        (gradient,) = torch.autograd.grad(penalty, node.field.weight)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0

    def test_an_accepted_step_from_its_beginning_has_its_own_error(self, generator):
        """Biased times are beginnings of steps: the penalty is then E h of one of them, but of the last one."""
        node = NeuralODE(Wave(scale=3.0), control="joint")
        solution, penalty = LocalRegularizer(1.0, times="steps").solve(node, self.u0, self.times, generator=generator)
        candidates = (solution.stats.error * solution.stats.step_size)[:-1, 0]
        assert ((candidates - penalty).abs() / penalty).min() < 1e-6

    def test_uniform_times_cover_the_interval_and_beginnings_all_steps_but_the_last(self):
        seen = {"uniform": [], "steps": []}

        def field(t: Tensor, u: Tensor) -> Tensor:
            calls.append(t.reshape(-1)[0].item())
            return torch.sin(9 * t * u)

        calls: list[float] = []
        node = NeuralODE(field, rtol=1e-4, atol=1e-4, control="joint")
        starts = node(self.u0, self.times).stats.step_start[:, 0]
        for times, found in seen.items():
            local, source = LocalRegularizer(times=times), torch.Generator().manual_seed(0)
            for _ in range(60):
                local.solve(node, self.u0, self.times, generator=source)
                # The extra step is the last thing that happens: one evaluation where it begins, then six more.
                found.append(calls[-7])
        assert min(seen["uniform"]) < 0.2
        assert max(seen["uniform"]) > 1.8
        steps = torch.tensor(seen["steps"], dtype=torch.float64)
        assert (steps[:, None] - starts[:-1]).abs().min(dim=1).values.max() < 1e-12
        assert len(steps.unique()) > len(starts) / 2

    def test_the_mean_over_many_draws_is_the_integral_over_the_time(self, generator):
        """Unbiased: the mean of E h, h the step that the solver took at each time; that over the steps is another."""
        node, u0, times = NeuralODE(Wave(scale=3.0), rtol=1e-4, atol=1e-4), self.u0[:1], self.times[[0, 2]]
        with torch.no_grad():
            stats = node(u0, times).stats
            nodes = torch.linspace(0, 2, 1001, dtype=torch.float64)
            u = node(u0, nodes).ys[:-1, 0]
            h = stats.step_size[(nodes[:-1, None] >= stats.step_start.T).sum(dim=1) - 1, 0]
            field = node.field(nodes[:-1, None], u)
            of_times = node.stepper().take(nodes[:-1], u, field, h).error * h
            of_steps = (stats.error * stats.step_size)[:-1, 0]
            for name, values, other in (("uniform", of_times, of_steps), ("steps", of_steps, of_times)):
                local, many = LocalRegularizer(times=name), u0.expand(4000, 2)
                drawn = local.solve(node, many, times, generator=generator)[1]
                tolerance = 4 * values.std() / math.sqrt(4000)
                assert (drawn - values.mean()).abs() < tolerance
                assert (drawn - other.mean()).abs() > tolerance

    def test_times_may_be_whole_numbers(self):
        penalties = {LocalRegularizer().solve(NeuralODE(Wave()), self.u0, torch.tensor([0, 2]))[1] for _ in range(3)}
        assert len(penalties) == 3

    def test_bad_arguments(self):
        with pytest.raises(ArgumentError, match="times"):
            LocalRegularizer(times="often")
        with pytest.raises(ArgumentError, match="increasing"):
            LocalRegularizer().solve(NeuralODE(Wave()), self.u0, self.times.flip(0))
        for kind in (ErrorRegularizer, LocalRegularizer, TayNODE):
            with pytest.raises(ArgumentError, match="weight"):
                kind(-1.0)
        with pytest.raises(ArgumentError, match="positive"):
            ExponentialDecay(1.0, 0.0)


class Cliff(nn.Module):
    """No number where the first component is above 5, which it reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([3.0, 1.0], dtype=torch.float64))

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return torch.where(u[:, :1] > 5, torch.nan, 1.0) * (self.rate + torch.sin(u))


def penalties() -> dict[str, Callable[[NeuralODE, Tensor], Tensor]]:
    """All ways from a node and a state to a penalty; the random ones with the same numbers in every call."""

    def of(regularizer: LocalRegularizer | IntegralRegularizer) -> Callable[[NeuralODE, Tensor], Tensor]:
        return lambda node, u0: regularizer.solve(node, u0, UNIT, generator=torch.Generator().manual_seed(0))[1]

    return {
        "error": lambda node, u0: ErrorRegularizer()(node(u0, UNIT).stats),
        "stiffness": lambda node, u0: StiffnessRegularizer()(node(u0, UNIT).stats),
        "uniform": of(LocalRegularizer()),
        "uniform, initial": of(LocalRegularizer(h="initial")),
        "uniform, stiffness": of(LocalRegularizer(estimate="stiffness")),
        "steps": of(LocalRegularizer(times="steps")),
        "TayNODE": of(TayNODE(1.0, order=1)),
        "RNODE": of(RNODE()),
    }


@pytest.mark.parametrize("name", penalties())
@pytest.mark.parametrize("late", [False, True])
def test_a_sample_that_fails_does_not_harm_the_penalty_of_the_others(name, late):
    node, good = NeuralODE(Cliff(), rtol=1e-3), torch.tensor([[0.5, 2.0], [-1.0, 0.0]], dtype=torch.float64)
    bad = torch.tensor([[4.9 if late else 6.0, 1.0]], dtype=torch.float64)
    penalty = penalties()[name](node, torch.cat([good, bad]))
    (gradient,) = torch.autograd.grad(penalty, node.field.rate)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
    if name not in ("error", "stiffness"):
        # Steps that a failing sample took are steps; a path that does not arrive has no integral.
        alone = penalties()[name](node, good)
        assert penalty.item() == pytest.approx(alone.item(), rel=1e-9)


@pytest.mark.parametrize("name", penalties())
@pytest.mark.parametrize("control", ["per_sample", "joint"])
def test_without_any_sample_that_arrives_the_penalty_is_zero(name, control):
    node = NeuralODE(Cliff(), control=control)
    for u0 in (torch.full((2, 2), 6.0, dtype=torch.float64), torch.zeros(0, 2, dtype=torch.float64)):
        assert penalties()[name](node, u0).item() == 0


def circles(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points inside of radius 1 and between 1.5 and 2.5; the class is which."""
    label = torch.arange(count) % 2
    radius = torch.where(label == 0, 0.0, 1.5) + torch.rand(count, generator=generator)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), label


@functools.cache
def train(kind: str, seed: int) -> tuple[float, float]:
    """Evaluations per solve and accuracy after training, with the same data, seed and number of steps."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    network = nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3))
    node, head = NeuralODE(Autonomous(network), rtol=1e-5, atol=1e-5, control="joint"), nn.Linear(3, 2)
    optimizer = torch.optim.Adam([*node.parameters(), *head.parameters()], lr=1e-2)
    x, label = circles(128, generator)
    u0, t = nn.functional.pad(x, (0, 1)), end_points(like=x)
    schedule = ExponentialDecay(100.0, 10.0)
    error, local = ErrorRegularizer(schedule), LocalRegularizer(schedule)
    for step in range(80):
        penalty: Tensor | float = 0.0
        if kind == "local":
            solution, penalty = local.solve(node, u0, t, progress=step / 80, generator=generator)
        else:
            solution = node(u0, t)
        if kind == "error":
            penalty = error(solution.stats, progress=step / 80)
        loss = nn.functional.cross_entropy(head(solution.ys[-1]), label)
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()
    with torch.no_grad():
        solution = node(u0, t)
        accuracy = (head(solution.ys[-1]).argmax(dim=1) == label).double().mean().item()
    return solution.stats.num_evaluations[0].item(), accuracy


@pytest.mark.parametrize("kind", ["error", "local"])
def test_a_regularized_network_is_cheaper_to_solve_and_as_accurate(kind):
    """On average over three seeds, as rounding decides where in its last steps a single training is caught."""
    all_runs = (torch.tensor([train(which, seed) for seed in range(3)]) for which in (kind, "none"))
    (cost, accuracy), (plain_cost, plain_accuracy) = (runs.mean(dim=0) for runs in all_runs)
    assert plain_accuracy > 0.95
    assert accuracy > plain_accuracy - 0.03
    assert cost <= 0.85 * plain_cost
