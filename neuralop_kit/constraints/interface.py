"""What happens where two experts meet: nothing, an overlap, or a pull towards each other."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.constraints.partition import Assignment, Interfaces, Partition
from neuralop_kit.constraints.windows import Windows
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.optimization.pointwise import LinearRows


class Interface(ABC):
    """How the fields of experts are joined, ``u = sum_k chi_k u_k``; leaves say what ``chi`` is."""

    @abstractmethod
    def windows(self, assignment: Assignment, shape: Sequence[int], orders: Sequence[int], like: Tensor) -> Tensor:
        """Derivatives of ``chi`` in the dtype and on the device of ``like``, shape ``(experts, *shape)``."""

    @property
    def is_smooth(self) -> bool:
        """Whether the joined field may be differentiated across interfaces."""
        return False

    def members(self, assignment: Assignment, shape: Sequence[int], like: Tensor) -> Tensor:
        """Which points every expert is fitted at, bool, ``(experts, *shape)``: all where its window is not zero."""
        return self.windows(assignment, shape, (0,) * len(shape), like) > 0

    def coupling(self, basis: Tensor, meets: Interfaces, num_experts: int) -> LinearRows | None:
        """Rows between the experts of an item, or None where they are independent."""
        return None


@dataclass(frozen=True)
class Separate(Interface):
    """Every expert for its own box, nothing at the interfaces: as published, the field jumps there.

    Source: Chalapathi, Du and Krishnapriyan (2024), section 3.
    """

    def windows(self, assignment: Assignment, shape: Sequence[int], orders: Sequence[int], like: Tensor) -> Tensor:
        """One in the own box, zero elsewhere; jumps have no derivative."""
        labels = assignment.labels(shape, device=like.device)
        numbers = torch.arange(assignment.num_experts, device=like.device).view(-1, *[1] * len(shape))
        return ((labels == numbers) & (not any(orders))).to(like.dtype)


@dataclass(frozen=True)
class Overlap(Interface):
    """Boxes that overlap, blended by windows that sum to one: the field has no jumps, and ``smoothness`` derivatives.

    Args:
        width, smoothness: of the strips, see :class:`Windows`.
    """

    width: tuple[float, ...]
    smoothness: int = 2

    @property
    def is_smooth(self) -> bool:
        """Yes."""
        return True

    def windows(self, assignment: Assignment, shape: Sequence[int], orders: Sequence[int], like: Tensor) -> Tensor:
        """The smooth windows."""
        if not isinstance(assignment, Partition):
            raise ArgumentError(
                f"expected a Partition into boxes, got {type(assignment).__name__}; scattered points do not overlap"
            )
        windows = Windows(assignment, self.width, self.smoothness)
        return windows(shape, orders=orders, device=like.device).to(like.dtype)


@dataclass(frozen=True)
class Coupled(Separate):
    """Separate boxes whose fields are pulled together by rows ``weight * (u_k - u_l) = 0`` at the points on both sides.

    Values on two rows of points hold values and slopes together. All experts of an item become one problem. Experts
    share their basis, so a strong pull at many points makes them equal: one global solve. Keep it weak.

    Args:
        weight: positive, relative to the equation's residual; rows are averaged over each interface.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ArgumentError(f"expected a positive weight, got {self.weight}; Separate() has no coupling")

    def coupling(self, basis: Tensor, meets: Interfaces, num_experts: int) -> LinearRows:
        """Rows for coefficients ``(batch, experts * num_basis)``; ``basis`` is ``(batch, num_basis, points)``."""
        values = basis.index_select(-1, meets.points).mT
        one_hot = torch.eye(num_experts, dtype=basis.dtype, device=basis.device)
        pair = meets.first * num_experts + meets.second
        count = torch.bincount(pair, minlength=num_experts**2)[pair]
        scale = self.weight * count.to(basis.dtype).rsqrt()
        signs = scale[:, None] * (one_hot[meets.first] - one_hot[meets.second])
        matrix = (signs[:, :, None] * values[:, :, None, :]).flatten(2)
        return LinearRows(matrix, matrix.new_zeros(matrix.shape[:2]))
