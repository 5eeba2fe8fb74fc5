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

    >>> from neuralop_kit import Domain
    >>> from neuralop_kit.constraints import AtStart, LeastSquaresConstraint, MixtureOfExperts, Partition
    >>> domain = Domain.box((3.0,))
    >>> decay = LeastSquaresConstraint(lambda u, u_x: u_x + u, domain, conditions=[AtStart("initial", 0, target=1.0)])
    >>> layer = MixtureOfExperts(decay, Partition(domain, (2,)), interface=Overlap((0.5,)))
    >>> x = domain.coordinates((97,), dtype=torch.float64)
    >>> layer(torch.stack([x**k for k in range(4)], dim=1))[0].shape
    torch.Size([1, 1, 97])
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
    """Separate boxes whose fields are pulled together at the points on both sides of every interface.

        weight (u_k - u_l) = 0,    slope_weight (du_k/dx - du_l/dx) = 0         x across the interface

    Values alone allow a kink, and a kink is a source: an equation of second order needs the slopes as well. All
    experts of an item become one problem. Experts share their basis, so a strong pull at many points makes them equal:
    one global solve. Keep it weak.

    Args:
        weight: positive, relative to the equation's residual; rows are averaged over each interface.
        slope_weight: non-negative, the same for slopes, in units of the domain's length. A good value for an equation
            with ``a u_xx`` on a grid of spacing ``h`` is ``a / sqrt(h)``, what a kink costs where differences see it.
    """

    weight: float = 1.0
    slope_weight: float = 0.0

    def __post_init__(self) -> None:
        if not (self.weight > 0 and self.slope_weight >= 0):
            raise ArgumentError(
                f"expected a positive weight and a slope_weight >= 0, got {self.weight} and {self.slope_weight}; "
                "Separate() has no coupling"
            )

    def coupling(self, basis: Tensor, meets: Interfaces, num_experts: int) -> LinearRows:
        """Rows for coefficients ``(batch, experts * num_basis)``; ``basis`` is ``(batch, num_basis, points)``."""
        one_hot = torch.eye(num_experts, dtype=basis.dtype, device=basis.device)
        pair = meets.first * num_experts + meets.second
        count = torch.bincount(pair, minlength=num_experts**2)[pair]
        signs = count.to(basis.dtype).rsqrt()[:, None] * (one_hot[meets.first] - one_hot[meets.second])
        values = [self.weight * basis.index_select(-1, meets.points).mT]
        if self.slope_weight:
            rise = basis.index_select(-1, meets.partners) - basis.index_select(-1, meets.points)
            values.append(self.slope_weight * (rise / meets.distances.to(basis.dtype)).mT)
        matrix = torch.cat([(signs[:, :, None] * v[:, :, None, :]).flatten(2) for v in values], dim=1)
        return LinearRows(matrix, matrix.new_zeros(matrix.shape[:2]))
