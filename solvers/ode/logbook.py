"""What compiled calls of several steps leave behind: estimates, and polynomials that wait for inner times."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuralop_kit.solvers.ode.host import read
from neuralop_kit.solvers.ode.record import KEPT, Outputs, Passage, StepRows


class Flown(NamedTuple):
    """What happened in one call, ``(count, rows)`` each, see :class:`Statistics`; ``h`` is 0 where not accepted."""

    error: Tensor
    stiffness: Tensor
    start: Tensor
    h: Tensor
    accepted: Tensor


@dataclass
class FlownRows(StepRows):
    """Estimates of the accepted steps, as calls of several steps left them."""

    legs: list[Flown] = field(default_factory=list)

    def stack(self, like: Tensor, num_rows: int) -> dict[str, Tensor]:
        """See the base class."""
        if not self.legs:
            return super().stack(like, num_rows)
        all_steps = Flown(*(torch.cat(column) for column in zip(*self.legs, strict=True)))
        (kept,) = all_steps.accepted.any(dim=1).nonzero(as_tuple=True)
        steps = Flown(*(column.index_select(0, kept) for column in all_steps))
        return {
            "error": torch.where(steps.accepted, steps.error, 0.0),
            "stiffness": torch.where(steps.accepted, steps.stiffness, 0.0),
            "step_size": steps.h.abs().to(like.dtype),
            "step_start": torch.where(steps.accepted, steps.start, 0.0).to(like.dtype),
            "accepted": steps.accepted,
        }


@dataclass(eq=False)
class Waiting:
    """Steps that wait to be looked through for inner times."""

    outputs: Outputs
    legs: list[Flown] = field(default_factory=list)
    kept: list[tuple[Tensor, ...]] = field(default_factory=list)

    def append(self, leg: Flown, kept: tuple[Tensor, ...], stop: Tensor) -> None:
        """Steps that ended at ``stop``."""
        self.legs.append(leg)
        self.kept.append(kept)
        if sum(x.numel() for x in kept) * len(self.kept) > KEPT:
            self.flush(stop)

    def flush(self, stop: Tensor) -> None:
        """Look through all that wait."""
        if self.legs:
            start = read(torch.cat([leg.start for leg in self.legs]))
            h = read(torch.cat([leg.h for leg in self.legs]))
            y, *coefficients = (torch.cat(column) for column in zip(*self.kept, strict=True))
            self.outputs.add(np.eye(len(coefficients)).tolist(), Passage(start, h, y, coefficients), read(stop))
            self.legs, self.kept = [], []
