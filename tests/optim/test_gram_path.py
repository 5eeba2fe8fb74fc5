"""Geodesic acceleration: paths that follow the curvature of the residual."""

import math

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit.optim import AdaptiveHalving, GaussNewton, Halving, Randomized
from neuralop_kit.optim.gram.path import LONGEST_BEND, Path
from neuralop_kit.optim.gram.problem import LinearProblem
from neuralop_kit.training.pinn import Poisson2D


class Quadratic(nn.Module):
    """``r(w) = b + A w + (B w) (C w) / 2``, with fewer rows than weights."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(9, generator=generator).double())
        self.a, self.b, self.c = (torch.randn(5, 9, generator=generator).double() for _ in range(3))

    def forward(self) -> Tensor:
        return 1 + self.a @ self.weight + (self.b @ self.weight) * (self.c @ self.weight) / 2


def linearized(model: nn.Module, optimizer: GaussNewton, residual=None) -> LinearProblem:
    problem = LinearProblem(optimizer, residual or model)
    with torch.no_grad():
        problem.linearize()
    return problem


def paths(problem: LinearProblem) -> tuple[Path, Path]:
    """The line and the parabola."""
    with torch.no_grad():
        line = problem.path(problem.filter)
        return line, problem.bent(line, problem.filter)


def test_the_bend_is_the_newton_step_for_the_second_derivative():
    model = Quadratic()
    jacobian = torch.func.jacrev(lambda w: torch.func.functional_call(model, {"weight": w}, ()))(model.weight.detach())
    line, bent = paths(linearized(model, GaussNewton([model.weight], damping=1e-12, rtol=0.0)))
    v = line.direction
    expected = -0.5 * torch.linalg.pinv(jacobian) @ ((model.b @ v) * (model.c @ v))
    torch.testing.assert_close(bent.bend, expected, rtol=1e-8, atol=1e-10)
    assert torch.equal(bent.direction, v)


def test_residuals_on_the_parabola_are_linear_to_third_order():
    # r(s) = (1 - s) r(0) + O(s^3); on the line the defect is of second order, which is the negative control.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    x = torch.linspace(-1, 1, 7, dtype=torch.float64).unsqueeze(1)
    problem = linearized(
        model, GaussNewton(model.parameters(), damping=1e-14, rtol=0.0), lambda: (model(x) - 0.1 * x).squeeze(1)
    )
    sizes = [2.0**-k for k in range(5, 8)]
    orders = []
    for path in paths(problem):
        defects = [(problem._residual(path, size) - (1 - size) * problem.r).norm().item() for size in sizes]
        orders.append(math.log2(defects[0] / defects[-1]) / 2)
    assert orders[0] == pytest.approx(2.0, abs=0.1)
    assert orders[1] == pytest.approx(3.0, abs=0.1)


def test_a_long_bend_is_cut_to_a_share_of_the_straight_part():
    v, bend = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 7.0]).double()
    path = Path(v, bend, LONGEST_BEND * v.norm() / bend.norm())
    for size in (1.0, 0.5, 0.01):
        straight, across = path.displacement(size)
        assert straight == size
        assert across == pytest.approx(min(7.0 * size**2, LONGEST_BEND * size), rel=1e-14)


def test_linear_residuals_have_straight_paths():
    # Second differences of them are rounding, which the pseudo-inverse of a stiff J would make anything of.
    model = Quadratic()
    scales = torch.logspace(0, -7, 5, dtype=torch.float64)
    problem = linearized(model, GaussNewton([model.weight]), lambda: scales * (model.a @ model.weight + 1))
    assert paths(problem)[1].bend is None


def test_paths_stay_straight_where_second_differences_are_not_finite():
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    problem = linearized(nn.Module(), GaussNewton([weight]), lambda: torch.where(weight == 1.0, 1.0, math.inf) * weight)
    assert paths(problem)[1].bend is None


def test_weights_at_rate_zero_are_not_bent_away():
    model, other = Quadratic(), nn.Parameter(torch.ones(9, dtype=torch.float64))
    groups = [{"params": [model.weight]}, {"params": [other], "lr": 0.0}]
    optimizer = GaussNewton(groups, control=Halving(geodesic_acceleration=True))
    optimizer.step(lambda: model() * (1 + (model.a @ other).tanh()))
    assert optimizer.info.status == "moved"
    assert torch.equal(other.detach(), torch.ones(9, dtype=torch.float64))


def valley(weight: Tensor) -> Tensor:
    """Rosenbrock's, narrow."""
    return torch.stack([100 * (weight[1] - weight[0] ** 2), 1 - weight[0]])


def steps_through_the_valley(control: AdaptiveHalving) -> int:
    weight = nn.Parameter(torch.tensor([-1.2, 1.44], dtype=torch.float64))
    optimizer = GaussNewton([weight], control=control)
    for count in range(1, 201):
        if optimizer.step(lambda: valley(weight)) < 1e-12:
            return count
    return 1000


def test_a_narrow_valley_takes_fewer_steps():
    assert steps_through_the_valley(AdaptiveHalving()) < 0.7 * steps_through_the_valley(
        AdaptiveHalving(geodesic_acceleration=False)
    )


def test_a_low_rank_jacobian_bends_by_true_differences():
    # J v of the leading part alone in place of a difference would be taken for curvature.
    torch.manual_seed(0)
    a = torch.randn(12, 30, dtype=torch.float64) * torch.logspace(0, -3, 12, dtype=torch.float64)[:, None]
    weight = nn.Parameter(torch.zeros(30, dtype=torch.float64))
    optimizer = GaussNewton([weight], engine=Randomized(4), damping=1e-9, rtol=0.0)
    assert paths(linearized(nn.Module(), optimizer, lambda: a @ weight - 1))[1].bend is None


def relative_error(control: AdaptiveHalving, *, num_steps: int) -> float:
    problem = Poisson2D()
    torch.manual_seed(1)
    network, points = problem.network(), problem.draw(torch.Generator().manual_seed(1))
    optimizer = GaussNewton(network.parameters(), control=control)
    for _ in range(num_steps):
        optimizer.step(lambda: problem.residuals(network, points))
    return problem.relative_error(network)


def test_poisson_is_solved_where_lines_end_in_a_curved_valley():
    # On lines the error is 2e-4 after 80 steps and 2e-6 after 500: in the end every damping gains .08 % per step.
    assert relative_error(AdaptiveHalving(), num_steps=80) < 1e-6
    assert relative_error(AdaptiveHalving(geodesic_acceleration=False), num_steps=80) > 1e-5
