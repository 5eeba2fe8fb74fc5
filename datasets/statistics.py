"""Mean, standard deviation and extremes of each field, summed shard by shard to the same bits every time."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.datasets.description import Description
from neuralop_kit.registry import register_component
from neuralop_kit.solvers.errors import ArgumentError, DataError

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class FieldStatistics:
    """Statistics of one field over samples, times and space.

    Args:
        samples: how many functions they cover: samples, times the frames of each.
        mean, std: over all samples and all of the domain, weighted by its quadrature, so that they do not depend on
            the resolution; ``std`` is that of the population.
        minimum, maximum: over all points.
    """

    samples: int
    mean: float
    std: float
    minimum: float
    maximum: float

    @property
    def rms(self) -> float:
        """Root mean square, ``sqrt(mean^2 + std^2)``."""
        return math.hypot(self.mean, self.std)

    @classmethod
    def of(cls, values: Array, weights: Array) -> "FieldStatistics":
        """Statistics of ``values`` ``(sample, *space)`` under quadrature ``weights`` ``(*space)``."""
        share = np.ravel(weights).astype(np.float64) / np.sum(weights, dtype=np.float64)
        flat = values.reshape(len(values), -1).astype(np.float64)
        lowest, highest = float(flat.min()), float(flat.max())
        # Squares of large numbers overflow; a power of two brings them below one and costs no digit.
        exponent = math.frexp(max(-lowest, highest))[1]
        flat = np.ldexp(flat, -exponent)
        # Sums rather than matrix products, whose last bits depend on the number of threads.
        mean = float((flat * share).sum(axis=1).mean())
        # The mean is taken out before squaring, or a small deviation from a large mean would drown in rounding.
        deviation = math.sqrt((np.square(flat - mean) * share).sum(axis=1).mean())
        return cls(len(flat), math.ldexp(mean, exponent), math.ldexp(deviation, exponent), lowest, highest)

    @staticmethod
    def merge(parts: Iterable["FieldStatistics"]) -> "FieldStatistics":
        """Statistics of the union; the order of ``parts`` decides the last bits. Chan et al. (1983), eq. 2.1."""
        parts = list(parts)
        samples = sum(part.samples for part in parts)
        mean = math.fsum(part.samples / samples * part.mean for part in parts)
        # Halves, so that the difference of two very large means does not overflow.
        halves = [((part.mean / 2 - mean / 2), part.std / 2, math.sqrt(part.samples / samples)) for part in parts]
        std = 2 * math.hypot(*(share * term for shift, spread, share in halves for term in (shift, spread)))
        lowest, highest = min(part.minimum for part in parts), max(part.maximum for part in parts)
        return FieldStatistics(samples, mean, std, lowest, highest)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> "FieldStatistics":
        """Inverse of :meth:`to_json`; a :class:`DataError` when ``content`` comes from elsewhere."""
        try:
            numbers = {name: float(content[name]) for name in ("mean", "std", "minimum", "maximum")}
            if not all(math.isfinite(value) for value in numbers.values()) or numbers["std"] < 0:
                raise ValueError("not finite")
            return cls(samples=int(content["samples"]), **numbers)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"expected statistics of a field, got {content!r} ({error})") from error


def merge_fields(parts: Iterable[Mapping[str, FieldStatistics]]) -> dict[str, FieldStatistics]:
    """:meth:`FieldStatistics.merge` for every field."""
    parts = list(parts)
    return {name: FieldStatistics.merge(part[name] for part in parts) for name in parts[0]} if parts else {}


@register_component("channel_statistics")
@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of each channel: numbers, not fields, so that they hold at every resolution.

    Args:
        mean, std: one finite number per channel, in its unit and in the order of the channels; ``std >= 0``.

    Raises:
        ArgumentError: the numbers do not match, or are not finite, or a deviation is negative.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        if len(self.mean) != len(self.std) or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ArgumentError(f"expected one finite mean and std per channel, got {self.mean} and {self.std}")
        if any(value < 0 for value in self.std):
            raise ArgumentError(f"expected standard deviations >= 0, got {self.std}; take square roots of variances")

    @classmethod
    def of(cls, fields: Tensor) -> "ChannelStatistics":
        """Statistics of fields ``(sample, channel, *space)``, over samples and points, each counted alike, in float64.

        >>> import torch
        >>> ChannelStatistics.of(torch.tensor([[[1.0, 3.0]], [[1.0, 3.0]]]))
        ChannelStatistics(mean=(2.0,), std=(1.0,))
        """
        values = fields.detach().double().transpose(0, 1).flatten(start_dim=1)
        return cls(tuple(values.mean(dim=1).tolist()), tuple(values.std(dim=1, correction=0).tolist()))


@dataclass(frozen=True)
class DatasetStatistics:
    """Statistics of a dataset: per channel for a normalizer, per field for a reader.

    Args:
        input, target: means and standard deviations of the channels.
        fields: everything that is known, by name.
    """

    input: ChannelStatistics
    target: ChannelStatistics
    fields: Mapping[str, FieldStatistics]

    @classmethod
    def of(cls, description: Description, fields: Mapping[str, FieldStatistics]) -> "DatasetStatistics | None":
        """Statistics of the fields of ``description``, or None when there are none."""
        if not fields:
            return None
        if set(fields) != set(description.field_names):
            raise DataError(f"expected statistics of {description.field_names}, got those of {sorted(fields)}")

        def channels(names: tuple[str, ...]) -> ChannelStatistics:
            return ChannelStatistics(tuple(fields[n].mean for n in names), tuple(fields[n].std for n in names))

        return cls(channels(description.input_names), channels(description.target_names), dict(fields))
