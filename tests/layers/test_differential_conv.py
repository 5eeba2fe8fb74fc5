"""DifferentialConv: learned derivatives, second order up to the walls."""

import math

import pytest
import torch
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.layers import CoordinateEmbedding, DifferentialConv
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from tests.contracts.convergence import measure_convergence
from tests.contracts.layer import LayerContract


class TestDifferentialConv(LayerContract):
    reference_shape = (24, 24)
    num_grids = 3

    def make(self):
        return DifferentialConv(self.in_channels, 3, domain=self.domain)

    def test_smooth_periodic_input_is_accurate_at_128_points(self):
        measured = self.check_convergence()
        assert measured.step[-1] < 1e-2
        # Negative controls: a convolution of pixels tends to the pointwise product, divided by the spacing it diverges.
        pixels = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False).double()
        drifts = []
        for power in (0, 1):

            def apply(shape, power=power):
                return pixels(self.field(shape)) / self.domain.spacing(shape)[0] ** power

            drifts.append(max(measure_convergence(apply, self.domain, [(24, 24), (48, 48), (96, 96)]).drift))
        assert drifts[0] > 0.05
        assert drifts[1] > 2.0

    def test_a_coordinate_that_jumps_diverges_and_ours_does_not(self):
        def size(n, jumps):
            x = self.domain.coordinates((n, n), dtype=torch.float64)
            fields = x[None] if jumps else CoordinateEmbedding(domain=self.domain)(self.field((n, n))[:, :0])[:1, :2]
            return self.layer()(fields).abs().max().item()

        assert size(64, jumps=True) > 1.9 * size(32, jumps=True)
        assert size(64, jumps=False) < 1.1 * size(32, jumps=False)


class TestSecondOrder(LayerContract):
    domain = Domain.box((1.0, 2.0), boundary=("dirichlet", "neumann"), nodes=("interior", "vertex"))
    shapes = ((12, 9), (7, 8))
    tiny_shape = (4, 5)
    reference_shape = (23, 33)
    num_grids = 3
    # One-sided differences have larger constants, in a strip that shrinks: at first the error falls like h^2.5.
    order_tolerance = 0.5

    def make(self):
        return DifferentialConv(self.in_channels, 3, domain=self.domain, order=2)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
@pytest.mark.parametrize("nodes", ["cell", None])
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_the_limit_is_the_derivative(num_dims, nodes, boundary):
    domain = Domain.box((1.0, 1.5, 2.0)[:num_dims], boundary=boundary, nodes=nodes)
    layer = DifferentialConv(1, 1, domain=domain, order=2).double()
    nn.init.normal_(layer.weight)

    errors = []
    for n in (24, 48):
        x = domain.coordinates((n,) * num_dims, dtype=torch.float64)
        numbers = [2 * math.pi / length for length in domain.lengths]
        phase = sum(k * line for k, line in zip(numbers, x, strict=True))
        # The derivatives of sin(phase), one row for each.
        factors = [math.prod(numbers[axis] for axis in along) for along in layer.derivatives]
        rows = [
            f * (phase.cos() if len(a) == 1 else -phase.sin()) for f, a in zip(factors, layer.derivatives, strict=True)
        ]
        expected = torch.einsum("t,t...->...", layer.weight.flatten(), torch.stack(rows))
        errors.append((layer(phase.sin()[None, None])[0, 0] - expected).abs().max().item())
    assert errors[0] < 20
    assert errors[1] < errors[0] / 2.8


def test_exact_for_quadratics_between_walls():
    domain = Domain.box((1.0, 2.0), nodes=("cell", "vertex"))
    layer = DifferentialConv(1, 1, domain=domain, order=2).double()
    x, y = domain.coordinates((5, 6), dtype=torch.float64)
    out = layer((3 * x**2 - 2 * x * y + y)[None, None])
    terms = torch.stack((6 * x - 2 * y, -2 * x + 1, 6 + 0 * x, -2 + 0 * x, 0 * x))
    expected = torch.einsum("t,txy->xy", layer.weight.flatten(), terms)
    torch.testing.assert_close(out[0, 0], expected, rtol=0, atol=1e-11)


def test_commutes_with_translations():
    layer = DifferentialConv(2, 3, domain=Domain.periodic((1.0, 2.0)), order=2).double()
    u = torch.randn(2, 2, 12, 9, dtype=torch.float64)
    torch.testing.assert_close(layer(u.roll((2, 3), (2, 3))), layer(u).roll((2, 3), (2, 3)), rtol=0, atol=1e-9)


def test_bad_arguments_are_refused():
    line = Domain.box((1.0,))
    for arguments in ({"order": 3}, {"in_channels": 0}):
        with pytest.raises(ArgumentError, match="expected"):
            DifferentialConv(**{"in_channels": 1, "out_channels": 1, "domain": line, **arguments})
    for domain in (Domain.sphere(), Domain.periodic((1.0,) * 4)):
        with pytest.raises(DomainError, match="expected"):
            DifferentialConv(1, 1, domain=domain)
    with pytest.raises(ShapeError, match="at least 4 points"):
        DifferentialConv(1, 1, domain=line)(torch.ones(1, 1, 3))
