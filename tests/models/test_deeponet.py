"""DeepONet by integrals: any grid in, any grid out."""

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.models import DeepONet
from neuralop_kit.registry import build_model, config_of, name_of
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from tests.contracts.layer import SPECTRAL, LayerContract


class TestDeepONet(LayerContract):
    domain = Domain.box((1.0, 2.0))
    reference_shape = (9, 17)
    num_grids = 3
    order = 2.0

    def make(self):
        return DeepONet(self.in_channels, 3, domain=self.domain, width=8, num_moments=6, num_functions=5)

    def make_tiny(self):
        return DeepONet(self.in_channels, 1, domain=self.domain, width=3, num_layers=1, num_moments=2, num_functions=2)

    @pytest.mark.parametrize("domain", [Domain.periodic((1.0, 2.0)), Domain.sphere()])
    def test_spectral_where_quadrature_is(self, domain):
        case = TestDeepONet()
        case.domain = domain
        case.reference_shape = (24, 24) if domain.is_periodic else (17, 32)
        if not domain.is_periodic:
            case.function = lambda x, phase: torch.exp(x[0].sin() * torch.cos(x[1] + phase) / 2)
        model = DeepONet(2, 3, domain=domain, width=8, num_moments=6, num_functions=5, num_frequencies=2).double()
        case.check_convergence(layer=model, order=SPECTRAL)

    def test_samples_the_output_anywhere(self):
        layer, u = self.layer(), self.field((9, 17))
        fine = layer(u, output_shape=(17, 33))
        torch.testing.assert_close(fine[..., ::2, ::2], layer(u), rtol=0, atol=1e-13)


def test_config_rebuilds_the_model():
    model = DeepONet(1, 2, domain=Domain.box((1.0,)), width=8, num_moments=4, num_functions=4, activation=torch.tanh)
    twin = build_model(name_of(model), config_of(model))
    twin.load_state_dict(model.state_dict())
    u = torch.randn(2, 1, 11)
    assert torch.equal(twin(u), model(u))


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="expected"):
        DeepONet(1, 1, domain=Domain.periodic((1.0,)), num_moments=0)
    with pytest.raises(ShapeError, match="output shape"):
        DeepONet(1, 1, domain=Domain.periodic((1.0,)))(torch.ones(1, 1, 8), output_shape=(4, 4))
