"""UNO: coarse levels that refine with the data."""

import pytest
import torch
from torch.nn.functional import interpolate

from neuralop_kit import Domain
from neuralop_kit.layers import Resample
from neuralop_kit.models import UNO
from neuralop_kit.registry import build_model, config_of, name_of
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from tests.contracts.convergence import measure_convergence
from tests.contracts.layer import SPECTRAL, LayerContract


class TestUNO(LayerContract):
    shapes = ((12, 9),)
    tiny_shape = (4, 5)
    reference_shape = (24, 24)
    num_grids = 3
    order = SPECTRAL

    def make(self):
        return UNO(self.in_channels, 3, domain=self.domain, width=4, levels=2, modes=8)

    def make_tiny(self):
        return UNO(self.in_channels, 1, domain=self.domain, width=2, levels=2, modes=2)

    def test_between_walls(self):
        case = TestUNO()
        case.domain, case.reference_shape = Domain.box((1.0, 2.0)), (33, 33)
        case.order_tolerance = 0.5
        case.check_convergence(layer=UNO(2, 3, domain=case.domain, width=4, levels=3, modes=8).double(), order=2.0)

    def test_halving_in_pixels_would_not_converge_like_this(self, monkeypatch):
        # Negative control: subsampling and bilinear upsampling by pixels, which shift the field by half a spacing.
        def in_pixels(resample, u, shape):
            if shape[0] < u.shape[2]:
                return u[:, :, ::2, ::2]
            return interpolate(u, size=tuple(shape), mode="bilinear", align_corners=False)

        model = self.layer()
        ours = self.check_convergence(layer=model)
        monkeypatch.setattr(Resample, "forward", in_pixels)
        naive = measure_convergence(lambda s: model(self.field(s)), self.domain, [(24, 24), (48, 48), (96, 96)])
        assert naive.error[1] > 1e3 * ours.error[1]


def test_config_rebuilds_the_model():
    model = UNO(1, 2, domain=Domain.box((1.0,)), width=4, levels=2, modes=6)
    twin = build_model(name_of(model), config_of(model))
    twin.load_state_dict(model.state_dict())
    u = torch.randn(2, 1, 13)
    assert torch.equal(twin(u), model(u))


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="level"):
        UNO(1, 1, domain=Domain.periodic((1.0,)), levels=0)
    with pytest.raises(DomainError, match="SFNO"):
        UNO(1, 1, domain=Domain.sphere())
