"""Discretization convergence: an untrained layer has a limit, reached like O(h^2); what is tied to pixels has none."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from neuralop_kit import Domain
from neuralop_kit.layers import MultigridOperator
from neuralop_kit.layers.multigrid import EllipticKernels, ReferenceMultigrid

KINDS = [("dirichlet", "interior"), ("dirichlet", "vertex"), ("neumann", "vertex"), ("periodic", "left")]


def smooth(domain: Domain, shape: tuple[int, ...], channels: int = 4) -> Tensor:
    """Smooth, and on boxes with no regard for walls: neither zero nor flat there."""
    x, y = domain.coordinates(shape, dtype=torch.float64)
    if domain.is_periodic:
        x, y = torch.sin(2 * math.pi * x), torch.cos(2 * math.pi * y)
    rows = [torch.sin((i + 1) * x + 0.3) * torch.exp(y * (0.5 + 0.2 * i)) + i * x * y for i in range(channels)]
    return torch.stack(rows)[None]


def changes(layer, domain: Domain, intervals: tuple[int, ...]) -> list[float]:
    """Relative change of the output at the points of the first grid, from grid to grid."""
    shapes = [tuple(axis.placement.num_points(n) for axis in domain.axes) for n in intervals]
    with torch.no_grad():
        picked = [layer(smooth(domain, shape))[(..., *domain.common_nodes(shapes[0], shape))] for shape in shapes]
    return [((fine - coarse).norm() / coarse.norm()).item() for coarse, fine in itertools.pairwise(picked)]


def ratios(steps: list[float]) -> list[float]:
    return [coarse / fine for coarse, fine in itertools.pairwise(steps)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fine_levels", ["detail", "interpolate"])
def test_output_changes_like_h_squared(kind, fine_levels):
    domain = Domain.box((1.0, 1.0), boundary=kind[0], nodes=kind[1])
    layer = MultigridOperator(
        4, 4, 4, domain=domain, fine_levels=fine_levels, generator=torch.Generator().manual_seed(0)
    ).double()
    steps = changes(layer, domain, (32, 64, 128, 256, 512))
    # Between values at fixed points interpolation adds nothing: the output there does not change at all.
    if fine_levels == "interpolate":
        assert max(steps) < 1e-12
    else:
        assert steps[0] < 0.05
        assert all(3.5 <= ratio <= 4.5 for ratio in ratios(steps)), steps


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_solver_changes_less_than_that(kind):
    # Its smoother scales with h^2 itself: O(h^4) at common points.
    domain = Domain.box((1.0, 1.0), boundary=kind[0], nodes=kind[1])
    layer = MultigridOperator(4, 4, 4, domain=domain, initialization=EllipticKernels()).double()
    steps = changes(layer, domain, (32, 64, 128, 256))
    assert steps[0] < 1e-4
    assert all(ratio > 14 for ratio in ratios(steps)), steps


def test_the_released_variant_has_no_limit():
    domain = Domain.box((1.0, 1.0), boundary="periodic", nodes="left")
    layer = ReferenceMultigrid(4, 4, [(1, 0)] * 4 + [(2, 0)], domain=domain, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # variance 1/9 per channel, as in the measurement of our reference note
        for kernels in layer.parameters():
            kernels.mul_(3**0.5)
    steps = changes(layer.double(), domain, (64, 128, 256, 512))
    assert min(steps) > 0.3
    assert all(ratio < 2.5 for ratio in ratios(steps))


def test_repeated_random_stencils_have_no_limit():
    domain = Domain.box((1.0, 1.0), nodes="interior")
    layer = MultigridOperator(
        4, 4, 4, domain=domain, fine_levels="repeat", generator=torch.Generator().manual_seed(0)
    ).double()
    steps = changes(layer, domain, (32, 64, 128, 256))
    assert min(steps) > 0.1


def test_sizes_in_between_converge_to_the_same_limit():
    # Not nested, so compare means over the domain with those on a fine nested grid.
    domain = Domain.box((1.0, 1.0), boundary="neumann", nodes="vertex")
    layer = MultigridOperator(4, 4, 3, domain=domain, generator=torch.Generator().manual_seed(0)).double()

    def moments(n: int) -> Tensor:
        shape = (n, n)
        x = domain.coordinates(shape, dtype=torch.float64)
        weights = domain.weights(shape, dtype=torch.float64) * torch.stack([torch.ones_like(x[0]), *x])
        with torch.no_grad():
            return torch.einsum("cxy,mxy->cm", layer(smooth(domain, shape))[0], weights)

    limit = moments(513)
    errors = [((moments(n) - limit).norm() / limit.norm()).item() for n in (23, 47, 95, 191)]
    assert errors[0] < 0.05
    assert errors[-1] < errors[0] / 16
