"""States of any shape, or several of them, as one row of real numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

State = Tensor | tuple[Tensor, ...]
Numbers = float | Tensor | Sequence[float | Tensor]
Function = Callable[[Tensor, Any], Any]


@dataclass(frozen=True)
class Packing:
    """How a state lies in one row of real numbers.

    Args:
        like: the state.
    """

    like: State

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The tensors of the state."""
        return (self.like,) if isinstance(self.like, Tensor) else tuple(self.like)

    def pack(self, state: State) -> Tensor:
        """Shape ``(1, size)``."""
        parts = (state,) if isinstance(state, Tensor) else state
        return torch.cat([_real(part).reshape(1, -1) for part in parts], dim=1)

    def unpack(self, rows: Tensor) -> Any:
        """From ``(*any, size)`` to states with the same axes in front."""
        sizes = [_real(part).numel() for part in self.parts]
        pieces = [_like(piece, part) for piece, part in zip(rows.split(sizes, dim=-1), self.parts, strict=True)]
        return pieces[0] if isinstance(self.like, Tensor) else tuple(pieces)

    def tolerance(self, numbers: Numbers) -> float | Tensor:
        """One number per real number of the state, where there is one per part."""
        if isinstance(numbers, float | int):
            return float(numbers)
        if isinstance(numbers, Tensor) and isinstance(self.like, Tensor):
            return numbers if numbers.ndim == 0 else self.pack(torch.broadcast_to(numbers, self.like.shape))
        spread = zip(numbers, self.parts, strict=True)
        return torch.cat([torch.full_like(_real(part).reshape(1, -1), float(number)) for number, part in spread], dim=1)


class Packed(nn.Module):
    """A field of packed states; a module, so that its parameters are found.

    Args:
        func: the user's field.
        packing: of its states.
    """

    def __init__(self, func: Function, packing: Packing) -> None:
        super().__init__()
        self.func, self.packing = func, packing

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope, ``(1, size)``."""
        return self.packing.pack(self.func(t, self.packing.unpack(y[0])))


def _real(part: Tensor) -> Tensor:
    return torch.view_as_real(part.resolve_conj()) if part.is_complex() else part


def _like(numbers: Tensor, part: Tensor) -> Tensor:
    """Real numbers in the shape and kind of a part, other axes in front."""
    shaped = numbers.reshape(numbers.shape[:-1] + _real(part).shape)
    return torch.complex(shaped[..., 0], shaped[..., 1]) if part.is_complex() else shaped
