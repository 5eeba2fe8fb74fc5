"""How far a run has come: counters, history, the best value, and when to stop."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError, CheckpointError
from neuralop_kit.training import distributed
from neuralop_kit.training.logs import Record


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the monitored loss has not improved for ``patience`` epochs.

    Args:
        patience: epochs without improvement, at least 1.
        min_improvement: relative; 0.01 asks for one per cent. In [0, 1).
    """

    patience: int = 10
    min_improvement: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1 or not 0 <= self.min_improvement < 1:
            raise ArgumentError(f"expected patience >= 1 and min_improvement in [0, 1), got {self}")


@dataclass
class Progress:
    """Counters of a run; all of it is JSON.

    Args:
        seed, batch_size, sizes: what fixes the order of the data; a resumed run must give the same.
        step: optimizer steps taken.
        epoch: epochs completed.
        position: batches taken of the epoch under way.
        best: lowest monitored loss so far, and ``stale`` the epochs since the last improvement that counted.
        history: one record per epoch.
    """

    seed: int
    batch_size: int
    sizes: list[int]
    step: int = 0
    epoch: int = 0
    position: int = 0
    best: float | None = None
    reference: float | None = None
    stale: int = 0
    history: list[Record] = field(default_factory=list)

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> "Progress":
        """Inverse of :meth:`to_json`; other keys are ignored."""
        try:
            return cls(**{item.name: description[item.name] for item in fields(cls)})
        except KeyError as error:
            raise CheckpointError(
                f"expected {error} in state.json, got none; was it written by another version?"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """A description of plain numbers, strings, lists and dicts."""
        return asdict(self)

    def check_same_order(self, other: "Progress") -> None:
        """Refuse to go on with data in another order than the run began with."""
        for name in ("seed", "batch_size", "sizes"):
            if getattr(self, name) != getattr(other, name):
                raise CheckpointError(
                    f"expected to resume with {name}={getattr(self, name)}, got {getattr(other, name)}; "
                    "give what the run began with, or choose another folder"
                )

    def record_epoch(self, record: Record, monitored: float, *, min_improvement: float = 0.0) -> bool:
        """Close the epoch; returns whether it is the best one so far."""
        is_best = self.best is None or monitored < self.best
        if self.reference is None or monitored < self.reference * (1 - min_improvement):
            self.reference, self.stale = monitored, 0
        else:
            self.stale += 1
        if is_best:
            self.best = monitored
        self.history.append(record)
        self.epoch += 1
        self.position = 0
        return is_best


class RunningLoss:
    """Mean loss of the epoch under way, kept on the device so that no step waits for the host.

    The fourth number is the first step at which the loss was not finite, or infinity.
    """

    def __init__(self, device: torch.device) -> None:
        # Sum and count in fp64: exact enough to be independent of how often a run was interrupted. MPS has fp32 only.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(2, dtype=dtype, device=device)
        self.first_bad = torch.full((1,), torch.inf, dtype=dtype, device=device)

    def add(self, loss: Tensor, num_samples: int, step: int) -> None:
        """Add the mean loss of ``num_samples`` samples, seen at ``step``."""
        self.sums += torch.stack([loss.to(self.sums.dtype), torch.ones_like(self.sums[0])]) * num_samples
        self.first_bad = torch.where(loss.isfinite(), self.first_bad, self.first_bad.clamp(max=step))

    def first_bad_step(self) -> int | None:
        """First step of the epoch whose loss was not finite in any process; waits for the device."""
        first = -distributed.max_over_ranks(-self.first_bad).item()
        return None if first == float("inf") else int(first)

    def mean(self) -> float:
        """Mean over all samples of all processes so far."""
        total, count = distributed.sum_over_ranks(self.sums).tolist()
        return float(total / count)

    def reset(self) -> None:
        """Begin a new epoch."""
        self.sums.zero_()

    def state(self) -> list[Tensor]:
        """The sums of every process, for a checkpoint."""
        return [torch.tensor(values, dtype=self.sums.dtype) for values in distributed.gather(self.sums.tolist())]

    def load(self, state: Sequence[Tensor]) -> None:
        """Continue from :meth:`state`; the sums move to rank 0 when the number of processes has changed."""
        if len(state) == distributed.world_size():
            self.sums.copy_(state[distributed.rank()])
        else:
            self.sums.copy_(torch.stack(list(state)).sum(dim=0) * (distributed.rank() == 0))
