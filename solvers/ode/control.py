"""Who chooses a step size: every sample for itself, or the whole batch together."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class StepControl(ABC):
    """How numbers belong to a state ``(batch, ...)``: one per *row*, and a row is a sample or the batch."""

    @abstractmethod
    def num_rows(self, batch: int) -> int:
        """How many step sizes there are."""

    @abstractmethod
    def norm(self, x: Tensor) -> Tensor:
        """Euclidean norm of every row, shape ``(rows,)``; its gradient at zero is zero."""

    def rms(self, x: Tensor) -> Tensor:
        """Root mean square of every row, shape ``(rows,)``."""
        return self.norm(x) * math.sqrt(self.num_rows(len(x)) / x.numel())

    @abstractmethod
    def spread(self, numbers: Tensor, ndim: int) -> Tensor:
        """Numbers of shape ``(rows,)``, such that they multiply a state with ``ndim`` axes."""

    @abstractmethod
    def row(self, y: Tensor) -> Tensor:
        """The first row of a state: ``(...)`` or ``(batch, ...)``."""

    @abstractmethod
    def interpolate(self, y: Tensor, stages: Sequence[Tensor], rows: Tensor, weights: Tensor) -> Tensor:
        """``y + sum_i weights_i stages_i`` of the given rows.

        Args:
            rows: indices, ``(num_points,)``.
            weights: ``(num_stages, num_points)``.

        Returns:
            One row of the state per point, ``(num_points, *row)``.
        """


class PerSample(StepControl):
    """A step size per sample: none waits for a difficult neighbour, and none depends on its neighbours."""

    def num_rows(self, batch: int) -> int:
        """See the base class."""
        return batch

    def norm(self, x: Tensor) -> Tensor:
        """See the base class."""
        # Small states are waited for longer than they are computed with: no reshaping that changes nothing.
        rows = x if x.ndim == 2 else x.reshape(len(x), -1)
        # Its derivative at zero is zero, where that of a square root of a sum is NaN.
        return torch.linalg.vector_norm(rows, dim=1)

    def spread(self, numbers: Tensor, ndim: int) -> Tensor:
        """See the base class."""
        return numbers.view(-1, *[1] * (ndim - 1))

    def row(self, y: Tensor) -> Tensor:
        """See the base class."""
        return y[0]

    def interpolate(self, y: Tensor, stages: Sequence[Tensor], rows: Tensor, weights: Tensor) -> Tensor:
        """See the base class."""
        picked = torch.stack([stage.index_select(0, rows) for stage in stages])
        weights = weights.view(*weights.shape, *[1] * (y.ndim - 1))
        return y.index_select(0, rows) + (weights * picked).sum(dim=0)


class Joint(StepControl):
    """One step size for the batch: as if it were a single system. Cheapest when all samples are alike."""

    def num_rows(self, batch: int) -> int:
        """See the base class."""
        return 1

    def norm(self, x: Tensor) -> Tensor:
        """See the base class."""
        return torch.linalg.vector_norm(x).reshape(1)

    def spread(self, numbers: Tensor, ndim: int) -> Tensor:
        """See the base class."""
        return numbers.view(())

    def row(self, y: Tensor) -> Tensor:
        """See the base class."""
        return y

    def interpolate(self, y: Tensor, stages: Sequence[Tensor], rows: Tensor, weights: Tensor) -> Tensor:
        """See the base class."""
        return y + torch.tensordot(weights.T, torch.stack(list(stages)), dims=1)


# What odeint(..., control=name) accepts.
CONTROLS: dict[str, type[StepControl]] = {"per_sample": PerSample, "joint": Joint}
