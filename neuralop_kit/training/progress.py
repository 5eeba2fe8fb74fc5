"""How far a run has come: counters, history, the best value, and when to stop."""

import math
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

    Given to :class:`Trainer`: ``Trainer(model, optimizer, early_stopping=EarlyStopping(patience=20))``.
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
    """Mean loss of the epoch under way; losses wait on the device, so that no step waits for the host.

    Summed in float64 and in order, so that the mean does not depend on how often it is looked at.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.total, self.count = 0.0, 0
        self._first_bad = math.inf
        self._waiting: list[tuple[Tensor, int, int]] = []

    def add(self, loss: Tensor, num_samples: int, step: int) -> None:
        """Add the mean loss of ``num_samples`` samples, seen at ``step``."""
        self._waiting.append((loss, num_samples, step))

    def first_bad_step(self) -> int | None:
        """First step of the epoch whose loss was not finite in any process; waits for the device."""
        self._collect()
        first = distributed.min_number(self._first_bad, self.device)
        return None if math.isinf(first) else int(first)

    def mean(self) -> float:
        """Mean over all samples of all processes so far."""
        self._collect()
        total, count = distributed.sum_numbers([self.total, self.count], self.device)
        return total / count

    def reset(self) -> None:
        """Begin a new epoch."""
        self._collect()
        self.total, self.count = 0.0, 0

    def state(self) -> list[tuple[float, int]]:
        """Sum and count of every process, for a checkpoint."""
        self._collect()
        return distributed.gather((self.total, self.count))

    def load(self, state: Sequence[tuple[float, int]]) -> None:
        """Continue from :meth:`state`; the sums move to rank 0 when the number of processes has changed."""
        if len(state) != distributed.world_size():
            state = [(sum(total for total, _ in state), sum(count for _, count in state))]
        mine = distributed.rank()
        self.total, self.count = state[mine] if mine < len(state) else (0.0, 0)

    def _collect(self) -> None:
        if not self._waiting:
            return
        losses, counts, steps = zip(*self._waiting, strict=True)
        self._waiting.clear()
        for loss, count, step in zip(torch.stack(losses).tolist(), counts, steps, strict=True):
            if not math.isfinite(loss):
                self._first_bad = min(self._first_bad, step)
            self.total += loss * count
            self.count += count
