"""When a learning-rate schedule moves: after every epoch, or after every step."""

from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class PerEpoch:
    """Moves after every epoch; ``ReduceLROnPlateau`` is told the monitored loss. A bare scheduler means this."""

    def __init__(self, scheduler: LRScheduler) -> None:
        self.scheduler = scheduler

    def after_step(self) -> None:
        """Nothing."""

    def after_epoch(self, monitored: float) -> None:
        """Move on."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(monitored)
        else:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Into the scheduler."""
        self.scheduler.load_state_dict(state)


class PerStep(PerEpoch):
    """Moves after every optimizer step, as ``OneCycleLR`` and warm-ups want.

    Args:
        scheduler: any of torch's.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = PerStep(torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=100))
    """

    def after_step(self) -> None:
        """Move on."""
        self.scheduler.step()

    def after_epoch(self, monitored: float) -> None:
        """Nothing."""
