"""Fields that are none are refused before anything is made of them."""

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.layers import (
    BoundedSpectralConv,
    DifferentialConv,
    FunctionAttention,
    FunctionNorm,
    IntegralConv,
    MultigridOperator,
    SpectralConv,
)
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

TORUS, BOX = Domain.periodic((1.0, 1.0)), Domain.box((1.0, 1.0))
LAYERS = {
    "spectral": SpectralConv(2, 3, (4, 4)),
    "bounded": BoundedSpectralConv(2, 3, (4, 4), domain=BOX),
    "integral": IntegralConv(2, 3, 0.3, domain=BOX),
    "differential": DifferentialConv(2, 3, domain=TORUS),
    "attention": FunctionAttention(2, 3, 1, domain=BOX),
    "norm": FunctionNorm(2, domain=BOX),
    "multigrid": MultigridOperator(2, 3, 2, domain=TORUS),
}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
@pytest.mark.parametrize("name", LAYERS)
def test_complex_numbers_and_integers_are_refused(name, dtype):
    field = torch.ones(2, 2, 8, 8)
    LAYERS[name](field)
    with pytest.raises(ArgumentError, match=f"got {dtype}; give complex numbers as two channels"):
        LAYERS[name](field.to(dtype))


def test_derivatives_between_walls_need_four_points():
    with pytest.raises(ShapeError, match="at least 4 points"):
        LAYERS["differential"](torch.ones(2, 2, 8, 3))
