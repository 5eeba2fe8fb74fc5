"""FunctionAttention: a ratio of integrals on grids, spheres and clouds."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from neuralop_kit import Domain
from neuralop_kit.layers import FunctionAttention, attention_window
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from tests.contracts.layer import SPECTRAL, LayerContract


class AttentionContract(LayerContract):
    """Second and forward derivatives are those of the plain kernel."""

    def test_second_derivatives_are_right(self):
        with sdpa_kernel(SDPBackend.MATH):
            super().test_second_derivatives_are_right()

    def test_forward_and_reverse_derivative_agree(self):
        with sdpa_kernel(SDPBackend.MATH):
            super().test_forward_and_reverse_derivative_agree()


class TestFunctionAttention(AttentionContract):
    domain = Domain.box((1.0, 2.0), boundary=("neumann", "dirichlet"), nodes=("vertex", "interior"))
    tiny_shape = (3, 4)
    reference_shape = (13, 23)
    num_grids = 3
    order = 2.0

    def make(self):
        return FunctionAttention(self.in_channels, 4, 2, domain=self.domain)

    def make_tiny(self):
        return FunctionAttention(self.in_channels, 1, 1, domain=self.domain, head_width=2)

    def test_without_weights_an_order_is_lost(self):
        # Negative control: torch's own attention on the same grid.
        case = TestFunctionAttention()
        case.domain = Domain.box((1.0, 2.0))
        case.reference_shape, layer = (9, 17), self.layer()
        plain = FunctionAttention(2, 4, 2, domain=None).double()
        plain.load_state_dict(layer.state_dict())
        flat = nn.Sequential(nn.Flatten(2), plain)

        class OnGrid(nn.Module):
            def forward(self, u):
                return flat(u).unflatten(2, u.shape[2:])

        case.check_convergence(layer=OnGrid(), order=1.0)


class TestPeriodicAttention(AttentionContract):
    order = SPECTRAL
    tiny_shape = (3, 3)
    reference_shape = (8, 8)
    num_grids = 3

    def make(self):
        return FunctionAttention(self.in_channels, 4, 2, domain=self.domain)

    def make_tiny(self):
        return FunctionAttention(self.in_channels, 1, 1, domain=self.domain)


class TestWindowedAttention(AttentionContract):
    domain = Domain.box((1.0, 2.0), boundary=("periodic", "dirichlet"))
    shapes = ((12, 9), (7, 8))
    tiny_shape = (4, 5)
    reference_shape = (12, 25)
    num_grids = 3
    order = 2.0
    order_tolerance = 0.5

    def make(self):
        return FunctionAttention(self.in_channels, 4, 2, domain=self.domain, window=0.4)

    def make_tiny(self):
        return FunctionAttention(self.in_channels, 1, 1, domain=self.domain, window=0.6)

    @pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
    @pytest.mark.parametrize("num_dims", [1, 2, 3])
    def test_tiles_do_not_change_the_result(self, num_dims, boundary):
        # Against one masked attention between all points.
        domain = Domain.box((1.0, 1.5, 2.0)[:num_dims], boundary=boundary)
        shape = (11, 10, 8)[:num_dims]
        layer = FunctionAttention(2, 4, 2, domain=domain, window=0.49).double()
        u = torch.randn(3, 2, *shape, dtype=torch.float64)
        x = domain.coordinates(shape, dtype=torch.float64).flatten(1)
        apart = x[:, :, None] - x[:, None]
        for axis, length in enumerate(domain.lengths):
            if boundary == "periodic":
                apart[axis] -= length * (apart[axis] / length).round()
        window = (1 - apart.square().sum(dim=0) / 0.49**2).clamp(min=0).square() * domain.weights(
            shape
        ).double().flatten()
        rows = u.flatten(2).mT
        heads = [
            part.unflatten(2, (2, 2)).transpose(1, 2)
            for part in (layer.query(rows), *layer.key_value(rows).chunk(2, -1))
        ]
        expected = layer.read_out(scaled_dot_product_attention(*heads, window.log()).transpose(1, 2).flatten(2)).mT
        torch.testing.assert_close(layer(u).flatten(2), expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("tile", [1, 3, 50])
    def test_any_tile_will_do(self, tile, monkeypatch):
        layer, u = self.layer(), self.field((12, 9))
        expected = layer(u)
        monkeypatch.setattr(attention_window, "_SMALLEST_TILE", tile)
        torch.testing.assert_close(layer(u), expected, rtol=0, atol=1e-13)

    def test_sees_nothing_beyond_the_window(self):
        domain = Domain.periodic((1.0, 1.0))
        layer = FunctionAttention(1, 2, 1, domain=domain, window=0.2).double()
        u = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
        spike = u.clone()
        spike[..., 16, 16] = 1.0
        changed = (layer(spike) - layer(u))[0].abs().sum(dim=0) > 0
        distance = (domain.coordinates((32, 32), dtype=torch.float64) - 0.5).norm(dim=0)
        assert torch.equal(changed, distance < 0.2)

    def test_a_window_wider_than_the_torus_sees_images(self):
        layer = FunctionAttention(1, 2, 1, domain=Domain.periodic((1.0,)), window=1.7).double()
        twice = FunctionAttention(1, 2, 1, domain=Domain.periodic((4.0,)), window=1.7).double()
        twice.load_state_dict(layer.state_dict())
        u = torch.randn(1, 1, 8, dtype=torch.float64)
        torch.testing.assert_close(twice(u.repeat(1, 1, 4))[..., :8], layer(u), rtol=0, atol=1e-12)


class TestSphericalAttention(AttentionContract):
    domain = Domain.sphere()
    shapes = ((7, 12), (6, 9))
    tiny_shape = (3, 4)
    reference_shape = (9, 16)
    num_grids = 3
    order = SPECTRAL

    def function(self, x, phase):
        # Smooth at the poles too.
        theta, phi = x
        return torch.exp(theta.sin() * torch.cos(phi + phase) / 2) * (1 + theta.cos() / 2)

    def make(self):
        return FunctionAttention(self.in_channels, 4, 2, domain=self.domain)

    def make_tiny(self):
        return FunctionAttention(self.in_channels, 1, 1, domain=self.domain)

    def test_window_on_the_sphere_converges(self):
        layer = FunctionAttention(2, 4, 2, domain=self.domain, window=1.0).double()
        # Two for certain; between three and five where the rim happens to cut cells evenly.
        self.order_tolerance = 2.0
        self.check_convergence(layer=layer, order=4.0)


# ---- clouds


def cloud_attention():
    torch.manual_seed(3)
    return FunctionAttention(2, 3, 1, domain=None).double()


def test_splitting_and_permuting_points_changes_nothing():
    attention = cloud_attention()
    u, weights = torch.randn(2, 2, 30, dtype=torch.float64), torch.rand(30, dtype=torch.float64)
    once = attention(u, weights=weights)
    twice = attention(u.repeat(1, 1, 2), weights=weights.repeat(2) / 2)
    torch.testing.assert_close(twice[..., :30], once, rtol=0, atol=1e-12)
    # Half of the points only: equal weights would not notice.
    part = torch.cat((u, u[..., :10]), dim=2)
    split = torch.cat((weights[:10] / 2, weights[10:], weights[:10] / 2))
    torch.testing.assert_close(attention(part, weights=split)[..., :30], once, rtol=0, atol=1e-12)
    assert (attention(part)[..., :30] - attention(u)).abs().max() > 1e-3
    order = torch.randperm(30)
    torch.testing.assert_close(attention(u[..., order], weights=weights[order]), once[..., order], rtol=0, atol=1e-12)


def graded(num_points, *, weighted):
    x = torch.linspace(0, 1, num_points, dtype=torch.float64) ** 2
    u = torch.stack((torch.sin(3 * x), torch.exp(x)))[None]
    gaps = x.diff()
    weights = (nn.functional.pad(gaps, (1, 0)) + nn.functional.pad(gaps, (0, 1))) / 2
    # Sharper attention than at the start shows the density of points more clearly.
    attention = cloud_attention()
    nn.init.constant_(attention.query.weight, 1.0)
    return attention(u, weights=weights if weighted else None)[..., :: (num_points - 1) // 16].detach()


def test_graded_points_converge_with_weights_only():
    sizes = (17, 33, 65, 129)
    exact = graded(4097, weighted=True)

    def errors(weighted):
        return [((graded(n, weighted=weighted) - exact).norm() / exact.norm()).item() for n in sizes]

    ours, plain = errors(True), errors(False)
    assert ours[-1] < 2e-4
    assert all(1.8 < math.log2(a / b) < 2.2 for a, b in itertools.pairwise(ours))
    # Negative control: without weights there is a limit, the wrong one.
    assert min(plain) > 20 * ours[0]
    assert plain[-1] > 0.9 * plain[0]


def test_weight_on_one_key_is_seen_by_every_query():
    attention, weights = cloud_attention(), torch.zeros(10, dtype=torch.float64)
    weights[0] = 1.0
    out = attention(torch.randn(1, 2, 10, dtype=torch.float64), weights=weights)
    assert out.abs().sum(dim=1).min() > 1e-3
    torch.testing.assert_close(out, out[..., :1].expand_as(out), rtol=0, atol=1e-13)


def test_context_on_another_domain():
    disk, line = Domain.sphere(), Domain.box((1.0,))
    attention = FunctionAttention(2, 4, 2, domain=line, context_channels=3, context_domain=disk)
    out = attention(torch.randn(2, 2, 9), torch.randn(2, 3, 7, 12))
    assert out.shape == (2, 4, 9)
    points = FunctionAttention(2, 4, 2, domain=line, context_channels=3, points_as_context=True)
    weights = torch.rand(2, 20)
    assert points(torch.randn(2, 2, 9), torch.randn(2, 3, 20), weights=weights).shape == (2, 4, 9)


def test_equal_weights_need_no_mask(monkeypatch):
    masks = []

    def spy(query, key, value, mask=None):
        masks.append(mask)
        return scaled_dot_product_attention(query, key, value, mask)

    monkeypatch.setattr("neuralop_kit.layers.function_attention.scaled_dot_product_attention", spy)
    for nodes in ("cell", "vertex"):
        FunctionAttention(1, 2, 1, domain=Domain.box((1.0,), nodes=nodes))(torch.randn(1, 1, 9))
    assert masks[0] is None
    assert masks[1].shape == (1, 1, 1, 9)


def test_bad_arguments_are_refused():
    box = Domain.box((1.0,))
    for options in ({"domain": None, "window": 0.1}, {"domain": box, "window": 0.0}, {"domain": box, "head_width": 0}):
        with pytest.raises(ArgumentError, match="expected"):
            FunctionAttention(1, 1, 1, **options)
    with pytest.raises(ShapeError, match="expected weights"):
        FunctionAttention(1, 1, 1, domain=box)(torch.ones(1, 1, 9), weights=torch.ones(8))
    with pytest.raises(ShapeError, match="expected the context"):
        FunctionAttention(1, 1, 1, domain=box, window=0.1)(torch.ones(1, 1, 9), torch.ones(1, 1, 8))
