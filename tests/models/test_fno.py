"""FNO: an operator on every domain, the same one at every resolution."""

import pytest
import torch
from torch import nn

from neuralop_kit import Domain
from neuralop_kit.layers import FourierContinuation, FunctionNorm, ReflectionPadding, ZeroPadding
from neuralop_kit.models import FNO
from neuralop_kit.registry import build_model, config_of, name_of
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from tests.contracts.layer import SPECTRAL, LayerContract


class TestFNO(LayerContract):
    """A channel: periodic along it, walls across."""

    domain = Domain.box((2.0, 1.0), boundary=("periodic", "dirichlet"))
    shapes = ((16, 13), (9, 12))
    tiny_shape = (4, 6)
    reference_shape = (16, 33)
    num_grids = 3
    order = 2.0

    def make(self) -> nn.Module:
        return FNO(self.in_channels, 3, domain=self.domain, width=6, num_layers=2, modes=(5, 6))

    def make_tiny(self) -> nn.Module:
        return FNO(self.in_channels, 1, domain=self.domain, width=2, num_layers=1, modes=(3, 3))

    @pytest.mark.slow
    def test_compiles_with_inductor(self):
        self.check_compile("inductor", tiny=True)


class TestPeriodicFNO(LayerContract):
    """With every option, on a torus: no padding, spectral convergence."""

    domain = Domain.periodic((1.0, 2.0))
    tiny_shape = (3, 5)
    reference_shape = (16, 16)
    num_grids = 3
    order = SPECTRAL

    def make(self) -> nn.Module:
        return FNO(
            self.in_channels,
            1,
            domain=self.domain,
            width=6,
            num_layers=2,
            modes=5,
            norm=FunctionNorm,
            activation=torch.tanh,
        )

    def make_tiny(self) -> nn.Module:
        return FNO(self.in_channels, 1, domain=self.domain, width=2, num_layers=1, modes=3, norm=FunctionNorm)


@pytest.mark.parametrize("nodes", ["vertex", "interior", "cell"])
def test_walls_on_every_placement(nodes):
    case = TestFNO()
    case.domain = Domain.box((2.0, 1.0), nodes=nodes)
    case.reference_shape = {"vertex": (33, 33), "interior": (63, 63), "cell": (16, 16)}[nodes]
    case.check_convergence()


def test_continuation_beats_mirror_images_under_refinement():
    case, errors = TestFNO(), []
    case.order_tolerance = 9.0
    for padding in (ReflectionPadding(), FourierContinuation()):
        torch.manual_seed(0)
        model = FNO(2, 1, domain=case.domain, width=8, num_layers=3, modes=6, padding=padding).double()
        errors.append(case.check_convergence(layer=model).error[0])
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_one_to_three_dimensions(num_dims, boundary):
    domain = Domain.box((1.0,) * num_dims, boundary=boundary)
    model = FNO(2, 1, domain=domain, width=4, num_layers=1, modes=4)
    assert model(torch.randn(3, 2, *(9, 8, 7)[:num_dims])).shape == (3, 1, *(9, 8, 7)[:num_dims])


def test_sees_across_the_domain_and_through_a_periodic_wall():
    domain = Domain.periodic((1.0, 1.0))
    model = FNO(1, 1, domain=domain, width=4, num_layers=1, modes=4).double()
    u = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    spike = u.clone()
    spike[..., 0, 0] = 1.0
    response = (model(spike) - model(u)).abs()[0, 0]
    assert response.min() > 0
    assert response[8, 8] > 1e-6


@pytest.mark.parametrize("padding", [FourierContinuation(0.5, 2), ZeroPadding(0.125)])
def test_config_rebuilds_the_model(padding):
    domain = Domain.box((1.0, 2.0), nodes="cell")
    model = FNO(1, 2, domain=domain, width=4, num_layers=2, modes=(4, 3), padding=padding, norm=FunctionNorm)
    twin = build_model(name_of(model), config_of(model))
    twin.load_state_dict(model.state_dict())
    u = torch.randn(2, 1, 11, 14)
    assert torch.equal(twin(u), model(u))


def test_stays_sane_at_initialisation():
    # Inputs of variance one give outputs of order one, however deep the network is.
    domain = Domain.periodic((1.0, 1.0))
    for num_layers in (1, 4, 12):
        out = FNO(1, 1, domain=domain, num_layers=num_layers, modes=12)(torch.randn(4, 1, 32, 32))
        assert 1e-3 < out.square().mean().sqrt() < 3.0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"modes": (4, 4, 4)}, ArgumentError),
        ({"modes": 0}, ArgumentError),
        ({"width": 0}, ArgumentError),
        ({"num_layers": 0}, ArgumentError),
        ({"domain": Domain.sphere()}, DomainError),
        ({"domain": Domain.periodic((1.0,) * 4)}, DomainError),
    ],
)
def test_bad_arguments_are_refused(options, error):
    with pytest.raises(error, match="expected"):
        FNO(1, 1, **{"domain": Domain.periodic((1.0, 1.0)), **options})
