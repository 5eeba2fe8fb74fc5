"""GraphKernel: a mean over balls of a cloud, by quadrature."""

import functools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from neuralop_kit import Domain
from neuralop_kit.layers import GraphKernel, find_neighbourhoods
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from tests.contracts.layer import LayerContract


@functools.cache
def cloud(domain, shape, radius):
    """The points of a grid as a cloud, with its weights and neighbourhoods; made before anything is traced."""
    points = domain.coordinates(shape, dtype=torch.float64).flatten(1).mT
    return points, domain.weights(shape, dtype=torch.float64).flatten(), find_neighbourhoods(points, points, radius)


class TestGraphKernel(LayerContract):
    """On the points of a grid, where refinement is defined."""

    domain = Domain.box((1.0, 2.0), boundary="neumann")
    shapes = ((8, 7), (5, 9))
    tiny_shape = (3, 4)
    reference_shape = (7, 9)
    num_grids = 3
    order = 2.0
    order_tolerance = 0.5
    float32_tolerance = 2e-5

    def make(self):
        return GraphKernel(self.in_channels, 3, 0.6, num_dims=2, hidden_width=8)

    def make_tiny(self):
        return GraphKernel(self.in_channels, 1, 0.9, num_dims=2, hidden_width=2)

    def layer(self, dtype=torch.float64, *, tiny=False):
        made = super().layer(dtype, tiny=tiny)
        for shape in (*self.shapes, self.tiny_shape):
            cloud(self.domain, shape, made.radius)
        return made

    def apply(self, layer, u):
        radius = 0.9 if tuple(u.shape[2:]) == self.tiny_shape else 0.6
        points, weights, pairs = cloud(self.domain, tuple(u.shape[2:]), radius)
        return layer(u.flatten(2), points, weights=weights, neighbourhoods=pairs).unflatten(2, u.shape[2:])

    def wrong_fields(self, u):
        return [torch.cat([u, u], dim=1), u[:, :0]]


def random_cloud(n=60, *, batch=()):
    torch.manual_seed(0)
    return torch.rand(*batch, n, 2, dtype=torch.float64), torch.rand(*batch, n, dtype=torch.float64) + 0.1


def kernel_layer(radius=0.4):
    torch.manual_seed(1)
    return GraphKernel(2, 3, radius, num_dims=2).double()


def test_equals_the_formula_written_out():
    layer, (points, weights) = kernel_layer(), random_cloud()
    u, queries = torch.randn(2, 2, 60, dtype=torch.float64), torch.rand(7, 2, dtype=torch.float64)
    out = layer(u, points, queries, weights=weights)
    for i, x in enumerate(queries):
        total, mass = 0.0, 0.0
        for j, y in enumerate(points):
            cut = max(0.0, 1 - ((x - y).norm().item() / 0.4) ** 2) ** 2 * weights[j]
            kernel = layer.kernel(torch.nn.functional.gelu(layer.position(x) + layer.offset((x - y) / 0.4)))
            total, mass = total + cut * kernel * layer.value(u[..., j]), mass + cut
        torch.testing.assert_close(out[..., i], total / mass, rtol=0, atol=1e-12)


def test_splitting_and_permuting_points_changes_nothing():
    layer, (points, weights) = kernel_layer(), random_cloud()
    u = torch.randn(2, 2, 60, dtype=torch.float64)
    once = layer(u, points, points, weights=weights)
    split = torch.cat((weights[:20] / 2, weights[20:], weights[:20] / 2))
    more, values = torch.cat((points, points[:20])), torch.cat((u, u[..., :20]), dim=2)
    torch.testing.assert_close(layer(values, more, points, weights=split), once, rtol=0, atol=1e-12)
    # Negative control: without weights the split is seen.
    assert (layer(values, more, points) - layer(u, points, points)).abs().max() > 1e-3
    order = torch.randperm(60)
    permuted = layer(u[..., order], points[order], points, weights=weights[order])
    torch.testing.assert_close(permuted, once, rtol=0, atol=1e-12)


def test_size_does_not_grow_with_the_number_of_points():
    def size(n):
        points, _ = random_cloud(n)
        u = torch.stack((torch.sin(3 * points[:, 0]), torch.exp(points[:, 1])))[None]
        return kernel_layer(0.3)(u, points).square().mean().sqrt().item()

    sizes = [size(n) for n in (100, 400, 1600)]
    assert max(sizes) / min(sizes) < 1.1


def test_a_batch_of_clouds_is_a_loop():
    layer, (points, weights) = kernel_layer(), random_cloud(batch=(3,))
    u, queries = torch.randn(3, 2, 60, dtype=torch.float64), torch.rand(3, 9, 2, dtype=torch.float64)
    together = layer(u, points, queries, weights=weights)
    for i in range(3):
        alone = layer(u[i : i + 1], points[i], queries[i], weights=weights[i])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-12)
    # Clouds of different size: filled up by points of weight zero.
    weights[1, 40:] = 0.0
    short = layer(u[1:2, :, :40], points[1, :40], queries[1], weights=weights[1, :40])
    torch.testing.assert_close(layer(u, points, queries, weights=weights)[1:2], short, rtol=0, atol=1e-12)
    shared = layer(u, points[0], queries, weights=weights)
    assert shared.shape == (3, 3, 9)


def test_a_ball_without_points_gives_zero():
    layer, (points, _) = kernel_layer(0.1), random_cloud()
    far = torch.full((1, 2), 9.0, dtype=torch.float64)
    u = torch.randn(1, 2, 60, dtype=torch.float64, requires_grad=True)
    out = layer(u, points, far)
    assert torch.equal(out, torch.zeros_like(out))
    out.sum().backward()
    assert u.grad.isfinite().all()


def test_points_receive_gradients():
    layer, (points, weights) = kernel_layer(), random_cloud(8)
    u = torch.randn(1, 2, 8, dtype=torch.float64)

    def function(p, w):
        return layer(u, p, weights=w)

    assert torch.autograd.gradcheck(function, (points.requires_grad_(), weights.requires_grad_()))


@pytest.mark.parametrize("num_dims", [1, 2, 3])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_neighbourhoods_are_all_pairs_within_the_radius(num_dims, batch):
    points, queries = torch.rand(*batch, 40, num_dims), torch.rand(*batch, 25, num_dims)
    pairs = find_neighbourhoods(points, queries, 0.3)
    found = np.zeros((max(1, *batch, 1) * 25, max(1, *batch, 1) * 40), dtype=bool)
    found[pairs.queries, pairs.points] = True
    for i, (p, q) in enumerate(zip(points.reshape(-1, 40, num_dims), queries.reshape(-1, 25, num_dims), strict=True)):
        block = found[25 * i : 25 * (i + 1), 40 * i : 40 * (i + 1)]
        assert np.array_equal(block, cdist(q.double(), p.double()) <= 0.3)
    assert found.sum() == len(pairs.queries)
    assert torch.equal(pairs.queries, pairs.queries.sort().values)


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="expected"):
        GraphKernel(1, 1, 0.0, num_dims=2)
    with pytest.raises(ArgumentError, match="expected"):
        find_neighbourhoods(torch.rand(3, 2), torch.rand(3, 2), -1.0)
    layer, (points, weights) = kernel_layer(), random_cloud()
    u = torch.randn(2, 2, 60, dtype=torch.float64)
    wrong = ({"points": points[:9]}, {"points": points[:, :1]}, {"weights": weights[:9]}, {"queries": points[None]})
    for change in wrong:
        with pytest.raises(ShapeError, match="expected"):
            layer(u, **{"points": points, "weights": weights, **change})
    with pytest.raises(ShapeError, match="expected"):
        find_neighbourhoods(points, points[None], 0.1)
