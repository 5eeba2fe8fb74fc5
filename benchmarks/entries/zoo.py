"""Networks of every kind as operators, by each kernel: equal where they were trained, and what refinement does."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import Setting, Study, networks
from benchmarks.entry import Cell, Row
from neuralop_kit import Domain
from neuralop_kit.convert import ConvergenceReport, convergence_report, message_passing, register_rule, to_operator

TORUS = Domain.periodic((1.0, 1.0))
CHANNEL = Domain.box((1.0,), boundary="neumann")
KERNELS = ("hat", "cubic", "spectral", "dilated")
register_rule(networks.MessageLayer)(message_passing)


@dataclass(frozen=True)
class Subject:
    """A network, where it lives, its reference resolution, and whether its inner grid is refined with the input."""

    name: str
    make: Callable[[], nn.Module]
    reference: int = 16
    latent: str = "ratio"
    domain: Domain = TORUS
    kernels: tuple[str, ...] = KERNELS


@dataclass(frozen=True)
class ZooSize:
    """How many grids, each twice as fine as the one before."""

    num_grids: int


def remembering() -> nn.Module:
    """A recurrent network whose state lasts, as after training."""
    net = networks.Recurrent()
    with torch.no_grad():
        net.rnn.weight_hh_l0.mul_(2.5)
        net.rnn.bias_ih_l0.mul_(2.5)
        net.head.bias.zero_()
    return net


SUBJECTS = (
    Subject("ResNet-18 in small", networks.ResNet, reference=32),
    Subject("U-Net, pooling", networks.PoolingUNet),
    Subject("U-Net, strided", networks.StridedUNet),
    Subject("ViT", networks.ViT, latent="fixed"),
    Subject("MLP-Mixer", networks.Mixer, latent="fixed"),
    Subject("ConvNeXt", networks.ConvNeXt),
    # Smaller steps are smaller steps: there are no taps for a kernel to lie between.
    Subject("GRU in time", remembering, reference=17, domain=CHANNEL, kernels=("hat",)),
    Subject("message passing", networks.GraphNetwork),
)


def waves(x: Tensor) -> Tensor:
    """Smooth and periodic, well resolved by 16 points; on an interval a single wave."""
    if len(x) == 1:
        return torch.sin(4 * x[0] + 0.4)
    value = 0.3 + 0.5 * torch.sin(2 * math.pi * x[0] + 0.3)
    return value + 0.5 * torch.cos(2 * math.pi * x[1]) * torch.sin(2 * math.pi * x[0])


def zoo(size: ZooSize, setting: Setting) -> Iterator[Row]:
    """Rows: one per network and kernel."""
    for subject in SUBJECTS:
        domain, shape = subject.domain, (subject.reference,) * subject.domain.num_dims
        grids = [domain.refine(shape, 2**k) for k in range(size.num_grids)]
        torch.manual_seed(setting.seed)
        net = subject.make().double().eval()
        net = networks.lively(net) if domain is TORUS else net
        plain = _measured(net, domain, grids[:3])
        for kernel in subject.kernels:
            operator = to_operator(net, domain, resolution=shape, kernel=kernel, latent=subject.latent).eval()
            u = torch.randn(2, 1, *shape, dtype=torch.float64, generator=setting.generator())
            with torch.no_grad():
                expected = net(u)
                apart = ((operator(u) - expected).abs().max() / expected.abs().max()).item()
            measured = convergence_report(operator, domain, waves, grids)
            order = measured.fitted_order
            yield {
                "network": subject.name,
                "kernel": kernel,
                "at reference": apart,
                "order": "exact" if math.isinf(order) else order,
                "drift 2x": measured.drift[1],
                "drift 4x": measured.drift[2],
                "plain 2x": "does not run" if plain is None else plain.drift[1],
                "plain 4x": "does not run" if plain is None else plain.drift[2],
            }


def _measured(net: nn.Module, domain: Domain, grids: Sequence[tuple[int, ...]]) -> ConvergenceReport | None:
    """Of the network as it is; ``None`` where a number of points is part of its weights."""
    try:
        return convergence_report(net, domain, waves, grids)
    except RuntimeError:
        return None


def claims(rows: Sequence[Row]) -> list[str]:
    """Equal at the reference; second order with a hat; nearer to what was trained than the plain network is."""
    complaints = []
    for row in rows:
        name = f"{row['network']}, {row['kernel']}"
        if _number(row["at reference"]) > 1e-10:
            complaints.append(f"{name}: {row['at reference']:.1e} from the network at its own resolution")
        if row["kernel"] == "hat" and _number(row["order"]) < 1.7:
            complaints.append(f"{name}: order {row['order']:.2f}")
        if _number(row["drift 4x"]) > _number(row["plain 4x"]):
            complaints.append(f"{name}: drifts by {row['drift 4x']:.2f}, the plain network by {row['plain 4x']:.2f}")
    return complaints


def _number(value: Cell) -> float:
    """Words stand for what is exact, or does not run at all."""
    return value if isinstance(value, float) else math.inf


ZOO = Study(
    name="convert/zoo",
    run=zoo,
    columns=("network", "kernel", "at reference", "order", "drift 2x", "drift 4x", "plain 2x", "plain 4x"),
    quick=ZooSize(num_grids=4),
    full=ZooSize(num_grids=5),
    check=claims,
    caption=(
        "Networks with random weights, converted; one smooth function on grids, each twice as fine as the last, in "
        "float64. 'At reference': largest difference from the network itself, relative. 'Order': of the last two "
        "differences between neighbouring grids. 'Drift': relative L2 difference from the output at the reference, at "
        "twice and four times its resolution; 'plain' is the same for the network as it is."
    ),
)
