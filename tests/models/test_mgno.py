"""MgNO: an operator at every size; the released model: the published parameter counts, pixels and all."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.entries.multigrid import PlainMgNO, give_model_weights
from neuralop_kit import Domain
from neuralop_kit.layers import MultigridOperator, PointwiseLinear
from neuralop_kit.layers.multigrid import EllipticKernels
from neuralop_kit.models import MgNO, ReferenceMgNO
from neuralop_kit.models.mgno import PointwiseSum
from neuralop_kit.registry import build_model, config_of, name_of
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from tests.contracts.layer import LayerContract

BOX, TORUS = Domain.box((1.0, 1.0)), Domain.periodic((1.0, 1.0))


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


class TestMgNO(LayerContract):
    domain = Domain.box((2.0, 1.0), boundary=("periodic", "neumann"))
    shapes = ((16, 9), (11, 5))
    tiny_shape = (4, 3)
    reference_shape = (32, 17)
    order_tolerance = 0.15

    def make(self) -> nn.Module:
        return MgNO(self.in_channels, 3, domain=self.domain, width=4, num_layers=2, levels=2)

    def make_tiny(self) -> nn.Module:
        return MgNO(self.in_channels, 1, domain=self.domain, width=2, num_layers=1, levels=1, coarsest=2)


def test_rebuilt_from_its_config():
    domain = Domain.box((1.0, 2.0), nodes="cell")
    model = MgNO(2, 1, domain=domain, width=3, num_layers=2, levels=3, cycle="W", initialization=EllipticKernels())
    assert name_of(model) == "mgno"
    twin = build_model("mgno", config_of(model))
    twin.load_state_dict(model.state_dict())
    u = torch.randn(1, 2, 16, 32)
    assert torch.equal(twin(u), model(u))


@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_one_to_three_dimensions(num_dims):
    domain = Domain.box((1.0,) * num_dims, nodes="cell")
    model = MgNO(1, 2, domain=domain, width=3, num_layers=1, levels=2)
    for size in (8, 11):
        assert model(torch.randn(1, 1, *(size,) * num_dims)).shape == (1, 2, *(size,) * num_dims)


def test_one_channel_between_walls_compiles():
    # One channel has several layouts at once; a compiler must foresee the one that convolutions choose.
    model, u = MgNO(1, 1, domain=BOX, width=4, num_layers=2, levels=2), torch.randn(3, 1, 9, 9)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(u), model(u), rtol=1e-6, atol=1e-7)


def test_pointwise_matrices_act_on_the_axis_of_channels():
    # As many channels as points: taking the last axis for the channels would not even be noticed by the shapes.
    u, plus = torch.randn(2, 5, 7, 5), torch.randn(2, 3, 7, 5)
    for bias in (True, False):
        layer = PointwiseSum(5, 3, bias=bias)
        plain = PointwiseLinear(5, 3, bias=bias)
        plain.load_state_dict(layer.state_dict())
        torch.testing.assert_close(layer(u), plain(u))
        torch.testing.assert_close(layer(u, plus=plus), plain(u, plus=plus))


@pytest.mark.parametrize("nodes", ["vertex", "interior", "cell"])
def test_values_at_common_points_survive_refinement_by_interpolation(nodes):
    # Between values on the finest level of its own nothing changes at all: what a finer grid adds is interpolation.
    domain = Domain.box((1.0, 1.0), nodes=nodes)
    model = MgNO(1, 1, domain=domain, width=4, num_layers=2, levels=3, fine_levels="interpolate").double()
    coarse_size, fine_size = {"vertex": (17, 33), "interior": (15, 31), "cell": (16, 32)}[nodes]
    coarse = torch.randn(1, 1, coarse_size, coarse_size, dtype=torch.float64)
    if nodes == "cell":
        fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
        operator = model.layers[0].operator
        difference = operator(fine) - operator(coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert nn.functional.avg_pool2d(difference, 2).abs().max() < 1e-12
    else:
        fine = torch.zeros(1, 1, fine_size, fine_size, dtype=torch.float64)
        start = 1 if nodes == "interior" else 0
        fine[..., start::2, start::2] = coarse
        torch.testing.assert_close(model(fine)[..., start::2, start::2], model(coarse), rtol=0, atol=1e-12)


def test_cost_is_linear_in_the_number_of_points():
    model = MgNO(1, 1, domain=BOX, width=4, num_layers=1, levels=3)
    counts = []
    for size in (65, 129, 257):
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(1, 1, size, size))
        counts.append(counter.get_total_flops())
    assert 3.8 < counts[1] / counts[0] < 4.2
    assert 3.8 < counts[2] / counts[1] < 4.2


def test_parameters_do_not_depend_on_the_resolution_and_count_as_stated():
    width, levels = 5, 4
    model = MgNO(width, 1, domain=BOX, width=width, num_layers=2, levels=levels)
    stencils = 9 * width**2 * levels * 3  # one system and two smoothers per level
    assert num_parameters(model) == 2 * (stencils + width**2 + width) + width


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (lambda: ReferenceMgNO.darcy(BOX), 572_661),
        (lambda: ReferenceMgNO.darcy_smooth(BOX), 678_093),
        (lambda: ReferenceMgNO.pipe(BOX), 783_876),
        (lambda: ReferenceMgNO.navier_stokes(TORUS), 2_885_194),
        (lambda: ReferenceMgNO(1, 1, domain=BOX, sweeps=((1, 0),) * 6 + ((2, 0),)), 677_358),
    ],
)
def test_published_parameter_counts(model, count):
    assert num_parameters(model()) == count


def test_released_configurations_run_at_their_sizes():
    assert ReferenceMgNO.darcy_smooth(BOX)(torch.randn(1, 1, 211, 211)).shape == (1, 1, 211, 211)
    assert ReferenceMgNO.navier_stokes(TORUS)(torch.randn(1, 1, 64, 64)).shape == (1, 1, 64, 64)
    with pytest.raises(ShapeError, match="MultigridOperator"):
        ReferenceMgNO.darcy(BOX)(torch.randn(1, 1, 85, 85))


def test_released_model_equals_a_plain_implementation():
    ours, plain = ReferenceMgNO.darcy(BOX).double(), PlainMgNO().double()
    give_model_weights(ours, plain)
    u = torch.randn(2, 1, 32, 64, dtype=torch.float64)
    torch.testing.assert_close(ours(u), plain(u), rtol=0, atol=1e-13)


def test_released_model_is_rebuilt_from_its_config():
    model = ReferenceMgNO.navier_stokes(TORUS)
    twin = build_model("mgno_reference", config_of(model))
    twin.load_state_dict(model.state_dict())
    assert type(twin) is ReferenceMgNO
    assert config_of(twin) == config_of(model)


def test_bad_arguments_are_refused():
    for attempt in (
        lambda: MgNO(1, 1, domain=BOX, width=0),
        lambda: MgNO(1, 1, domain=BOX, num_layers=0),
        lambda: ReferenceMgNO(2, 1, domain=BOX, add_input=True),
    ):
        with pytest.raises(ArgumentError, match="expected"):
            attempt()


def l_shape(n: int) -> torch.Tensor:
    """The square without its upper right quarter."""
    x, y = BOX.coordinates((n, n), dtype=torch.float64)
    return ((x < 0.5) | (y < 0.5)).double()


@pytest.mark.parametrize("n", [17, 30])
def test_an_irregular_domain_reaches_every_layer(n):
    model, mask = MgNO(1, 2, domain=BOX, width=3, num_layers=3, levels=2).double(), l_shape(n)
    u, noise = torch.randn(2, 2, 1, n, n, dtype=torch.float64)
    v, elsewhere = model(u, mask), u + noise * (1 - mask)
    assert torch.equal(v, v * mask)
    assert v.abs().max() > 0
    torch.testing.assert_close(model(elsewhere, mask), v, rtol=0, atol=1e-14)
    # Negative controls: a model that forgets the mask, in all layers or after the first, sees what is outside.
    assert (model(elsewhere) - model(u)).mul(mask).abs().max() > 1e-6
    model.layers[1].operator.forward = lambda f, mask: MultigridOperator.forward(model.layers[1].operator, f)
    assert (model(elsewhere, mask) - v).abs().max() > 1e-6


def test_masks_of_a_batch_differ_and_a_full_one_changes_nothing():
    model = MgNO(1, 1, domain=BOX, width=3, num_layers=2, levels=2).double()
    u = torch.randn(2, 1, 17, 17, dtype=torch.float64)
    masks = torch.stack([l_shape(17), torch.ones(17, 17, dtype=torch.float64)])[:, None]
    v = model(u, masks)
    torch.testing.assert_close(v[:1], model(u[:1], l_shape(17).bool()), rtol=0, atol=1e-14)
    torch.testing.assert_close(v[1:], model(u[1:]), rtol=0, atol=1e-14)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="expected a mask"):
        MgNO(1, 1, domain=BOX, width=2, num_layers=1, levels=2)(torch.randn(1, 1, 17, 17), torch.ones(16, 17))
    sphere = Domain.sphere()
    model = MgNO(1, 1, domain=sphere, width=2, num_layers=1, levels=2)
    with pytest.raises(DomainError, match="expected no mask"):
        model(torch.randn(1, 1, 16, 32), torch.ones(16, 32))


def test_operators_are_multigrid_operators():
    model = MgNO(1, 1, domain=BOX, cycle="backslash", width=3, num_layers=1)
    operator = model.layers[0].operator
    assert isinstance(operator, MultigridOperator)
    assert operator.cycle == "backslash"
