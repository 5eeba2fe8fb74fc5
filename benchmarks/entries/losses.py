"""What quadrature costs: our relative L2 loss against the plain ratio of norms that most code uses."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks import AgainstReference, Comparison, ForwardBackward
from neuralop_kit import Domain
from neuralop_kit.training import relative_l2


@dataclass(frozen=True)
class LossCase:
    """A batch of predictions, each a tenth off its target."""

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


def ours(case: LossCase) -> Callable[[Tensor], Tensor]:
    """Weighted by quadrature."""
    target = case.target()
    return lambda prediction: relative_l2(prediction, target, domain=case.domain)


def plain(case: LossCase) -> Callable[[Tensor], Tensor]:
    """Every point counts alike, also those on the walls."""
    target = case.target()

    def loss(prediction: Tensor) -> Tensor:
        error = torch.linalg.vector_norm((prediction - target).flatten(1), dim=1)
        return (error / torch.linalg.vector_norm(target.flatten(1), dim=1)).mean()

    return loss


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
        difference = prediction - target
        error, scale = ((weights * u**2).sum(dim=(1, 2, 3), keepdim=True).sqrt() for u in (difference, target))
        return (error / scale).mean(), weights * difference / (error * scale * case.batch)

    return loss


def comparison(case: LossCase) -> Comparison:
    """One size."""
    return Comparison(
        name=f"training/relative_l2/{case.shape[0]}x{case.shape[1]}-batch{case.batch}",
        ours=ours,
        peer=plain,
        peer_name="ratio of plain norms",
        case=case,
        measure=(ForwardBackward(),),
        accuracy=AgainstReference(exactly(case), tolerance=1e-5),
    )


RELATIVE_L2 = [comparison(LossCase(batch=16, shape=(n, n))) for n in (65, 257)]
