"""Irregular domains: a mask is a Dirichlet wall along grid lines."""

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.layers import MultigridOperator
from neuralop_kit.layers.multigrid import Chebyshev, EllipticKernels
from neuralop_kit.solvers.errors import ShapeError

SQUARE = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="interior")


def l_shape(n: int, domain: Domain = SQUARE) -> torch.Tensor:
    """The square without its upper right quarter."""
    x = domain.coordinates((n, n), dtype=torch.float64)
    return ((x[0] < 0.5) | (x[1] < 0.5)).double()


def learned(domain: Domain = SQUARE, **options) -> MultigridOperator:
    torch.manual_seed(0)
    return MultigridOperator(2, 3, 3, domain=domain, coarsest=2, **options).double()


def solver(levels: int) -> MultigridOperator:
    return MultigridOperator(
        1, 1, levels, domain=SQUARE, coarsest=2, smoother=Chebyshev(), initialization=EllipticKernels()
    ).double()


@pytest.mark.parametrize("n", [15, 31, 63])
def test_textbook_kernels_solve_on_an_l_shaped_domain(n):
    layer, mask = solver(levels=6), l_shape(n)
    rhs = mask.expand(1, 1, n, n)
    u, sizes = torch.zeros_like(rhs), []
    for _ in range(14):
        residual = rhs - layer.system(u, mask)
        sizes.append(residual.norm())
        u = u + layer(residual, mask)
    # A wall that cuts through coarse cells costs something, but the rate does not depend on the grid.
    assert (sizes[-1] / sizes[4]) ** (1 / 9) < 0.4
    assert torch.equal(u, u * mask)


def test_it_solves_the_finite_difference_equations_of_the_l_shape():
    n, mask = 15, l_shape(15)
    inside = mask.flatten().bool()
    h = SQUARE.spacing((n, n))[0]
    line = (2 * torch.eye(n) - torch.diag(torch.ones(n - 1), 1) - torch.diag(torch.ones(n - 1), -1)).double() / h**2
    matrix = torch.kron(line, torch.eye(n).double()) + torch.kron(torch.eye(n).double(), line)
    expected = torch.zeros(n * n, dtype=torch.float64)
    expected[inside] = torch.linalg.solve(matrix[inside][:, inside], torch.ones(int(inside.sum()), dtype=torch.float64))
    layer, u = solver(levels=4), torch.zeros(1, 1, n, n, dtype=torch.float64)
    for _ in range(40):
        u = u + layer(mask - layer.system(u, mask), mask)
    assert (u.flatten() - expected).norm() < 1e-12 * expected.norm()
    without = layer(torch.ones_like(u))  # negative control: the square's own solver is another operator
    assert (without.flatten() - expected).norm() > 0.1 * expected.norm()


@pytest.mark.parametrize("fine_levels", ["detail", "interpolate", "repeat"])
@pytest.mark.parametrize("domain", [SQUARE, Domain.box((1.0, 1.0), boundary="neumann", nodes="cell")])
@pytest.mark.parametrize("n", [15, 30])
def test_nothing_outside_is_used_and_nothing_appears_there(domain, fine_levels, n):
    layer, mask = learned(domain, fine_levels=fine_levels), l_shape(n, domain)
    u, noise = torch.randn(2, 2, 2, n, n, dtype=torch.float64)
    v = layer(u, mask)
    assert torch.equal(v, v * mask)
    assert torch.equal(v, layer(u * mask + noise * (1 - mask), mask))
    assert v.abs().max() > 0
    assert not torch.allclose(layer(u), layer(u * mask + noise * (1 - mask)))


def test_a_full_mask_changes_nothing():
    layer, u = learned(), torch.randn(2, 2, 31, 31, dtype=torch.float64)
    assert torch.allclose(layer(u, torch.ones(31, 31)), layer(u), rtol=0, atol=1e-15)


def test_it_stays_linear_and_batches_different_masks():
    layer = learned()
    u, v = torch.randn(2, 2, 2, 15, 15, dtype=torch.float64)
    masks = torch.stack([l_shape(15), l_shape(15).flip(0)])[:, None]
    together = layer(u + 2 * v, masks)
    assert torch.allclose(together, layer(u, masks) + 2 * layer(v, masks), atol=1e-13)
    for i in range(2):
        alone = layer((u + 2 * v)[i : i + 1], masks[i, 0])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-14)


def test_textbook_cycle_is_symmetric_inside_the_mask():
    layer = MultigridOperator(1, 1, 4, domain=SQUARE, coarsest=2, initialization=EllipticKernels()).double()
    mask = l_shape(15)
    x, y = torch.randn(2, 1, 1, 15, 15, dtype=torch.float64) * mask
    left, right = (layer(x, mask) * y).sum(), (x * layer(y, mask)).sum()
    assert abs(left - right) < 1e-13 * abs(left)


def test_a_mask_of_another_grid_is_refused():
    with pytest.raises(ShapeError, match="mask"):
        learned()(torch.randn(1, 2, 15, 15, dtype=torch.float64), torch.ones(16, 15))
