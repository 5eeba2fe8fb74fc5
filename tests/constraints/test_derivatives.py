"""Derivatives and terms: orders of accuracy, exactness, and names."""

import math

import pytest
import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.constraints import Equation, FiniteDifference, SpectralDerivative
from neuralop_kit.constraints.derivatives import on_wall
from neuralop_kit.constraints.functions import differentiated, terms_at
from neuralop_kit.constraints.terms import Terms
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError

NODES = ["vertex", "interior", "cell"]


def function(x: Tensor, order: int = 0) -> Tensor:
    """exp(x) sin(3x), differentiated: 10^(n/2) exp(x) sin(3x + n atan 3)."""
    return 10 ** (order / 2) * torch.exp(x) * torch.sin(3 * x + order * math.atan(3))


def fitted_order(errors: list[float]) -> float:
    return math.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize("nodes", NODES)
@pytest.mark.parametrize("accuracy", [2, 4, 6])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_order_of_finite_differences_up_to_the_walls(nodes, accuracy, order):
    domain, errors = Domain.box((1.0,), nodes=nodes), []
    for num_points in (24, 48, 96)[: 3 if accuracy < 6 else 2]:
        (x,) = domain.coordinates((num_points,), dtype=torch.float64)
        ours = FiniteDifference(accuracy)(function(x), domain, 0, order=order)
        errors.append((ours - function(x, order)).abs().max().item())
    assert fitted_order(errors) > accuracy - 0.5


@pytest.mark.parametrize("nodes", ["left", "cell"])
def test_order_of_finite_differences_around_a_period(nodes):
    domain, errors = Domain.periodic((2.0,), nodes=nodes), []
    for num_points in (32, 64):
        (x,) = domain.coordinates((num_points,), dtype=torch.float64)
        ours = FiniteDifference(4)(torch.sin(math.pi * x), domain, 0, order=2)
        errors.append((ours + math.pi**2 * torch.sin(math.pi * x)).abs().max().item())
    assert fitted_order(errors) == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("num_points", [17, 18])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_spectral_derivatives_are_exact(num_points, order):
    domain = Domain.box((1.0, 2.0), boundary=("dirichlet", "periodic"))
    y, x = domain.coordinates((5, num_points), dtype=torch.float64)
    ours = SpectralDerivative()((1 + y) * torch.sin(3 * math.pi * x + 0.4), domain, 1, order=order)
    exact = (1 + y) * (3 * math.pi) ** order * torch.sin(3 * math.pi * x + 0.4 + order * math.pi / 2)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-9)


def test_spectral_derivatives_of_an_empty_batch_are_empty_and_have_gradients():
    u = torch.zeros(0, 2, 8, requires_grad=True)
    slope = SpectralDerivative()(u, Domain.periodic((1.0,)), 0, order=1)
    assert slope.shape == u.shape
    slope.sum().backward()
    assert u.grad.shape == u.shape


@pytest.mark.parametrize("nodes", NODES)
@pytest.mark.parametrize("at_stop", [False, True])
@pytest.mark.parametrize("order", [0, 1])
def test_values_on_walls_whether_they_are_points_or_not(nodes, at_stop, order):
    domain, errors = Domain.box((1.0, 1.0), nodes=nodes), []
    wall = torch.tensor(1.0 if at_stop else 0.0, dtype=torch.float64)
    for num_points in (24, 48):
        x, y = domain.coordinates((num_points, 6), dtype=torch.float64)
        ours = on_wall(function(x) * y, domain, 0, at_stop=at_stop, order=order)
        errors.append((ours - function(wall, order) * y[0]).abs().max().item())
    # Next to a wall that is no point, the first point itself would be off by O(h).
    assert errors[-1] < 1e-14 or fitted_order(errors) > 3.5


def test_terms_by_name():
    domain = Domain.box((1.0, 2.0), boundary=("dirichlet", "periodic"))
    t, x = domain.coordinates((17, 16), dtype=torch.float64)
    field = (t**2 * torch.sin(math.pi * x))[None, None]
    value, slope, second, mixed, doubled = Terms(
        domain, ("w", "w_t", "w_xx", "w_tx", "twice"), operators={"twice": lambda f: 2 * f}
    )(field)[0, :, 0]
    torch.testing.assert_close(value, field[0, 0])
    torch.testing.assert_close(slope, 2 * t * torch.sin(math.pi * x))
    torch.testing.assert_close(second, -(math.pi**2) * value)
    torch.testing.assert_close(mixed, 2 * t * math.pi * torch.cos(math.pi * x))
    torch.testing.assert_close(doubled, 2 * value)


def test_functions_are_differentiated_exactly():
    domain = Domain.box((1.0, 1.0))
    points = torch.rand(9, 2, dtype=torch.float64)
    x, y = points.unbind(1)
    waves = torch.tensor([1.0, 2.0], dtype=torch.float64)

    def waves_of(points: Tensor) -> Tensor:
        return (torch.sin(points[:, :1] * waves) * points[:, 1:] ** 2)[None]

    values = terms_at(Terms(domain, ("u", "u_xx", "u_xyy")), waves_of, points)
    assert values.shape == (1, 3, 9, 2)
    torch.testing.assert_close(values[0, 1, :, 1], -4 * torch.sin(2 * x) * y**2)
    torch.testing.assert_close(values[0, 2, :, 1], 4 * torch.cos(2 * x))
    with pytest.raises(ShapeError, match=r"expected functions with values .*, got"):
        terms_at(Terms(domain, ("u",)), lambda p: p, points)
    with pytest.raises(ArgumentError, match="operators"):
        terms_at(Terms(domain, ("u", "v"), operators={"v": torch.sin}), waves_of, points)
    assert differentiated(waves_of, (0, 0)) is waves_of


def test_arguments_are_sorted_by_their_names():
    def residual(nu, u_x, x, u, force):
        return nu * u_x + x * u - force

    equation = Equation(residual, Domain.box((1.0,)), arguments=("nu", "u_x", "x", "u", "force"))
    assert equation.terms.names == ("nu",), "the first argument names the field"
    equation = Equation(lambda u_x, nu, x, u, force: residual(nu, u_x, x, u, force), Domain.box((1.0,)))
    assert equation.terms.names == ("u_x", "u")
    assert (equation.coordinate_names, equation.coefficient_names) == (("x",), ("nu", "force"))
    like = torch.zeros(2, 3, 5, dtype=torch.float64)
    force = torch.ones(2, 1, 5, dtype=torch.float64)
    x, nu, at_points = equation.data(like, {"nu": torch.tensor([3.0, 4.0]), "force": force})
    assert (x.shape, nu.shape, at_points.shape) == ((1, 5), (2, 5), (2, 5))
    values = [torch.full((2, 5), v, dtype=torch.float64) for v in (7.0, 2.0)]
    torch.testing.assert_close(equation(*values, x, nu, at_points), nu * 7 + x * 2 - 1)


def test_what_does_not_fit_is_refused():
    line, ring = Domain.box((1.0,)), Domain.periodic((1.0,))
    with pytest.raises(DomainError, match=r"expected a periodic axis .*; use FiniteDifference"):
        SpectralDerivative()(torch.ones(5), line, 0, order=1)
    with pytest.raises(DomainError, match=r"expected at least 5 points .*; refine"):
        FiniteDifference(4)(torch.ones(4), line, 0, order=1)
    with pytest.raises(DomainError, match="axis with ends"):
        on_wall(torch.ones(5), ring, 0, at_stop=True, order=0)
    with pytest.raises(ArgumentError, match=r"expected an even accuracy .*, got 3"):
        FiniteDifference(3)
    with pytest.raises(ArgumentError, match=r"expected terms like .*, got 'u_y'"):
        Terms(line, ("u_y",))
    with pytest.raises(ArgumentError, match="for each of 1 axes"):
        Terms(line, ("u",), axes=("x", "y"))
    with pytest.raises(ArgumentError, match="all have names"):
        Equation(lambda *terms: terms[0], line)
    with pytest.raises(ArgumentError, match=r"expected coefficients \['nu'\], got \[\]"):
        Equation(lambda u, nu: nu * u, line).data(torch.ones(1, 1, 5), None)
    with pytest.raises(ShapeError, match="expected coefficient 'nu'"):
        Equation(lambda u, nu: nu * u, line).data(torch.ones(2, 1, 5), {"nu": torch.ones(5)})
    with pytest.raises(ShapeError, match="expected a field"):
        Terms(line, ("u",))(torch.ones(5))
