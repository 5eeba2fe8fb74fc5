"""Cases: the inputs of a comparison. A frozen dataclass with one method; write your own beside your entry."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Case(Protocol):
    """Anything frozen that can draw its inputs."""

    def inputs(self, generator: torch.Generator) -> tuple[Any, ...]:
        """Arguments of one call, on the CPU; the runner moves tensors to its device."""
        ...


@dataclass(frozen=True)
class FieldCase:
    """One field of independent standard normal values: every mode is present, which is the hardest case for accuracy.

    Shape: ``(batch, channels, *shape)``.
    """

    batch: int
    channels: int
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def inputs(self, generator: torch.Generator) -> tuple[Tensor]:
        """The field, alone."""
        return (torch.randn(self.batch, self.channels, *self.shape, generator=generator, dtype=self.dtype),)
