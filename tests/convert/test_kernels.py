"""What lies between the taps: exact at the reference, and the order that each kernel promises."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralop_kit import Domain
from neuralop_kit.convert import Cubic, Dilated, Hat, Spectral, convergence_report, to_operator
from neuralop_kit.convert.kernels import box_weights
from neuralop_kit.solvers.errors import ArgumentError
from tests.convert.cases import TORUS, waves

GRIDS = [16, 32, 64, 128, 256]


def plain_network(width: int = 8) -> nn.Sequential:
    """Kernels of 3, 5 and 3 points, circular, as in the note that the thresholds come from; random weights."""
    torch.manual_seed(0)
    sizes = ((1, width, 3), (width, width, 5), (width, 1, 3))
    convs = [nn.Conv2d(a, b, k, padding=k // 2, padding_mode="circular") for a, b, k in sizes]
    with torch.no_grad():
        for conv in convs:
            conv.weight.mul_(3)
            conv.bias.zero_()
    return nn.Sequential(convs[0], nn.GELU(), convs[1], nn.GELU(), convs[2]).double()


def resampled_weights(net: nn.Sequential, u: Tensor, ratio: int) -> Tensor:
    """The rule of a peer: taps by bilinear interpolation of the weights, divided by how many more there are."""
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            k = layer.kernel_size[0]
            taps = ratio * k - ratio + 1
            weight = functional.interpolate(layer.weight, (taps, taps), mode="bilinear") * (k / taps) ** 2
            p = ratio * (k // 2)
            u = functional.conv2d(functional.pad(u, (p,) * 4, mode="circular"), weight, layer.bias)
        else:
            u = layer(u)
    return u


def operator(kernel):
    return to_operator(plain_network(), TORUS, resolution=(16, 16), kernel=kernel)


@pytest.mark.parametrize("kernel", [Hat(), Cubic(), Dilated()], ids=lambda k: k.name)
def test_bit_for_bit_at_the_reference(kernel):
    u = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    assert torch.equal(operator(kernel)(u), plain_network()(u))


def test_spectral_at_the_reference():
    u = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    assert (operator(Spectral())(u) - plain_network()(u)).abs().max() <= 1e-12


def test_names_are_kernels():
    u = torch.randn(1, 1, 32, 32, dtype=torch.float64)
    assert torch.equal(operator("cubic")(u), operator(Cubic())(u))
    with pytest.raises(ArgumentError, match="expected a kernel among"):
        operator("quintic")


@pytest.mark.parametrize(("kernel", "low", "high"), [(Hat(), 1.8, 2.3), (Cubic(), 3.7, 4.5)])
def test_order_in_the_last_two_doublings(kernel, low, high):
    measured = convergence_report(operator(kernel), TORUS, waves, GRIDS)
    assert all(low <= order <= high for order in measured.order[1:3]), f"\n{measured}"


def test_dilated_does_not_drift():
    measured = convergence_report(operator(Dilated()), TORUS, waves, GRIDS[:4])
    assert max(measured.drift) <= 1e-13


def test_spectral_gains_a_digit_per_doubling():
    measured = convergence_report(operator(Spectral()), TORUS, waves, GRIDS[:4])
    pairs = zip(measured.error, measured.error[1:], strict=False)
    assert all(fine <= max(coarse / 10, 1e-13) for coarse, fine in pairs), f"\n{measured}"


def test_all_kernels_stay_nearer_to_the_trained_map_than_pixels_do():
    def faster(x):
        return torch.sin(6 * math.pi * x[0]) * torch.cos(4 * math.pi * x[1])

    plain = convergence_report(plain_network(), TORUS, faster, GRIDS[:4])
    assert min(plain.drift[1:]) >= 0.5, f"\n{plain}"
    fields = [faster(TORUS.coordinates((n, n), dtype=torch.float64))[None, None] for n in (16, 32)]
    trained, peer = plain_network()(fields[0]), resampled_weights(plain_network(), fields[1], 2)
    peers_drift = ((peer[..., ::2, ::2] - trained).norm() / trained.norm()).item()
    for kernel in (Hat(), Cubic(), Spectral(), Dilated()):
        drift = convergence_report(operator(kernel), TORUS, faster, [16, 32]).drift[1]
        assert drift < min(plain.drift[1], peers_drift), (kernel, drift, plain.drift[1], peers_drift)


def test_nothing_above_the_reference_nyquist_but_for_dilated():
    u = waves(TORUS.coordinates((64, 64), dtype=torch.float64))[None, None]
    share = {}
    for kernel in (Hat(), Spectral(), Dilated()):
        energy = torch.fft.fft2(operator(kernel)(u)).abs().square()
        k = torch.fft.fftfreq(64, 1 / 64).abs()
        above = torch.maximum(k[:, None], k[None]) > 8
        share[kernel.name] = (energy[..., above].sum() / energy.sum()).item()
    assert share["spectral"] < 1e-20
    assert share["spectral"] < share["hat"] < share["dilated"]


def test_rolled_functions():
    for kernel in (Hat(), Cubic(), Spectral(), Dilated()):
        net, u = operator(kernel), torch.randn(1, 1, 48, 32, dtype=torch.float64)
        shifted = net(u.roll((5, 3), (2, 3)))
        assert (shifted - net(u).roll((5, 3), (2, 3))).abs().max() <= 1e-12


@pytest.mark.parametrize("ratio", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_weights_reproduce_polynomials(ratio, shift):
    # Sums are one; a hat reproduces lines, Keys' cubic parabolas, which is where order four comes from.
    for kernel, degree in ((Hat(), 1), (Cubic(), 2), (Dilated(), 3)):
        weights, first = kernel.weights(ratio, shift)
        places = torch.arange(first, first + len(weights), dtype=torch.float64) - shift
        if shift and ratio % 2 and kernel != Dilated():
            # Half-way between points the kinks of the kernel fall between points as well.
            degree = 0
        for power in range(degree + 1):
            moment = (torch.tensor(weights, dtype=torch.float64) * places**power).sum().item()
            assert moment == pytest.approx(float(power == 0), abs=1e-12 * ratio**power)
    weights, first = box_weights(ratio, shift)
    assert sum(weights) == pytest.approx(1)
    assert sum(w * (first + i - shift) for i, w in enumerate(weights)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("taps", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("nodes", ["vertex", "left"])
def test_taps_and_strides_hit_the_common_points(taps, stride, nodes):
    # Padding on the right is not r times the trained one; it follows from where the last window begins.
    torch.manual_seed(taps * stride)
    conv = nn.Conv1d(1, 2, taps, stride=stride, padding=taps // 2).double()
    domain = Domain.box((1.0,)) if nodes == "vertex" else Domain.periodic((1.0,))
    reference = 18
    net = to_operator(conv, domain, resolution=(reference,), kernel=Dilated())
    for ratio in (2, 3, 4):
        n = domain.refine((reference,), ratio)
        u = torch.randn(1, 1, *n, dtype=torch.float64)
        coarse, fine = conv(u[..., ::ratio]), net(u)
        torch.testing.assert_close(fine[..., ::ratio][..., : coarse.shape[-1]], coarse, rtol=0, atol=1e-13)


def test_hat_converges_to_its_integral():
    # (K u)(x) of one layer against quadrature of the piecewise linear kernel on a very fine grid.
    conv = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular", bias=False).double()
    domain = Domain.periodic((1.0,))
    net = to_operator(conv, domain, resolution=(16,))
    h0, w = 1 / 16, conv.weight.detach()[0, 0]
    fine = torch.arange(20000, dtype=torch.float64) / 20000
    for n, tolerance in ((64, 4e-3), (128, 1e-3)):
        x = torch.arange(n, dtype=torch.float64) / n
        distance = (fine[None] - x[:, None] + 0.5) % 1 - 0.5
        kernel = sum(w[j] * (1 - (distance / h0 - (j - 1)).abs()).clamp(min=0) for j in range(3)) / h0
        exact = (kernel * torch.exp(torch.sin(2 * math.pi * fine))).mean(dim=1)
        u = torch.exp(torch.sin(2 * math.pi * x))[None, None]
        assert (net(u)[0, 0] - exact).abs().max() <= tolerance * exact.abs().max()
