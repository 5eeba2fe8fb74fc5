"""LocalNO: converges with its derivatives' order, and keeps the size of what it sees."""

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.layers import Zernike
from neuralop_kit.models import LocalNO
from neuralop_kit.registry import build_model, config_of, name_of
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from tests.contracts.layer import SPECTRAL, LayerContract


class TestLocalNO(LayerContract):
    shapes = ((8, 7),)
    reference_shape = (24, 24)
    num_grids = 3
    order = 2.0

    def make(self):
        return LocalNO(self.in_channels, 3, domain=self.domain, width=6, num_layers=2, modes=5)

    def make_tiny(self):
        return LocalNO(self.in_channels, 1, domain=self.domain, width=2, num_layers=1, modes=3)

    def test_without_derivatives_it_converges_spectrally(self):
        model = LocalNO(2, 3, domain=self.domain, width=6, num_layers=2, modes=5, radius=0.2, derivatives=False)
        case = TestLocalNO()
        case.reference_shape = (16, 16)
        case.check_convergence(layer=model.double(), order=SPECTRAL)

    def test_second_order_between_walls(self):
        case = TestLocalNO()
        case.domain, case.reference_shape, case.order_tolerance = Domain.box((1.0, 2.0)), (33, 33), 0.4
        case.check_convergence(
            layer=LocalNO(2, 3, domain=case.domain, width=6, num_layers=2, modes=5, radius=0.2).double()
        )


def test_sees_more_than_the_modes_of_its_convolutions():
    # A wave beyond the modes reaches other points through the local layers alone.
    domain = Domain.periodic((1.0,))
    model = LocalNO(1, 1, domain=domain, width=4, num_layers=1, modes=4).double()
    u = torch.zeros(1, 1, 64, dtype=torch.float64)
    spike = u.clone()
    spike[..., 32] = 1.0
    with torch.no_grad():
        model.blocks[0].convolution[0].weight.zero_()
        changed = (model(spike) - model(u))[0, 0].abs() > 1e-6
        assert changed[[31, 33]].all()
        assert not changed[0]


def test_config_rebuilds_the_model():
    model = LocalNO(1, 2, domain=Domain.box((1.0, 2.0)), width=4, num_layers=1, modes=4, radius=0.2, basis=Zernike())
    twin = build_model(name_of(model), config_of(model))
    twin.load_state_dict(model.state_dict())
    u = torch.randn(2, 1, 9, 12)
    assert torch.equal(twin(u), model(u))


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="radius"):
        LocalNO(1, 1, domain=Domain.periodic((1.0,)), radius=0.0)
    with pytest.raises(DomainError, match="SFNO"):
        LocalNO(1, 1, domain=Domain.sphere())
