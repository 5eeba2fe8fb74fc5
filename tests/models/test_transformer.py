"""TransformerOperator: attention between functions, on boxes and spheres."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from neuralop_kit import Domain
from neuralop_kit.models import TransformerOperator
from neuralop_kit.registry import build_model, config_of, name_of
from neuralop_kit.solvers.errors import ArgumentError
from tests.contracts.layer import SPECTRAL, LayerContract


class TestTransformerOperator(LayerContract):
    domain = Domain.box((1.0, 2.0))
    shapes = ((6, 5),)
    tiny_shape = (3, 4)
    reference_shape = (9, 17)
    num_grids = 3
    order = 2.0

    def make(self):
        return TransformerOperator(self.in_channels, 3, domain=self.domain, width=8, num_layers=2, num_heads=2)

    def make_tiny(self):
        return TransformerOperator(self.in_channels, 1, domain=self.domain, width=2, num_layers=1, num_heads=1)

    def test_second_derivatives_are_right(self):
        with sdpa_kernel(SDPBackend.MATH):
            super().test_second_derivatives_are_right()

    def test_forward_and_reverse_derivative_agree(self):
        with sdpa_kernel(SDPBackend.MATH):
            super().test_forward_and_reverse_derivative_agree()

    def test_spectral_on_a_torus(self):
        case = TestTransformerOperator()
        case.domain, case.reference_shape = Domain.periodic((1.0, 2.0)), (8, 8)
        model = TransformerOperator(2, 3, domain=case.domain, width=8, num_layers=2, num_heads=2).double()
        case.check_convergence(layer=model, order=SPECTRAL)


def test_on_a_sphere_and_with_a_window():
    for domain, window in ((Domain.sphere(), None), (Domain.periodic((1.0, 1.0)), 0.3)):
        model = TransformerOperator(1, 2, domain=domain, width=8, num_layers=1, num_heads=2, window=window)
        assert model(torch.randn(2, 1, 9, 16)).shape == (2, 2, 9, 16)


def test_config_rebuilds_the_model():
    model = TransformerOperator(1, 2, domain=Domain.box((1.0,)), width=8, num_layers=1, num_heads=2, window=0.3)
    twin = build_model(name_of(model), config_of(model))
    twin.load_state_dict(model.state_dict())
    u = torch.randn(2, 1, 11)
    assert torch.equal(twin(u), model(u))


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="expected"):
        TransformerOperator(1, 1, domain=Domain.periodic((1.0,)), num_heads=0)
    with pytest.raises(ArgumentError, match="expected"):
        TransformerOperator(1, 1, domain=Domain.periodic((1.0,)), window=-1.0)
