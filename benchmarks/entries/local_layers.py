"""IntegralConv, DifferentialConv and SphericalConv against their peers: time, and how far the output drifts."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import AgainstFloat64, Comparison, FieldCase, Forward, ForwardBackward, Setting, Study
from benchmarks.entry import Row
from neuralop_kit import Domain
from neuralop_kit.layers import DifferentialConv, IntegralConv, SphericalConv

SQUARE, SPHERE = Domain.periodic((1.0, 1.0)), Domain.sphere()
RADIUS, NUM_DEGREES = 0.1, 32
NEURALOPERATOR = "neuraloperator==2.0.0"
TORCH_HARMONICS = "torch-harmonics>=0.8,!=0.9.0,!=0.9.1"


def integral(case: FieldCase) -> nn.Module:
    """Ours on a square: seven functions."""
    return IntegralConv(case.channels, case.channels, RADIUS, domain=SQUARE)


def disco(case: FieldCase) -> nn.Module:
    """Theirs, bound to the shape: seven weights too."""
    from neuralop.layers.discrete_continuous_convolution import EquidistantDiscreteContinuousConv2d as Peer

    options = {"domain_length": [1.0, 1.0], "radius_cutoff": RADIUS, "periodic": True, "bias": False}
    return Peer(case.channels, case.channels, case.shape, case.shape, [3, 3], **options)


def integral_on_sphere(case: FieldCase) -> nn.Module:
    """Ours on a sphere: three rings."""
    return IntegralConv(case.channels, case.channels, 2 * RADIUS, domain=SPHERE)


def disco_on_sphere(case: FieldCase) -> nn.Module:
    """Theirs, bound to the shape, isotropic as well."""
    from torch_harmonics import DiscreteContinuousConvS2 as Peer

    return Peer(
        case.channels, case.channels, case.shape, case.shape, kernel_shape=3, theta_cutoff=2 * RADIUS, bias=False
    )


def differential(case: FieldCase) -> nn.Module:
    """Ours."""
    return DifferentialConv(case.channels, case.channels, domain=SQUARE)


class FiniteDifferences(nn.Module):
    """Theirs, told the spacing."""

    def __init__(self, case: FieldCase) -> None:
        super().__init__()
        from neuralop.layers.differential_conv import FiniteDifferenceConvolution

        self.layer = FiniteDifferenceConvolution(case.channels, case.channels, 2)

    def forward(self, u: Tensor) -> Tensor:
        """Derivatives of ``u`` on the unit square."""
        return self.layer(u, 1.0 / u.shape[-1])


def spherical(case: FieldCase) -> nn.Module:
    """Ours, complex as the peer is."""
    return SphericalConv(case.channels, case.channels, NUM_DEGREES, domain=SPHERE, isotropic=False)


def harmonics(case: FieldCase) -> nn.Module:
    """Theirs, bound to the shape."""
    from torch_harmonics import InverseRealSHT, RealSHT
    from torch_harmonics.examples.models._layers import SpectralConvS2

    kind = {"lmax": NUM_DEGREES, "mmax": NUM_DEGREES, "grid": "equiangular"}
    return First(
        SpectralConvS2(RealSHT(*case.shape, **kind), InverseRealSHT(*case.shape, **kind), case.channels, case.channels)
    )


class First(nn.Module):
    """The first of several outputs."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, u: Tensor) -> Tensor:
        """Apply the layer."""
        out = self.layer(u)
        return out[0] if isinstance(out, tuple) else out


def comparison(
    name: str,
    ours: Callable[[FieldCase], nn.Module],
    peer: Callable[[FieldCase], nn.Module],
    requires: str,
    shape: tuple[int, int],
    *,
    quick: bool = True,
) -> Comparison:
    """One layer on one grid."""
    return Comparison(
        name=f"layers/{name}/{shape[0]}x{shape[1]}",
        ours=ours,
        peer=peer,
        peer_name=requires.partition("=")[0].rstrip(">"),
        peer_requires=requires,
        case=FieldCase(batch=4, channels=32, shape=shape),
        measure=(Forward(), ForwardBackward()),
        accuracy=AgainstFloat64(tolerance=1e-5),
        quick=quick,
    )


LOCAL = [
    comparison("integral_conv", integral, disco, NEURALOPERATOR, (64, 64)),
    comparison("integral_conv", integral, disco, NEURALOPERATOR, (128, 128), quick=False),
    comparison("integral_conv_sphere", integral_on_sphere, disco_on_sphere, TORCH_HARMONICS, (33, 64)),
    comparison("integral_conv_sphere", integral_on_sphere, disco_on_sphere, TORCH_HARMONICS, (65, 128), quick=False),
    comparison("differential_conv", differential, FiniteDifferences, NEURALOPERATOR, (64, 64)),
    comparison("differential_conv", differential, FiniteDifferences, NEURALOPERATOR, (256, 256), quick=False),
    comparison("spherical_conv", spherical, harmonics, TORCH_HARMONICS, (65, 128)),
    comparison("spherical_conv", spherical, harmonics, TORCH_HARMONICS, (129, 256), quick=False),
]


@dataclass(frozen=True)
class DriftSize:
    """Refinements of a 32 x 32 or 33 x 64 grid."""

    factors: tuple[int, ...] = (1, 2, 4)


def waves(domain: Domain, shape: tuple[int, int]) -> Tensor:
    """One smooth function, float32."""
    x, y = domain.coordinates(shape, dtype=torch.float64)
    if domain is SPHERE:
        value = torch.exp(x.sin() * torch.cos(y + 1)) * (1 + x.cos() ** 3)
    else:
        value = torch.exp(torch.sin(2 * math.pi * x) + torch.cos(4 * math.pi * y + 1))
    return value[None, None].float()


def drift(size: DriftSize, setting: Setting) -> Iterator[Row]:
    """Rows: for a layer and a refinement, the relative distance of the output from that on the coarsest grid."""
    subjects = (
        ("integral", SQUARE, (32, 32), integral, disco),
        ("integral, sphere", SPHERE, (33, 64), integral_on_sphere, disco_on_sphere),
        ("differential", SQUARE, (32, 32), differential, FiniteDifferences),
        ("spherical", SPHERE, (33, 64), spherical, harmonics),
    )
    for name, domain, coarsest, ours, peer in subjects:
        columns = {"ours": outputs(ours, domain, coarsest, size, setting)}
        try:
            columns["peer"] = outputs(peer, domain, coarsest, size, setting)
        except ImportError:
            columns["peer"] = []
        for index, factor in enumerate(size.factors[1:], start=1):
            row: dict[str, str | int | float | None] = {"layer": name, "refinement": factor}
            for side, fields in columns.items():
                first = fields[0] if fields else None
                row[side] = None if first is None else ((fields[index] - first).norm() / first.norm()).item()
            yield row


def outputs(
    make: Callable[[FieldCase], nn.Module],
    domain: Domain,
    coarsest: tuple[int, int],
    size: DriftSize,
    setting: Setting,
) -> list[Tensor]:
    """Outputs at the coarsest points, with the same weights on every grid."""
    fields = []
    for factor in size.factors:
        shape = domain.refine(coarsest, factor)
        torch.manual_seed(setting.seed)
        layer = make(FieldCase(batch=1, channels=1, shape=shape))
        with torch.no_grad():
            fields.append(layer(waves(domain, shape))[(..., *domain.common_nodes(coarsest, shape))])
    return fields


DRIFT = Study(
    name="layers/local_drift",
    run=drift,
    columns=("layer", "refinement", "ours", "peer"),
    quick=DriftSize(),
    full=DriftSize((1, 2, 4, 8)),
    check=lambda rows: [
        f"{row['layer']}, {row['refinement']} times finer: {row['ours']:.1e}" for row in rows if row["ours"] > 0.05
    ],
    caption="How far the output moves at the points of the coarsest grid, for one function on finer ones.",
)
