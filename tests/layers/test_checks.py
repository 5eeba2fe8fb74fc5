"""Fields that are none are refused before anything is made of them, also by what does not inherit the contract."""

import pytest
import torch

from neuralop_kit import Domain
from neuralop_kit.constraints import ConservationConstraint, SimplexConstraint
from neuralop_kit.convert import to_operator
from neuralop_kit.layers import (
    BoundedSpectralConv,
    DifferentialConv,
    FunctionAttention,
    MultigridOperator,
    PointwiseLinear,
    Resample,
    SpectralConv,
)
from neuralop_kit.models import FNO, GINO, MgNO, ReferenceHelmholtzMgNO, ReferenceMgNO
from neuralop_kit.solvers.errors import ArgumentError, ShapeError

TORUS = Domain.periodic((1.0, 1.0))
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


TOTALS = torch.ones(2, 1)
LAYERS = {
    "spectral": lambda: SpectralConv(1, 1, (4, 4)),
    "resample": lambda: lambda u: Resample(domain=TORUS)(u, (6, 6)),
    "pointwise": lambda: PointwiseLinear(1, 1),
    "converted": lambda: to_operator(torch.nn.Conv2d(1, 1, 1), TORUS, resolution=(8, 8)),
    "conservation": lambda: lambda u: ConservationConstraint(BOX)(u, TOTALS),
    "simplex": lambda: lambda u: SimplexConstraint(BOX)(u, TOTALS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_arrays_and_lists_are_refused(name):
    layer, u = LAYERS[name](), torch.rand(2, 1, 8, 8)
    layer(u)
    for wrong, kind in ((u.numpy(), "ndarray"), (u.tolist(), "list")):
        with pytest.raises(ArgumentError, match=f"expected a tensor, got {kind}; torch.as_tensor"):
            layer(wrong)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
@pytest.mark.parametrize("name", ["conservation", "simplex"])
def test_constraints_are_for_real_fields(name, dtype):
    with pytest.raises(ArgumentError, match=f"got {dtype}; give complex numbers as two channels"):
        LAYERS[name]()(torch.ones(2, 1, 8, 8, dtype=dtype))


OF_ONE_DTYPE = {
    "pointwise": lambda: PointwiseLinear(1, 1),
    "attention": lambda: FunctionAttention(1, 1, 1, domain=TORUS),
    "multigrid": lambda: MultigridOperator(1, 1, 2, domain=TORUS),
    "fno": lambda: FNO(1, 1, domain=TORUS, width=4, num_layers=1, modes=4),
    "mgno": lambda: MgNO(1, 1, domain=TORUS, width=2, num_layers=1, levels=2),
}


@pytest.mark.parametrize("name", OF_ONE_DTYPE)
def test_weights_of_another_dtype_are_said_and_autocast_is_let_through(name):
    layer, u = OF_ONE_DTYPE[name](), torch.rand(2, 1, 8, 8)
    said = r"expected a field of torch\.float32, as the weights are, got torch\.float64; .*model\.to\(torch\.float64\)"
    with pytest.raises(ArgumentError, match=said):
        layer(u.double())
    assert layer.double()(u.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        layer.float()(u)


@pytest.mark.parametrize("layer", [SpectralConv(1, 1, (4, 4)), BoundedSpectralConv(1, 1, (4, 4), domain=BOX)])
def test_an_axis_without_points_is_refused(layer):
    with pytest.raises(ShapeError, match="at least one point on every axis"):
        layer(torch.ones(2, 1, 0, 8))


@pytest.mark.parametrize("sizes", [{"in_channels": 0}, {"out_channels": 0}, {"width": 0}, {"num_layers": 0}])
def test_models_without_channels_are_refused(sizes):
    with pytest.raises(ArgumentError, match="expected at least one channel and one layer"):
        FNO(**({"in_channels": 1, "out_channels": 1} | sizes), domain=TORUS, modes=4)


def test_totals_are_tensors():
    with pytest.raises(ArgumentError, match="expected a tensor, got float"):
        ConservationConstraint(BOX)(torch.ones(2, 1, 8, 8), 1.0)


def test_a_function_is_no_network():
    with pytest.raises(ArgumentError, match=r"expected a network, an nn\.Module, got function"):
        to_operator(lambda u: u, TORUS, resolution=(8, 8))
