"""Fields that are none are refused before anything is made of them, also by what does not inherit the contract."""

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.layers import DifferentialConv
from neuralop_kit.models import GINO, ReferenceHelmholtzMgNO, ReferenceMgNO
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

BOX, POINTS = Domain.box((1.0, 1.0)), torch.rand(64, 2)


def gino():
    model = GINO(1, 1, domain=BOX, radius=0.4, grid=(6, 6), width=4, num_layers=1, modes=4)
    return lambda u: model(u.flatten(2), POINTS)


MODELS = {
    "gino": gino,
    "reference": lambda: ReferenceMgNO(1, 1, domain=BOX, width=4, num_layers=1, sweeps=((1, 0), (1, 0))),
    "helmholtz": lambda: ReferenceHelmholtzMgNO(
        width=2, num_layers=1, resolution=8, sweeps=(1, 1), prolongation_sizes=(4,)
    ),
}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
@pytest.mark.parametrize("name", MODELS)
def test_complex_numbers_and_integers_are_refused(name, dtype):
    model, field = MODELS[name](), torch.ones(2, 1, 8, 8)
    model(field)
    with pytest.raises(ArgumentError, match=f"got {dtype}; give complex numbers as two channels"):
        model(field.to(dtype))


def test_derivatives_between_walls_need_four_points():
    layer = DifferentialConv(2, 3, domain=Domain.periodic((1.0, 1.0)))
    with pytest.raises(ShapeError, match="at least 4 points"):
        layer(torch.ones(2, 2, 8, 3))
