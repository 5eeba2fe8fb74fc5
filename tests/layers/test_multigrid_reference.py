"""ReferenceMultigrid: the released layer's data flow, equal to a plain implementation of it."""

import pytest
import torch
from torch import nn

from benchmarks.entries.multigrid import PlainMultigrid, give_weights
from neuralop_kit import Domain
from neuralop_kit.layers.multigrid import ReferenceMultigrid
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError

BOX, TORUS = Domain.box((1.0, 1.0)), Domain.periodic((1.0, 1.0))
SWEEPS = ((1, 0), (1, 1), (2, 0))


def make(**options) -> ReferenceMultigrid:
    options = {"domain": BOX, "generator": torch.Generator().manual_seed(0), **options}
    return ReferenceMultigrid(3, options.pop("channels", 3), options.pop("sweeps", SWEEPS), **options).double()


@pytest.mark.parametrize(
    ("domain", "mode"),
    [(BOX, "zeros"), (TORUS, "circular"), (Domain.box((1.0, 1.0), boundary="neumann"), "reflect")],
)
def test_equals_the_plain_implementation(domain, mode):
    ours, plain = make(domain=domain), PlainMultigrid(3, 3, SWEEPS, padding_mode=mode).double()
    give_weights(ours, plain)
    u = torch.randn(2, 3, 16, 24, dtype=torch.float64, requires_grad=True)
    expected, actual = plain(u), ours(u)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-13)
    (wanted,) = torch.autograd.grad(expected.square().sum(), u)
    (got,) = torch.autograd.grad(actual.square().sum(), u)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_linear_without_bias_affine_with():
    u, v = torch.randn(2, 1, 3, 16, 16, dtype=torch.float64)
    layer = make()
    assert (layer(u - 3 * v) - layer(u) + 3 * layer(v)).abs().max() < 1e-12
    layer = make(bias=True)
    assert (layer(u - 3 * v) - layer(u) + 3 * layer(v)).abs().max() > 1e-2
    assert (layer(u - 3 * v) - layer(u) + 3 * layer(v) - 3 * layer(0 * u)).abs().max() < 1e-12


def test_its_norm_makes_it_nonlinear():
    u = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    layer = make(norm_resolution=16)
    assert (layer(2 * u) - 2 * layer(u)).abs().max() > 1e-2


def test_periodic_equivariance_is_broken_by_its_transposed_convolutions():
    # MultigridOperator keeps this to 1e-12.
    layer = make(domain=TORUS)
    u = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    defect = (layer(u.roll(8, 2)) - layer(u).roll(8, 2)).norm() / layer(u).norm()
    assert 1e-3 < defect < 0.5


def test_every_parameter_gets_a_gradient():
    layer = make(bias=True, norm_resolution=16, channels=4)
    layer(torch.randn(1, 3, 16, 16, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_odd_sizes_need_their_own_prolongations():
    layer = make(prolongation_sizes=(3, 4))
    assert layer(torch.randn(1, 3, 27, 27, dtype=torch.float64)).shape == (1, 3, 27, 27)
    with pytest.raises(ShapeError, match="expected sizes that halve"):
        make()(torch.randn(1, 3, 27, 27, dtype=torch.float64))


def test_compiles_without_graph_break():
    layer, u = make(), torch.randn(1, 3, 16, 16, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(u), layer(u), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"sweeps": []}, ArgumentError),
        ({"sweeps": [(0, 1), (2, 0)]}, ArgumentError),
        ({"prolongation_sizes": (4,)}, ArgumentError),
        ({"prolongation_sizes": (4, 5)}, ArgumentError),
        ({"domain": Domain.box((1.0,))}, DomainError),
        ({"domain": Domain.box((1.0, 1.0), boundary=("periodic", "neumann"))}, DomainError),
    ],
)
def test_bad_arguments_are_refused(options, error):
    with pytest.raises(error, match="expected"):
        make(**options)


def test_wrong_shapes_are_refused():
    for bad in (torch.zeros(3, 16, 16), torch.zeros(1, 2, 16, 16)):
        with pytest.raises(ShapeError, match="expected a field"):
            make()(bad.double())


def test_layout_in_memory_does_not_matter():
    layer, u = make(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert isinstance(layer, nn.Module)
    torch.testing.assert_close(layer(u.contiguous(memory_format=torch.channels_last)), layer(u), rtol=0, atol=1e-14)
