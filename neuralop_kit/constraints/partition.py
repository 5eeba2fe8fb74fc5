"""Who is responsible for which point: boxes in space and time, or points thrown to experts at random."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DomainError, ShapeError
from neuralop_kit.solvers.nodes import Device

# A node this close to a cut, in spacings, lies on it, whatever rounding says.
_ON_THE_CUT = 1e-6


@dataclass(frozen=True)
class Interfaces:
    """Pairs of neighbouring points with different experts; every pair is listed twice, once at each of its points.

    Args:
        points: position in the flattened grid, int64, ``(number,)``.
        partners: position of the neighbour on the other side, int64, ``(number,)``.
        first, second: the two experts, int64, ``(number,)``.
        distances: between the two points, in the unit of the domain, float64, ``(number,)``.
    """

    points: Tensor
    partners: Tensor
    first: Tensor
    second: Tensor
    distances: Tensor


class Assignment(ABC):
    """Gives every point of a grid to one expert; leaves say how.

    Args:
        domain: of the fields.
        num_experts: at least 1.
    """

    def __init__(self, domain: Domain, num_experts: int) -> None:
        self.domain, self.num_experts = domain, num_experts

    @abstractmethod
    def labels(self, shape: Sequence[int], *, device: Device = None) -> Tensor:
        """Expert of every point, int64, shape ``shape``."""

    def interfaces(self, shape: Sequence[int], *, device: Device = None) -> Interfaces:
        """Where two experts meet, also across the ends of periodic axes."""
        labels = self.labels(shape, device=device)
        numbers = torch.arange(labels.numel(), device=device).view(labels.shape)
        found: list[tuple[Tensor, ...]] = []
        for dim, axis in enumerate(self.domain.axes):
            if axis.is_periodic:
                left, right = (labels, numbers), (labels.roll(-1, dim), numbers.roll(-1, dim))
            else:
                n = shape[dim] - 1
                left, right = ((labels.narrow(dim, start, n), numbers.narrow(dim, start, n)) for start in (0, 1))
            (left_label, left_point), (right_label, right_point) = left, right
            meets = left_label != right_label
            near, far = left_point[meets], right_point[meets]
            spacing = torch.full(near.shape, axis.spacing(shape[dim]), dtype=torch.float64, device=device)
            rest = (left_label[meets], right_label[meets], spacing)
            found += [(near, far, *rest), (far, near, *rest)]
        return Interfaces(*(torch.cat(columns) for columns in zip(*found, strict=True)))


class Partition(Assignment):
    """Cuts a domain into boxes, one per expert.

    Args:
        domain: of the fields; for a problem in time, with time as one of its axes.
        splits: per axis either the number of parts of equal length, or the positions of the cuts in the unit of the
            domain, increasing, inside the interval: ``(4, 1)`` and ``((0.1, 0.3), 1)`` are partitions of a plane.

    Experts are numbered like the entries of an array with one axis per space axis. A node that lies on a cut belongs to
    the part behind it. No resolution is held: the same cuts give nested boxes on nested grids.

    Raises:
        DomainError: there is not one entry per axis, a number is below 1, or cuts are not increasing inside.

    >>> partition = Partition(Domain.box((1.0, 1.0), nodes="cell"), (2, (0.25,)))
    >>> partition.num_experts, [part.shape[2:] for part in partition.split(torch.zeros(1, 1, 4, 8))]
    (4, [torch.Size([2, 2]), torch.Size([2, 6]), torch.Size([2, 2]), torch.Size([2, 6])])
    """

    def __init__(self, domain: Domain, splits: Sequence[int | Sequence[float]]) -> None:
        if len(splits) != domain.num_dims:
            raise DomainError(f"expected splits for {domain.num_dims} axes, got {tuple(splits)}; give 1 for no split")
        self.cuts = tuple(_cuts(axis.start, axis.stop, split) for axis, split in zip(domain.axes, splits, strict=True))
        self.counts = tuple(len(cuts) + 1 for cuts in self.cuts)
        super().__init__(domain, torch.Size(self.counts).numel())

    def bounds(self, axis: int, num_points: int) -> tuple[int, ...]:
        """Index of the first point of each part along an axis, and the number of points at the end."""
        description = self.domain.axes[axis]
        spacing, offset = description.spacing(num_points), description.placement.offset
        inner = [-int(-((c - description.start) / spacing - offset - _ON_THE_CUT) // 1) for c in self.cuts[axis]]
        bounds = (0, *(min(max(b, 0), num_points) for b in inner), num_points)
        if any(b <= a for a, b in pairwise(bounds)):
            raise DomainError(
                f"expected at least one point in every part of axis {axis}, got parts that start at points "
                f"{bounds[:-1]} of {num_points}; take a finer grid or fewer parts"
            )
        return bounds

    def labels(self, shape: Sequence[int], *, device: Device = None) -> Tensor:
        """See :class:`Assignment`."""
        self.domain.check_shape(shape)
        label = torch.zeros((), dtype=torch.int64, device=device)
        for axis, (n, count) in enumerate(zip(shape, self.counts, strict=True)):
            sizes = torch.tensor([b - a for a, b in pairwise(self.bounds(axis, n))], device=device)
            part = torch.repeat_interleave(torch.arange(count, device=device), sizes, output_size=n)
            label = label.unsqueeze(-1) * count + part
        return label

    def split(self, u: Tensor) -> list[Tensor]:
        """The part of a field ``(..., *space)`` of each expert, as views; boxes may differ in size."""
        parts = [u]
        for axis, n in enumerate(u.shape[u.ndim - self.domain.num_dims :]):
            sizes = [b - a for a, b in pairwise(self.bounds(axis, n))]
            dim = axis - self.domain.num_dims
            parts = [piece for part in parts for piece in part.split(sizes, dim=dim)]
        return parts

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        """Inverse of :meth:`split`, bit for bit."""
        if len(parts) != self.num_experts:
            raise ShapeError(f"expected {self.num_experts} parts, got {len(parts)}; give one per expert, in order")
        joined = list(parts)
        for axis in reversed(range(self.domain.num_dims)):
            count, dim = self.counts[axis], axis - self.domain.num_dims
            joined = [torch.cat(joined[i : i + count], dim=dim) for i in range(0, len(joined), count)]
        return joined[0]

    def __repr__(self) -> str:
        return f"Partition({self.domain}, cuts={self.cuts})"


class RandomAssignment(Assignment):
    """Points thrown to experts at random, as many to each: the control that shows what neighbourhood is worth.

    Args:
        domain: of the fields.
        num_experts: at least 1.
        seed: of the draw; the same for every call with one shape.

    >>> torch.bincount(RandomAssignment(Domain.periodic((1.0,)), 4).labels((10,)))
    tensor([3, 3, 2, 2])
    """

    def __init__(self, domain: Domain, num_experts: int, *, seed: int = 0) -> None:
        if num_experts < 1:
            raise DomainError(f"expected at least one expert, got {num_experts}; correct it")
        super().__init__(domain, num_experts)
        self.seed = seed

    def labels(self, shape: Sequence[int], *, device: Device = None) -> Tensor:
        """See :class:`Assignment`."""
        self.domain.check_shape(shape)
        number = torch.Size(shape).numel()
        order = torch.randperm(number, generator=torch.Generator().manual_seed(self.seed))
        return (order % self.num_experts).view(*shape).to(device)


def _cuts(start: float, stop: float, split: int | Sequence[float]) -> tuple[float, ...]:
    """Positions of the cuts of one axis."""
    if isinstance(split, int):
        if split < 1:
            raise DomainError(f"expected at least one part, got {split}; 1 means no cut")
        return tuple(start + (stop - start) * i / split for i in range(1, split))
    cuts = tuple(float(c) for c in split)
    if any(b <= a for a, b in pairwise((start, *cuts, stop))):
        raise DomainError(f"expected increasing cuts inside ({start}, {stop}), got {cuts}; sort them")
    return cuts
