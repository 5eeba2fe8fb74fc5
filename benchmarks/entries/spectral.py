"""SpectralConv against neuraloperator's: same kept modes, same weights, forward and backward."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import AgainstFloat64, Comparison, FieldCase, Forward, ForwardBackward, Setting, Study
from benchmarks.entry import Row
from neuralop_kit import Domain
from neuralop_kit.layers import SpectralConv

CHANNELS = 32
Wavenumber = tuple[int, ...]


@dataclass(frozen=True)
class SpectralCase(FieldCase):
    """A field of white noise, and how many modes per axis the layer keeps."""

    modes: int = 16


def ours(case: SpectralCase) -> nn.Module:
    """Ours."""
    return SpectralConv(case.channels, case.channels, (case.modes,) * len(case.shape))


def neuraloperator(case: SpectralCase) -> nn.Module:
    """Theirs, without the bias that ours does not have."""
    from neuralop.layers.spectral_convolution import SpectralConv as Peer

    return Peer(case.channels, case.channels, (case.modes,) * len(case.shape), bias=False)


def share_weights(layer: nn.Module, peer: nn.Module) -> None:
    """Give the peer our matrices; set to zero, in both, the few modes that only one of them has.

    Theirs keeps -m/2 without +m/2 on all axes but the last; where the last wavenumber is zero that is half a mode.
    """
    with torch.no_grad():
        weight, theirs = torch.view_as_complex(layer.weight), peer.weight.tensor.zero_()
        for index, k in enumerate(our_wavenumbers(layer.modes)):
            # Both operators are real: the matrix of -k is the conjugate of that of k.
            places = {sign: their_place(tuple(sign * i for i in k), layer.modes) for sign in (1, -1)}
            wanted = [sign for sign in (1, -1) if sign * k[-1] >= 0]
            if any(places[sign] is None for sign in wanted):
                weight[index] = 0
                continue
            for sign in wanted:
                matrix = weight[index] if any(k) else 2 * weight[index].real + 0j
                theirs[(..., *places[sign])] = matrix if sign == 1 else matrix.conj()


def our_wavenumbers(modes: tuple[int, ...]) -> list[Wavenumber]:
    """One of each pair k, -k, in the order of our weights."""
    lattice = list(itertools.product(*(range(-(m // 2), m // 2 + 1) for m in modes)))
    return lattice[len(lattice) // 2 :]


def their_place(k: Wavenumber, modes: tuple[int, ...]) -> Wavenumber | None:
    """Where the peer stores a wavenumber, if it does: from -m/2 on, from 0 on the last axis."""
    place = (*(i + m // 2 for i, m in zip(k[:-1], modes[:-1], strict=True)), k[-1])
    sizes = (*modes[:-1], modes[-1] // 2 + 1)
    return place if all(0 <= i < n for i, n in zip(place, sizes, strict=True)) else None


def comparison(
    shape: tuple[int, ...], modes: int, *, batch: int = 8, target: float | None = None, quick: bool = True
) -> Comparison:
    """One grid and number of modes."""
    size = "x".join(map(str, shape))
    return Comparison(
        name=f"layers/spectral_conv/{len(shape)}d-{size}-modes{modes}",
        ours=ours,
        peer=neuraloperator,
        peer_name="neuraloperator",
        peer_requires="neuraloperator==2.0.0",
        match=share_weights,
        case=SpectralCase(batch=batch, channels=CHANNELS, shape=shape, modes=modes),
        measure=(Forward(), ForwardBackward()),
        accuracy=AgainstFloat64(tolerance=1e-5),
        target=target,
        quick=quick,
    )


TWO_DIMENSIONS = [comparison((n, n), modes, target=3.0) for n in (64, 128, 256) for modes in (16, 32)]
OTHER_DIMENSIONS = [
    comparison((1024,), 16),
    comparison((8192,), 64, quick=False),
    comparison((32, 32, 32), 8),
    comparison((64, 64, 64), 16, batch=2, quick=False),
    comparison((63, 65), 16, quick=False),
    comparison((128, 128), 128, batch=2, quick=False),
]


@dataclass(frozen=True)
class ResamplingSize:
    """Grids between which a function with wavenumbers up to 5 is moved."""

    pairs: tuple[tuple[int, int], ...] = ((32, 64), (64, 32), (33, 50), (64, 128), (128, 64))


def identity(layer: nn.Module) -> nn.Module:
    """Let every kept mode of one channel pass."""
    with torch.no_grad():
        if isinstance(layer, SpectralConv):
            layer.weight.zero_()[..., 0] = 1.0
            layer.weight[0] /= 2
        else:
            layer.weight.tensor.fill_(1.0)
    return layer


def waves(num_points: int) -> Tensor:
    """A fixed function on the unit torus, wavenumbers up to 5 in both directions; float64."""
    x, y = Domain.periodic((1.0, 1.0)).coordinates((num_points, num_points), dtype=torch.float64) * 2 * math.pi
    return (0.3 + torch.cos(3 * x + 1) * torch.sin(5 * y) + torch.cos(4 * x - 2 * y) + torch.sin(2 * x))[None, None]


def resampling(size: ResamplingSize, setting: Setting) -> Iterator[Row]:
    """Rows: one per pair of grids."""
    case = SpectralCase(batch=1, channels=1, shape=(1, 1))
    layers = {"ours": identity(ours(case))}
    try:
        layers["neuraloperator"] = identity(neuraloperator(case))
    except ImportError:
        layers["neuraloperator"] = None
    for old, new in size.pairs:
        row: dict[str, str | int | float | None] = {"from": old, "to": new}
        for name, layer in layers.items():
            row[name] = None
            if layer is not None:
                moved = layer.to(setting.device)(waves(old).float().to(setting.device), output_shape=(new, new))
                row[name] = ((moved.cpu().double() - waves(new)).norm() / waves(new).norm()).item()
        yield row


RESAMPLING = Study(
    name="layers/spectral_conv_resampling",
    run=resampling,
    columns=("from", "to", "ours", "neuraloperator"),
    quick=ResamplingSize(),
    full=ResamplingSize(),
    check=lambda rows: [f"{row['from']} to {row['to']}: {row['ours']:.1e}" for row in rows if row["ours"] > 1e-6],
    caption=(
        "Relative error of a band-limited function moved to another grid by a layer that should let it pass, float32. "
        "With another output shape the peer puts negative wavenumbers in the wrong places."
    ),
)
