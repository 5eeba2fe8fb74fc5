"""A converted U-Net against the plain one on the same grid: what being an operator costs, there and on finer grids."""

from torch import nn

from benchmarks import AgainstFloat64, Comparison, FieldCase, Forward, ForwardBackward
from neuralop_kit import Domain
from neuralop_kit.convert import to_operator


def encoder_decoder(case: FieldCase) -> nn.Module:
    """Strided and transposed convolutions with a norm over space between."""
    width = 16
    return nn.Sequential(
        nn.Conv2d(case.channels, width, 3, padding=1, padding_mode="circular"),
        nn.GELU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, padding_mode="circular"),
        nn.GroupNorm(4, 2 * width),
        nn.GELU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1, padding_mode="circular"),
        nn.GELU(),
        nn.ConvTranspose2d(2 * width, width, 2, stride=2),
        nn.GELU(),
        nn.Conv2d(width, 1, 1),
    )


def converted(case: FieldCase) -> nn.Module:
    """The same as an operator."""
    return to_operator(encoder_decoder(case), Domain.periodic((1.0, 1.0)), resolution=case.shape)


def trained_on_half(case: FieldCase) -> nn.Module:
    """The same, whose reference has half as many points per axis: kernels of twice as many, smoothed between taps."""
    half = tuple(n // 2 for n in case.shape)
    return to_operator(encoder_decoder(case), Domain.periodic((1.0, 1.0)), resolution=half)


def share_weights(operator: nn.Module, net: nn.Module) -> None:
    """State moves both ways."""
    net.load_state_dict(operator.state_dict())


REFERENCE = Comparison(
    name="convert/encoder_decoder/64x64",
    ours=converted,
    peer=encoder_decoder,
    peer_name="the plain network",
    match=share_weights,
    case=FieldCase(batch=8, channels=1, shape=(64, 64)),
    measure=(Forward(), ForwardBackward()),
    accuracy=AgainstFloat64(tolerance=1e-5),
    target=0.87,
)

TWICE = Comparison(
    name="convert/encoder_decoder/64x64-trained-at-32",
    ours=trained_on_half,
    peer=encoder_decoder,
    peer_name="the plain network, which is another function here",
    match=share_weights,
    case=FieldCase(batch=8, channels=1, shape=(64, 64)),
    measure=(Forward(), ForwardBackward()),
    accuracy=AgainstFloat64(tolerance=1e-5),
)
