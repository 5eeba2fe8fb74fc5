"""MultigridOperator as a layer: the contract, linearity, symmetries of the boundary conditions, any size."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit import Domain
from neuralop_kit.layers import MultigridOperator
from neuralop_kit.layers.multigrid import RandomKernels, RedBlack
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from tests.contracts.layer import LayerContract

INTERIOR = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="interior")
KINDS = [
    ("periodic", "left"),
    ("periodic", "cell"),
    ("dirichlet", "vertex"),
    ("dirichlet", "interior"),
    ("dirichlet", "cell"),
    ("neumann", "vertex"),
    ("neumann", "cell"),
]


def box(boundary: str, nodes: str, num_dims: int = 2) -> Domain:
    return Domain.box((1.0,) * num_dims, boundary=boundary, nodes=nodes)


def points(domain: Domain, intervals: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a.placement.num_points(n) for a, n in zip(domain.axes, intervals, strict=True))


def make(domain: Domain, levels: int = 3, *, channels: int = 2, **options) -> MultigridOperator:
    layer = MultigridOperator(
        channels, channels, levels, domain=domain, generator=torch.Generator().manual_seed(3), **options
    )
    return layer.double()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def symmetrize(layer: MultigridOperator) -> MultigridOperator:
    """Make every stencil the same when an axis is reversed."""
    with torch.no_grad():
        for kernels in layer.parameters():
            for dim in range(3, kernels.ndim):
                kernels.copy_((kernels + kernels.flip(dim)) / 2)
    return layer


class TestMultigridOperator(LayerContract):
    """Vertices and periodic points, six levels deep, kernels of its own on three of them."""

    domain = Domain.box((2.0, 1.0), boundary=("periodic", "dirichlet"), nodes=("left", "interior"))
    shapes = ((16, 7), (25, 11))
    tiny_shape = (8, 3)
    reference_shape = (32, 15)
    order_tolerance = 0.15

    def make(self) -> nn.Module:
        return MultigridOperator(self.in_channels, 3, 3, domain=self.domain, coarsest=2)

    def make_tiny(self) -> nn.Module:
        return MultigridOperator(self.in_channels, 1, 2, domain=self.domain, coarsest=2)


class TestOnCells(LayerContract):
    """Every option away from its default."""

    domain = Domain.box((1.0, 2.0), boundary=("neumann", "dirichlet"), nodes="cell")
    shapes = ((8, 16), (11, 15))
    tiny_shape = (4, 5)

    def test_converges_under_refinement(self):
        # Cell centres are nested under factors of three only, levels under factors of two: compare means over cells.
        layer, outputs = self.layer(), []
        with torch.no_grad():
            for factor in (1, 2, 4, 8, 16):
                out = layer(self.field((16 * factor, 32 * factor)))
                outputs.append(nn.functional.avg_pool2d(out, factor))
        steps = [((fine - coarse).norm() / coarse.norm()).item() for coarse, fine in itertools.pairwise(outputs)]
        assert steps[0] < self.max_drift
        assert all(3.5 < a / b < 4.5 for a, b in itertools.pairwise(steps)), steps

    def make(self) -> nn.Module:
        return MultigridOperator(
            self.in_channels, 3, 2, domain=self.domain, cycle="V", pre_smoothing=0, coarsest=4, shared_system=False,
            smoother=RedBlack(), initialization=RandomKernels(0.5),
        )  # fmt: skip

    def make_tiny(self) -> nn.Module:
        return MultigridOperator(
            self.in_channels, 1, 2, domain=self.domain, cycle="W", coarsest=2, shared_system=False, smoother=RedBlack()
        )


@pytest.mark.parametrize(("boundary", "nodes"), KINDS)
@pytest.mark.parametrize(("cycle", "sweeps"), [("V", (1, 1)), ("W", (0, 2)), ("F", (2, 1)), ("backslash", (1, 0))])
def test_linear_to_rounding(boundary, nodes, cycle, sweeps):
    domain = box(boundary, nodes)
    layer = make(domain, cycle=cycle, pre_smoothing=sweeps[0], post_smoothing=sweeps[1])
    for shape in (points(domain, (16, 16)), points(domain, (23, 19))):
        u, v = noise(2, 2, *shape)
        u, v = u[None], v[None]
        combined, separate = layer(u - 3 * v), layer(u) - 3 * layer(v)
        assert (combined - separate).abs().max() <= 1e-12 * separate.abs().max()


@pytest.mark.parametrize(("boundary", "nodes"), KINDS)
def test_adjoint_identity(boundary, nodes):
    # <L x, y> = <x, L^T y> with L^T from autograd, on nested and other sizes.
    domain = box(boundary, nodes)
    layer = make(domain)
    for shape in (points(domain, (16, 16)), points(domain, (29, 21))):
        x, y = noise(2, 1, 2, *shape)
        x.requires_grad_()
        out = layer(x)
        (transposed,) = torch.autograd.grad(out, x, y)
        assert abs((out * y).sum() - (x * transposed).sum()) <= 1e-12 * out.norm() * y.norm()


@pytest.mark.parametrize("nodes", ["left", "cell"])
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_periodic_axes_commute_with_shifts(nodes, num_dims):
    layer = make(box("periodic", nodes, num_dims))
    u = noise(1, 2, *(16,) * num_dims)
    for dim in range(2, 2 + num_dims):
        expected = layer(u).roll(4, dim)
        assert (layer(u.roll(4, dim)) - expected).abs().max() <= 1e-12 * expected.abs().max()
    # Negative control: the coarse grids move along only with shifts by their own spacing.
    assert (layer(u.roll(1, 2)) - layer(u).roll(1, 2)).abs().max() > 1e-3 * layer(u).abs().max()


def extended(u: Tensor, boundary: str, nodes: str) -> Tensor:
    """Even or odd reflection about the walls, by which Neumann and Dirichlet become periodic."""
    sign = 1 if boundary == "neumann" else -1
    for dim in (2, 3):
        mirror = sign * u.flip(dim)
        if nodes == "cell":
            u = torch.cat([u, mirror], dim)
        elif nodes == "vertex":
            u = torch.cat([u, mirror.narrow(dim, 1, u.shape[dim] - 2)], dim)
        else:
            wall = torch.zeros_like(u.narrow(dim, 0, 1))
            u = torch.cat([wall, u, wall, mirror], dim)
    return u


@pytest.mark.parametrize("kind", [("neumann", "vertex"), ("neumann", "cell"), ("dirichlet", "interior"),
                                  ("dirichlet", "cell")])  # fmt: skip
def test_reflections_commute_for_symmetric_stencils(kind):
    walled = symmetrize(make(box(*kind)))
    periodic = Domain.periodic((2.0, 2.0), nodes="cell" if kind[1] == "cell" else "left")
    unwalled = make(periodic, coarsest=8)
    unwalled.load_state_dict(walled.state_dict())
    u = noise(1, 2, *points(walled.domain, (16, 16)))
    expected = extended(walled(u), *kind)
    actual = unwalled(extended(u, *kind))
    assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()
    # Negative control: stencils that are not symmetric.
    crooked = make(box(*kind))
    unwalled.load_state_dict(crooked.state_dict())
    assert (unwalled(extended(u, *kind)) - extended(crooked(u), *kind)).abs().max() > 1e-2


def test_dirichlet_walls_that_are_points_stay_zero():
    layer = make(box("dirichlet", "vertex"))
    u = noise(1, 2, 17, 17)
    out = layer(u)
    walls = torch.ones(17, 17, dtype=torch.bool)
    walls[1:-1, 1:-1] = False
    assert (out[..., walls] == 0).all()
    inside = make(INTERIOR)(u[..., 1:-1, 1:-1])
    assert torch.equal(out[..., 1:-1, 1:-1], inside)


@pytest.mark.parametrize(("boundary", "nodes"), KINDS)
@pytest.mark.parametrize("size", [64, 85, 100, 101, 127, 129, 211, 421])
def test_any_size_in_one_dimension(boundary, nodes, size):
    layer = make(box(boundary, nodes, 1), levels=5)
    assert layer(noise(1, 2, size)).shape == (1, 2, size)


@pytest.mark.parametrize("shape", [(64, 64), (85, 101), (129, 100), (211, 127), (64, 128), (32, 33)])
def test_any_size_in_two_dimensions(shape):
    for boundary, nodes in KINDS:
        out = MultigridOperator(1, 2, 5, domain=box(boundary, nodes))(torch.ones(1, 1, *shape))
        assert out.shape == (1, 2, *shape)
        assert out.isfinite().all()


def test_three_dimensions():
    domain = Domain.box((1.0, 1.0, 2.0), boundary=("periodic", "neumann", "dirichlet"))
    layer = make(domain, levels=2)
    for shape in ((8, 9, 17), (11, 10, 19)):
        u, v = noise(2, 1, 2, *shape)
        assert layer(u).shape == u.shape
        torch.testing.assert_close(layer(u + v), layer(u) + layer(v), rtol=0, atol=1e-12)


def test_every_parameter_gets_a_gradient():
    for cycle, shared, coarsest_sweeps in itertools.product(("V", "W", "F", "backslash"), (True, False), (2, 3)):
        layer = make(INTERIOR, cycle=cycle, shared_system=shared, coarsest_sweeps=coarsest_sweeps)
        layer(noise(1, 2, 15, 15)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters()), (cycle, shared)


def test_recomputing_gives_the_same_gradients_and_keeps_one_field():
    u = noise(2, 2, 31, 31).requires_grad_()
    results, kept = [], []
    for recompute in (False, True):
        layer = make(INTERIOR, recompute=recompute)
        sizes: list[int] = []

        def note(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = layer(u)
        kept.append(sum(sizes))
        results.append(torch.autograd.grad(out.square().sum(), (u, *layer.parameters())))
    for again, once in zip(results[1], results[0], strict=True):
        assert torch.equal(again, once)
    assert kept[1] <= u.numel()
    assert kept[0] > 4 * u.numel()  # negative control


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cycle", ["V", "backslash"])
def test_collapsed_coarse_levels_give_the_same_results_at_every_resolution(kind, cycle):
    layer = make(box(*kind), levels=4, cycle=cycle)
    collapsed = layer.collapsed()
    assert collapsed.tail is not None
    assert not any(p.requires_grad for p in collapsed.parameters())
    assert set(collapsed.state_dict()) == set(layer.state_dict())
    for intervals in ((6, 6), (8, 8), (16, 16), (40, 33), (64, 64)):
        u = noise(2, 2, *points(layer.domain, intervals))
        expected = layer(u)
        assert (collapsed(u) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_cycles_that_revisit_levels_cannot_collapse():
    with pytest.raises(ArgumentError, match="visits each level once"):
        make(INTERIOR, cycle="W").collapsed()


def test_depth_grows_with_the_resolution_and_parameters_do_not():
    layer = make(INTERIOR, levels=3)
    depths = [layer.hierarchy(noise(1, 2, n, n))[0].finest + 1 for n in (3, 7, 15, 31, 63, 127)]
    assert depths == [1, 2, 3, 4, 5, 6]


def test_parameter_count():
    # 9 in out per stencil: one system and two smoothers on each of four levels.
    layer = MultigridOperator(3, 5, 4, domain=INTERIOR)
    assert sum(p.numel() for p in layer.parameters()) == 9 * 3 * 5 * 4 * (1 + 2)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"levels": 0}, ArgumentError),
        ({"cycle": "Y"}, ArgumentError),
        ({"pre_smoothing": 0, "post_smoothing": 0}, ArgumentError),
        ({"cycle": "backslash", "pre_smoothing": 0}, ArgumentError),
        ({"fine_levels": "wish"}, ArgumentError),
        ({"coarsest": (4,)}, ArgumentError),
        ({"coarsest": 1}, ArgumentError),
        ({"coarsest_sweeps": 1}, ArgumentError),
        ({"initialization": "zeros"}, ArgumentError),
    ],
)
def test_bad_arguments_are_refused(options, error):
    with pytest.raises(error, match="expected"):
        MultigridOperator(1, 1, **{"levels": 3, "domain": INTERIOR, **options})


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 2), r"\(15, 15\)"), ((15, 63), "proportions of the coarsest grid")],
)
def test_sizes_that_cannot_work_are_refused_with_sizes_that_can(shape, message):
    with pytest.raises(ShapeError, match=message):
        make(INTERIOR)(noise(1, 2, *shape))


def test_the_sphere_is_refused():
    with pytest.raises(DomainError, match="box"):
        MultigridOperator(1, 1, 3, domain=Domain.sphere())


def test_random_kernels_are_reproducible_and_scale_with_the_gain():
    first, second = make(INTERIOR), make(INTERIOR)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    doubled = make(INTERIOR, initialization=RandomKernels(gain=1.0))
    torch.testing.assert_close(doubled.system_kernels[1], 2 * first.system_kernels[1])
