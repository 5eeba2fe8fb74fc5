"""What every dataset is to a trainer: pairs of fields, with names, units and the place where they live."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from neuralop_kit.datasets.statistics import DatasetStatistics
from neuralop_kit.solvers.domain import Domain


class FieldDataset(Dataset[tuple[Tensor, Tensor]], ABC):
    """Pairs ``(input, target)`` of fields ``(channel, *space)`` on disk; made by :func:`open_dataset`.

    Nothing is read before it is asked for, and nothing is kept. Works with any number of loader workers, forked or
    spawned.

    Attributes:
        statistics: of the training split, per channel, whichever split this is; None for a dataset without one.

    >>> import tempfile
    >>> from neuralop_kit.datasets import generate, open_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = open_dataset(generate("darcy", folder, samples=10, resolution=16), "train")
    ...     u, v = data[0]
    ...     batch, _ = data.read(range(4))
    >>> u.shape, batch.shape, data.input_names, data.target_names
    (torch.Size([1, 16, 16]), torch.Size([4, 1, 16, 16]), ('permeability',), ('pressure',))
    """

    statistics: DatasetStatistics | None

    @property
    @abstractmethod
    def domain(self) -> Domain:
        """Where the functions live."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Points per axis."""

    @property
    @abstractmethod
    def input_names(self) -> tuple[str, ...]:
        """One per input channel."""

    @property
    @abstractmethod
    def target_names(self) -> tuple[str, ...]:
        """One per target channel."""

    @property
    @abstractmethod
    def units(self) -> dict[str, str]:
        """Unit of each field by name, ``"1"`` where it has none."""

    @abstractmethod
    def read(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A batch: inputs and targets, ``(batch, channel, *space)`` each, in the order of ``indices``.

        Raises:
            IndexError: an index is outside ``-len(self) ... len(self) - 1``.
            DataError, NonFiniteError: a file is damaged; the message names it.
        """

    @abstractmethod
    def verify(self) -> None:
        """Read every sample once, in bounded memory; raises at the first damage."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of pairs."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One sample: input and target, ``(channel, *space)`` each."""
        inputs, targets = self.read([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Several samples with one look-up; data loaders call this."""
        return list(zip(*self.read(indices), strict=True))

    def _positions(self, indices: Sequence[int]) -> NDArray[np.int64]:
        """Indices as an array, negative ones counted from the end; raises :class:`IndexError`."""
        samples: Any = np.asarray(indices, dtype=np.int64)
        # Without their sign, negative numbers are larger than any length.
        if samples.size and samples.view(np.uint64).max() < len(self):
            return samples
        samples = np.where(samples < 0, samples + len(self), samples)
        outside = (samples < 0) | (samples >= len(self))
        if outside.any():
            raise IndexError(f"expected indices below {len(self)}, got {np.asarray(indices)[outside][:8].tolist()}")
        return samples
