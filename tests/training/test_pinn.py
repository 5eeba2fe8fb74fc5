"""Problems for physics-informed networks: exact solutions solve them, wrong ones do not, and any optimizer is fed."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit import Domain
from neuralop_kit.optim import SPSA, GaussNewton, SSBroyden
from neuralop_kit.optim.gram.engines import Ghost
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.pde import Burgers
from neuralop_kit.training.pinn import Burgers1D, Heat1D, PointProblem, Poisson2D, Poisson5D, cole_hopf, fit

PROBLEMS = [Poisson2D(), Heat1D(), Burgers1D(), Poisson5D()]
NAMES = [type(problem).__name__ for problem in PROBLEMS]


class Solution(nn.Module):
    """The exact solution in place of a network, with an error that no equation or condition allows."""

    def __init__(self, problem: PointProblem, error: float = 0.0) -> None:
        super().__init__()
        self.problem, self.error = problem, error

    def forward(self, x: Tensor) -> Tensor:
        return (self.problem.exact(x) + self.error * (1 + x.sum(dim=1)).exp()).unsqueeze(1)


@pytest.mark.parametrize("problem", PROBLEMS, ids=NAMES)
def test_exact_solution_leaves_nothing_over(problem):
    points = problem.draw(torch.Generator().manual_seed(0))
    for name, block in problem.residuals(Solution(problem), points).items():
        assert block.shape == (len(points[name]),)
        assert block.abs().max() < 1e-10
    for block in problem.residuals(Solution(problem, error=1e-3), points).values():
        assert block.square().mean().sqrt() > 1e-4
    assert problem.relative_error(Solution(problem)) == 0
    assert problem.relative_error(Solution(problem, error=1e-3)) > 1e-4
    assert problem.relative_error(Solution(problem, error=float("nan"))) == math.inf


@pytest.mark.parametrize("problem", PROBLEMS, ids=NAMES)
def test_points_are_inside_and_their_own(problem):
    points = problem.draw(torch.Generator().manual_seed(0))
    again = problem.draw(torch.Generator().manual_seed(0))
    others = problem.draw(torch.Generator().manual_seed(1))
    low = -1.0 if isinstance(problem, Burgers1D) else 0.0
    for name, x in points.items():
        assert x.dtype == torch.float64
        assert torch.equal(x, again[name])
        assert not torch.equal(x, others[name])
        assert (x >= low).all()
        assert (x <= 1).all()
    assert points["interior"].requires_grad


@pytest.mark.parametrize(("viscosity", "num_points", "time"), [(0.1 / math.pi, 256, 1.0), (0.01 / math.pi, 2048, 0.4)])
def test_cole_hopf_agrees_with_the_spectral_solver(viscosity, num_points, time):
    domain = Domain.periodic((2.0,))
    (x,) = domain.coordinates((num_points,), dtype=torch.float64)
    stepper = Burgers(domain, viscosity=viscosity, dt=time, num_substeps=4 * num_points // 5)
    # The stepper's interval begins at 0; an odd start stays odd, which keeps the ends at zero.
    u = stepper.step(-torch.sin(math.pi * (x - 1)).view(1, 1, -1)).flatten()
    exact = cole_hopf(x - 1, torch.full_like(x, time), viscosity)
    assert (u - exact).abs().max() < 1e-7
    assert (u - cole_hopf(x - 1, torch.full_like(x, 0.99 * time), viscosity)).abs().max() > 1e-3


def test_cole_hopf_has_converged():
    x, t = (v.flatten() for v in torch.meshgrid(torch.linspace(-1, 1, 41), torch.linspace(0, 1, 5), indexing="ij"))
    x, t = x.double(), t.double()
    exact = cole_hopf(x, t, 0.01 / math.pi, num_nodes=8001)
    assert (cole_hopf(x, t, 0.01 / math.pi) - exact).abs().max() < 1e-12
    assert (cole_hopf(x, t, 0.01 / math.pi, num_nodes=31) - exact).abs().max() > 1e-6


@pytest.mark.parametrize("problem", PROBLEMS, ids=NAMES)
def test_jacobian_costs_one_backward_pass(problem):
    # Second derivatives in up to five directions; one pass per row would be some hundred times dearer.
    torch.manual_seed(0)
    network, points = problem.network(), problem.draw()
    optimizer = GaussNewton(network.parameters())
    loss = optimizer.step(lambda: problem.residuals(network, points))
    assert isinstance(optimizer.engine.chosen, Ghost)
    assert optimizer.info.new_loss < loss


def ticks() -> "itertools.count[int]":
    """A clock by which every step takes one second."""
    return itertools.count().__next__


@pytest.mark.parametrize(
    "make",
    [GaussNewton, lambda p: torch.optim.Adam(p, lr=1e-2), SSBroyden, lambda p: SPSA(p, lr=1e-3)],
    ids=["residual", "gradient", "closure", "value"],
)
def test_fit_feeds_every_kind_of_optimizer(make):
    course = fit(Poisson2D(), make, seconds=6, clock=ticks())
    again = fit(Poisson2D(), make, seconds=6, clock=ticks())
    assert course.num_steps == 6
    assert course.error == again.error == course.errors[-1][1]
    assert len(course.errors) >= 4
    assert fit(Poisson2D(), make, seconds=6, seed=1, clock=ticks()).error != course.error


def test_fit_lets_the_rate_fall_and_leaves_the_random_state():
    state = torch.get_rng_state()
    optimizers = []

    def make(parameters):
        optimizers.append(torch.optim.SGD(parameters, lr=1e-3))
        return optimizers[-1]

    fit(Heat1D(), make, seconds=10, clock=ticks())
    fit(Heat1D(), make, seconds=10, decay=True, clock=ticks())
    constant, decayed = (optimizer.param_groups[0]["lr"] for optimizer in optimizers)
    assert constant == 1e-3
    assert decayed == pytest.approx(1e-3 * (1 + math.cos(0.9 * math.pi)) / 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_refusals():
    with pytest.raises(ArgumentError, match="expected seconds > 0"):
        fit(Heat1D(), GaussNewton, seconds=0)
    with pytest.raises(ArgumentError, match="expected viscosity > 0"):
        Burgers1D(viscosity=0)
    with pytest.raises(ShapeError, match="expected one output per point"):
        Heat1D().relative_error(nn.Linear(2, 3).double())
