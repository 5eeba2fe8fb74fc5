"""At which of its points an expert is held to the equation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError


class Collocation(ABC):
    """Chooses points of every expert; leaves say how many.

    Points are drawn without replacement. One generator draws for all experts, so that the choice does not depend on
    which ranks hold them. Experts with fewer points than others are filled up with copies of one they have, which
    weigh nothing.
    """

    @abstractmethod
    def numbers(self, sizes: Tensor) -> Tensor:
        """How many points each expert takes, at most ``sizes``, int64, both ``(experts,)``."""

    def choose(self, members: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points of every expert.

        Args:
            members: which points an expert may take, bool, ``(experts, points)``; at least one each.
            generator: on the device of ``members``; None takes every expert's first points, in order.

        Returns:
            Positions, int64, and which of them are no filling, bool, both ``(experts, largest number)``.
        """
        sizes = members.sum(dim=1)
        if not (sizes > 0).all():
            raise ArgumentError(f"expected points for every expert, got {sizes.tolist()}; take a finer grid")
        numbers = torch.minimum(self.numbers(sizes), sizes)
        order = torch.arange(members.shape[1], device=members.device, dtype=torch.float64).expand(members.shape)
        if generator is not None:
            order = torch.rand(members.shape, generator=generator, device=members.device, dtype=torch.float64)
        width = int(numbers.max())
        chosen = torch.where(members, order, torch.inf).topk(width, dim=1, largest=False, sorted=True).indices
        is_real = torch.arange(width, device=members.device) < numbers[:, None]
        return torch.where(is_real, chosen, chosen[:, :1]), is_real


@dataclass(frozen=True)
class AllPoints(Collocation):
    """Every point of every expert.

    >>> AllPoints().choose(torch.tensor([[True, True, False], [False, False, True]]))
    (tensor([[0, 1],
            [2, 2]]), tensor([[ True,  True],
            [ True, False]]))
    """

    def numbers(self, sizes: Tensor) -> Tensor:
        """All."""
        return sizes


@dataclass(frozen=True)
class EqualPoints(Collocation):
    """The same number for every expert, or all of those who have fewer.

    Args:
        number: per expert, at least 1.
    """

    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ArgumentError(f"expected at least one point per expert, got {self.number}; take more than unknowns")

    def numbers(self, sizes: Tensor) -> Tensor:
        """The number."""
        return torch.full_like(sizes, self.number)


@dataclass(frozen=True)
class ProportionalPoints(Collocation):
    """A given total, shared in proportion to how many points the experts have: the same density everywhere.

    Args:
        total: of all experts, at least 1; every expert gets at least one.
    """

    total: int

    def __post_init__(self) -> None:
        if self.total < 1:
            raise ArgumentError(f"expected a total of at least one point, got {self.total}; take more than unknowns")

    def numbers(self, sizes: Tensor) -> Tensor:
        """Shares, rounded so that they never exceed the total by more than one point per expert."""
        return (self.total * sizes.double() / sizes.sum()).round().long().clamp_min(1)
