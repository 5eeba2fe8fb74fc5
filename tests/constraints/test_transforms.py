"""Forward mode and vmap through the layers, against reverse mode and loops."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap
from torch.utils._pytree import tree_map

from neuralop_kit import Domain
from neuralop_kit.constraints import (
    BoundaryLifting,
    ConservationConstraint,
    DivergenceFree,
    FluxForm,
    LinearConstraint,
    QPConstraint,
    SimplexConstraint,
)
from tests.constraints.problems import arguments, constraint, functions

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
