"""Which process solves which expert: all of them here, or shared out over ranks."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Ranks(ABC):
    """Shares experts out and brings their coefficients back; leaves say over what."""

    @abstractmethod
    def own(self, num_experts: int, device: torch.device) -> Tensor:
        """Numbers of the experts that are solved here, int64, increasing."""

    @abstractmethod
    def gather(self, coefficients: Tensor, num_experts: int) -> Tensor:
        """Own coefficients ``(batch, own, num_basis)`` to those of all experts, with derivatives."""

    @abstractmethod
    def gather_report(self, values: Tensor, num_experts: int) -> Tensor:
        """Own numbers ``(batch, own)`` to those of all experts, without derivatives."""

    @abstractmethod
    def together(self, work: Callable[[], Result]) -> Result:
        """Do the work; where it raises on one rank it raises on all, so that nobody waits for ever."""


class OneRank(Ranks):
    """Everything in this process."""

    def own(self, num_experts: int, device: torch.device) -> Tensor:
        """All."""
        return torch.arange(num_experts, device=device)

    def gather(self, coefficients: Tensor, num_experts: int) -> Tensor:
        """They are here."""
        return coefficients

    def gather_report(self, values: Tensor, num_experts: int) -> Tensor:
        """They are here."""
        return values

    def together(self, work: Callable[[], Result]) -> Result:
        """Just do it."""
        return work()

    def __repr__(self) -> str:
        return "OneRank()"
