"""Forward mode and vmap through the layers, against reverse mode and loops."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils._pytree import tree_map

from neuralop_kit import Domain
from neuralop_kit.constraints import (
    BoundaryLifting,
    ConservationConstraint,
    Coupled,
    DivergenceFree,
    FluxForm,
    LinearConstraint,
    MixtureOfExperts,
    Partition,
    QPConstraint,
    SimplexConstraint,
)
from neuralop_kit.solvers.errors import ArgumentError
from tests.constraints.problems import DOMAIN, arguments, constraint, functions

BOX, TORUS, WALLS = Domain.box((1.0, 2.0), nodes="cell"), Domain.periodic((1.0, 2.0)), Domain.box((1.0, 2.0))
TOTALS = torch.tensor([[1.0, 0.5], [0.3, 2.0]], dtype=torch.float64)

Layer = Callable[[Tensor], Tensor]

PROJECTIONS: dict[str, Layer] = {
    "conservation": lambda u: ConservationConstraint(BOX)(u, TOTALS)[0],
    "linear": lambda u: LinearConstraint(lambda x: torch.stack([x, x**2]), domain=BOX)(u, TOTALS)[0],
    "simplex": lambda u: SimplexConstraint(BOX, upper=3.0)(u, TOTALS)[0],
    "divergence": lambda u: DivergenceFree(TORUS)(u)[0],
    "lifting": lambda u: BoundaryLifting(WALLS)(u, u.sin())[0],
    "fluxes": lambda u: FluxForm(TORUS, stored=lambda v: v + torch.tanh(v))(u, [u.cos(), u.sin()], dt=0.01)[0],
}


def fields(generator, *batch) -> Tensor:
    return torch.randn(*batch, 2, 4, 5, generator=generator, dtype=torch.float64)


def both_ways(layer: Layer, u: Tensor, du: Tensor, generator) -> tuple[Tensor, Tensor, Tensor]:
    """``<v, J du>`` in forward mode, in reverse mode, and by central differences."""
    value, forward = jvp(layer, (u,), (du,))
    v = torch.randn(value.shape, generator=generator, dtype=u.dtype)
    _, pull_back = vjp(layer, u)
    step = 1e-6
    difference = (layer(u + step * du) - layer(u - step * du)) / (2 * step)
    return (v * forward).sum(), (pull_back(v)[0] * du).sum(), (v * difference).sum()


def check_forward_mode(layer: Layer, u: Tensor, du: Tensor, generator) -> None:
    forward, reverse, difference = both_ways(layer, u, du, generator)
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward, difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_forward_mode_through_projections(generator, name):
    check_forward_mode(PROJECTIONS[name], fields(generator, 2), fields(generator, 2), generator)


def test_forward_mode_through_a_quadratic_program(generator):
    layer = QPConstraint(BOX, inequalities=lambda v: -v)
    check_forward_mode(lambda u: layer(u)[0], fields(generator, 2), fields(generator, 2), generator)


def test_forward_mode_through_a_least_squares_layer(generator):
    def layer(basis: Tensor) -> Tensor:
        return constraint(ridge=1e-2)(basis, **arguments())[0]

    basis = functions()
    change = torch.randn(basis.shape, generator=generator, dtype=torch.float64)
    check_forward_mode(layer, basis, change, generator)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_vmap_is_a_loop(generator, name):
    layer, u = PROJECTIONS[name], fields(generator, 3, 2)
    torch.testing.assert_close(vmap(layer)(u), torch.stack([layer(one) for one in u]), rtol=1e-13, atol=1e-14)


def test_vmap_around_an_iteration_is_refused_and_said_what_to_do(generator):
    basis, given = functions(), arguments()
    u = fields(generator, 2)
    mapped = {
        "basis": lambda: vmap(lambda b: constraint(ridge=1e-2)(b, **given)[0])(basis[None]),
        "without ridge": lambda: vmap(lambda b: constraint(ridge=0.0)(b, **given)[0])(basis[None]),
        "data alone": lambda: vmap(
            lambda nu: constraint(ridge=0.0)(basis, **(given | {"coefficients": {"nu": nu}}))[0]
        )(given["coefficients"]["nu"][None]),
        "gradients": lambda: vmap(grad(lambda b: constraint()(b, **given)[0].sum()))(basis[None]),
        "program": lambda: vmap(lambda u: QPConstraint(BOX, inequalities=lambda v: -v)(u)[0])(u[None]),
    }
    for name, call in mapped.items():
        with pytest.raises(ArgumentError, match=r"samples of torch\.func\.vmap.*flatten"):
            pytest.fail(f"{name}: {call()}")
    # These map over directions only, of which the values know nothing.
    small = functions(2, (7, 8))

    def layer(basis: Tensor) -> Tensor:
        return constraint(ridge=1e-2)(basis, **arguments(num_x=8))[0].mean(dim=(1, 2, 3))

    torch.testing.assert_close(jacfwd(layer)(small), jacrev(layer)(small), rtol=1e-9, atol=1e-11)


PARTS, BOUNDED = Partition(DOMAIN, (1, 2)), QPConstraint(BOX, inequalities=lambda v, least: least - v)
COMBINATIONS = {
    "least squares": constraint(),
    "experts": MixtureOfExperts(constraint(), PARTS),
    "coupled experts": MixtureOfExperts(constraint(), PARTS, interface=Coupled()),
}
PROGRAMS: dict[str, Layer] = {
    "program": lambda u: QPConstraint(BOX, inequalities=lambda v: -v)(u)[0],
    "program with data": lambda u: BOUNDED(u, u[:, 0, 0, 0])[0],
}


@pytest.mark.parametrize("name", PROJECTIONS | PROGRAMS)
def test_an_empty_batch_stays_one_and_has_gradients(monkeypatch, name):
    monkeypatch.setitem(globals(), "TOTALS", TOTALS[:0])
    u = torch.zeros(0, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    v = (PROJECTIONS | PROGRAMS)[name](u)
    assert v.shape == u.shape
    v.sum().backward()
    assert u.grad.shape == u.shape


@pytest.mark.parametrize("name", COMBINATIONS)
def test_an_empty_batch_of_functions_has_gradients(name):
    given = {kind: {key: value[:0] for key, value in values.items()} for kind, values in arguments().items()}
    basis = functions()[:0].requires_grad_()
    u, info = COMBINATIONS[name](basis, **given)
    assert u.shape == (0, 1, *basis.shape[2:])
    assert len(info.status) == 0
    u.sum().backward()
    assert basis.grad.shape == basis.shape


def cases_in(dtype: torch.dtype, generator) -> list[tuple[nn.Module, list, dict]]:
    """Layers and what they are called with, in half precision."""
    u, totals = fields(generator, 2).to(dtype), TOTALS.to(dtype)
    return [
        (ConservationConstraint(BOX), [u, totals], {}),
        (LinearConstraint(lambda x: torch.stack([x, x**2]), domain=BOX), [u, totals], {}),
        (SimplexConstraint(BOX, upper=3.0), [u, totals], {}),
        (DivergenceFree(TORUS), [u], {}),
        (FluxForm(TORUS), [u, [u.cos(), u.sin()]], {"dt": 0.01}),
        (QPConstraint(BOX, inequalities=lambda v: -v), [u], {}),
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_half_precision_is_projected_in_single(generator, dtype, is_mixed):
    # The field is rounded already, the projection adds nothing to that: in half precision it would be off by 1e-3.
    for layer, arguments_, options in cases_in(dtype, generator):
        expected = layer(*tree_map(torch.Tensor.float, arguments_), **options)[0]
        with torch.autocast("cpu", dtype=dtype, enabled=is_mixed):
            assert torch.equal(layer(*arguments_, **options)[0], expected)


def test_autocast_stays_outside_of_a_least_squares_layer():
    layer, basis, given = constraint(ridge=1e-2), functions().float(), arguments()
    single = {key: tree_map(lambda x: x.float() if isinstance(x, Tensor) else x, value) for key, value in given.items()}
    expected = layer(basis, **single)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(basis, **single)[0], expected)
