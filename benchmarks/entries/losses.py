"""What quadrature costs: our relative L2 loss against the plain ratio of norms that most code uses."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmarks import AgainstReference, Comparison, ForwardBackward
from neuralop_kit import Domain
from neuralop_kit.training import relative_l2


@dataclass(frozen=True)
class LossCase:
    """A batch of predictions near their targets."""

    batch: int
    shape: tuple[int, int]
    domain: Domain = field(default_factory=lambda: Domain.box((1.0, 1.0)))

    def target(self) -> Tensor:
        """Fixed, and no input: losses need no gradient with respect to it. It does not vanish at the walls."""
        noise = torch.randn(self.batch, 1, *self.shape, generator=torch.Generator().manual_seed(2))
        return 1 + self.domain.coordinates(self.shape).sum(dim=0) ** 2 + 0.1 * noise

    def inputs(self, generator: torch.Generator) -> tuple[Tensor]:
        """Predictions, wrong mostly near one corner, where the plain mean counts the walls double."""
        corner = (1 - self.domain.coordinates(self.shape)).prod(dim=0) ** 8
        noise = torch.randn(self.batch, 1, *self.shape, generator=generator)
        return (self.target() + corner + 0.01 * noise,)


class Loss(nn.Module):
    """A loss with its target."""

    target: Tensor

    def __init__(self, case: LossCase) -> None:
        super().__init__()
        self.domain = case.domain
        self.register_buffer("target", case.target())


class Weighted(Loss):
    """By quadrature."""

    def forward(self, prediction: Tensor) -> Tensor:
        """Ours."""
        return relative_l2(prediction, self.target, domain=self.domain)


class Plain(Loss):
    """Every point counts alike, also those on the walls."""

    def forward(self, prediction: Tensor) -> Tensor:
        """What most code has."""
        error = torch.linalg.vector_norm((prediction - self.target).flatten(1), dim=1)
        return (error / torch.linalg.vector_norm(self.target.flatten(1), dim=1)).mean()


def exactly(case: LossCase) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Value and gradient written out in float64, with trapezoid weights written out too."""
    target = case.target().double()
    lines = []
    for n in case.shape:
        line = torch.ones(n, dtype=torch.float64)
        line[[0, -1]] = 0.5
        lines.append(line)
    weights = lines[0][:, None] * lines[1]

    def loss(prediction: Tensor) -> tuple[Tensor, Tensor]:
        difference = prediction.cpu() - target
        error, scale = ((weights * u**2).sum(dim=(1, 2, 3), keepdim=True).sqrt() for u in (difference, target))
        return (error / scale).mean(), weights * difference / (error * scale * case.batch)

    return loss


def comparison(case: LossCase) -> Comparison:
    """One size."""
    return Comparison(
        name=f"training/relative_l2/{case.shape[0]}x{case.shape[1]}-batch{case.batch}",
        ours=Weighted,
        peer=Plain,
        peer_name="ratio of plain norms",
        case=case,
        measure=(ForwardBackward(),),
        accuracy=AgainstReference(exactly(case), tolerance=1e-5),
    )


RELATIVE_L2 = [comparison(LossCase(batch=16, shape=(n, n))) for n in (65, 257)]
