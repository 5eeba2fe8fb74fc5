"""Networks with what is promised about each after conversion."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import networks
from neuralop_kit import Domain
from neuralop_kit.convert import Operator, message_passing, register_rule, to_operator

TORUS = Domain.periodic((1.0, 1.0))
CHANNEL = Domain.box((1.0,), boundary="neumann")
register_rule(networks.MessageLayer)(message_passing)


def waves(x: Tensor) -> Tensor:
    """Smooth and periodic, well resolved by 16 points."""
    value = 0.3 + 0.5 * torch.sin(2 * math.pi * x[0] + 0.3)
    return value + 0.5 * torch.cos(2 * math.pi * x[-1]) * torch.sin(2 * math.pi * x[0])


def assert_trained_size(u: Tensor) -> None:
    """As patch embeddings do; here, since pytest rewrites the asserts of its own files."""
    assert u.ndim == 4
    assert u.shape[2] == 16 and u.shape[3] == 16, "the trained size"  # noqa: PT018 - two jumps in one


@dataclass(frozen=True)
class Case:
    """A network, how it is converted, on which grids it is asked, and how far it may drift from what was trained."""

    name: str
    make: Callable[[], nn.Module]
    max_drift: float
    reference: int = 16
    latent: str = "ratio"

    @property
    def resolutions(self) -> list[int]:
        return [self.reference * 2**k for k in range(4)]

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return networks.lively(self.make())

    def operator(self, net: nn.Module) -> Operator:
        return to_operator(net, TORUS, resolution=(self.reference,) * 2, latent=self.latent)


CASES = [
    Case("resnet", networks.ResNet, 0.8, reference=32),
    Case("pooling unet", networks.PoolingUNet, 0.06),
    Case("strided unet", networks.StridedUNet, 0.6),
    Case("vit", networks.ViT, 0.06, latent="fixed"),
    Case("vit by hand", lambda: networks.ViT(by_hand=True), 0.06, latent="fixed"),
    Case("mixer", networks.Mixer, 0.1, latent="fixed"),
    Case("convnext", networks.ConvNeXt, 0.02),
    Case("graph network", networks.GraphNetwork, 0.15),
]
