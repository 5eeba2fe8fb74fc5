"""The layer contract itself: a sound layer passes all of it, and each kind of unsound layer fails the right test."""

import math

import pytest
import torch
from torch import Tensor, nn

from neuralop_kit import Domain
from neuralop_kit.layers.checks import check_field
from tests.contracts.layer import LayerContract


class Advect(nn.Module):
    """A sound specimen: a learned mix of the field and its centred difference, second order in h, bounded by tanh."""

    def __init__(self, channels: int, domain: Domain) -> None:
        super().__init__()
        self.domain = domain
        self.weight = nn.Parameter(0.3 * torch.randn(channels, channels))

    def forward(self, u: Tensor) -> Tensor:
        check_field(u, len(self.weight), 1)
        (h,) = self.domain.spacing(u.shape[2:])
        slope = (u.roll(-1, -1) - u.roll(1, -1)) / (2 * h)
        return torch.tanh(u + torch.einsum("ij,bjn->bin", self.weight, slope))


class LineContract(LayerContract):
    domain = Domain.periodic((4.0,))
    shapes = ((12,), (9,))
    tiny_shape = (5,)
    reference_shape = (64,)

    def make(self) -> nn.Module:
        return Advect(self.in_channels, self.domain)


class TestSoundLayer(LineContract):
    """Nothing to add: every inherited test passes."""


class PixelStencil(Advect):
    """Tied to pixels: u + 5 h u' on every grid, so the identity is its limit and nothing of the derivative is left."""

    def forward(self, u: Tensor) -> Tensor:
        return u + 5 * (u.roll(-1, -1) - u)


class PlainConv(nn.Conv1d):
    """The network most people bring along."""


class BatchMean(Advect):
    def forward(self, u: Tensor) -> Tensor:
        return u - u.mean(dim=0)


class InPlace(Advect):
    def forward(self, u: Tensor) -> Tensor:
        return u.mul_(2.0)


class HidesNaN(Advect):
    def forward(self, u: Tensor) -> Tensor:
        return u.nan_to_num()


class ComplexWeight(Advect):
    def __init__(self, channels: int, domain: Domain) -> None:
        super().__init__(channels, domain)
        self.phase = nn.Parameter(torch.randn(channels, dtype=torch.complex64))


class BreaksTheGraph(Advect):
    def forward(self, u: Tensor) -> Tensor:
        return u * 2 if u.sum().item() > 0 else u * 3


class WrongSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return u.square()

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient * u


class WrongGradient(Advect):
    def forward(self, u: Tensor) -> Tensor:
        return WrongSquare.apply(u) * self.weight.sum()


class SinglePrecision(Advect):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u).float()


class KeepsState(Advect):
    def forward(self, u: Tensor) -> Tensor:
        self.register_buffer(f"grid_{u.shape[-1]}", torch.ones(u.shape[-1]))
        return super().forward(u)


class ForgetsSeed(Advect):
    def forward(self, u: Tensor) -> Tensor:
        return super().forward(u) + 1e-3 * torch.rand(())


class AcceptsAnything(Advect):
    def forward(self, u: Tensor) -> Tensor:
        return 2 * u


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (BatchMean, "test_batch_is_a_loop_over_its_items"),
        (BatchMean, "test_nan_stays_in_its_own_item"),
        (InPlace, "test_input_is_not_modified"),
        (HidesNaN, "test_nan_stays_in_its_own_item"),
        (ComplexWeight, "test_parameters_and_buffers_are_real"),
        (BreaksTheGraph, "test_compiles_without_graph_break"),
        (BreaksTheGraph, "test_vmap_over_a_further_axis"),
        (WrongGradient, "test_gradients_are_right"),
        (SinglePrecision, "test_output_is_a_field_of_the_input_dtype"),
        (KeepsState, "test_state_survives_safetensors"),
        (ForgetsSeed, "test_same_seed_gives_the_same_bits"),
        (AcceptsAnything, "test_wrong_shapes_are_refused"),
        (AcceptsAnything, "test_complex_numbers_and_integers_are_refused"),
    ],
)
def test_unsound_layers_fail(broken, test):
    class Case(LineContract):
        def make(self) -> nn.Module:
            return broken(self.in_channels, self.domain)

    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        getattr(Case(), test)()


class PixelCase(LineContract):
    """Layers tied to pixels; a smooth input and a few hundred points, where they look convergent."""

    def __init__(self, layer: nn.Module, order: float) -> None:
        self.specimen, self.order = layer.double(), order

    def layer(self, dtype=torch.float64, *, tiny=False) -> nn.Module:
        return self.specimen


@pytest.mark.parametrize(("claimed", "complaint"), [(1.0, "expected a drift"), (2.0, "expected order")])
def test_pixel_stencil_fails_by_order_or_by_drift(claimed, complaint):
    # Against the finest grid alone it looks like a first-order method.
    with pytest.raises(AssertionError, match=complaint):
        PixelCase(PixelStencil(2, LineContract.domain), claimed).test_converges_under_refinement()


def test_plain_convolution_fails_whatever_order_it_claims():
    torch.manual_seed(0)
    for order in (1.0, 2.0, math.inf):
        case = PixelCase(PlainConv(2, 3, kernel_size=7, padding=3, padding_mode="circular"), order)
        case.reference_shape = (16,)
        with pytest.raises(AssertionError, match=r"expected"):
            case.test_converges_under_refinement()


def test_the_order_is_fitted_from_both_sides():
    # Claiming too much fails, and so does claiming too little: a docstring must state what is true.
    for claimed in (1.0, 3.0):
        case = TestSoundLayer()
        with pytest.raises(AssertionError, match="fitted order 2"):
            case.check_convergence(order=claimed)


@pytest.mark.parametrize("nodes", ["vertex", "interior", "cell"])
def test_nested_grids_of_every_placement(nodes):
    class Case(LineContract):
        domain = Domain.box((1.0,), nodes=nodes)
        max_drift = 1e-12

    measured = Case().check_convergence(layer=nn.Tanh(), order=math.inf)
    assert len(measured.shapes) == 4
