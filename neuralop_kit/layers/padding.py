"""How a function on an interval goes on beyond its walls, so that it becomes periodic."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neuralop_kit.registry import decode, encode, register_component
from neuralop_kit.solvers.errors import ArgumentError, RegistryError
from neuralop_kit.solvers.nodes import NodePlacement

Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Padding(ABC):
    """A strip behind the far wall of an axis, on which the function fades from one wall's continuation to the other's.

        u(x) = w(s) p(x) + w(1 - s) q(x),      s from 0 at the far wall to 1 at the near one, a period later

    with continuations ``p`` and ``q`` beyond the far and the near wall, linear in ``u``, and a weight ``w`` that falls
    from 1 to 0 with three derivatives matching. The strip is a fraction of the *length* of the axis: every resolution
    sees the same longer, periodic interval. A leaf defines :meth:`beyond_wall` and is registered by
    ``register_component``. Leaves are plain values: no learned parameters, no resolution. Periodic axes ignore them.

    Args:
        fraction: length of the strip over that of the axis, in (0, 1]. Good values: 0.125 to 0.5.

    Raises:
        ArgumentError: the fraction is outside (0, 1].
    """

    fraction: float = 0.25

    # Whether the continued function has no jump at the walls. If it has one, an end that is a node counts half.
    is_continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ArgumentError(f"expected a fraction in (0, 1], got {self.fraction}; 0.25 is a good value")

    @abstractmethod
    def beyond_wall(self, placement: NodePlacement, num_points: int, distance: Matrix) -> Matrix:
        """Matrix from values on the axis, *the nearest to the wall first*, to those at distances beyond the wall.

        Args:
            placement: of the nodes.
            num_points: nodes on the axis.
            distance: from the wall, in spacings, shape ``(number,)``.

        Returns:
            Shape ``(number, num_points)``; the rows of a continuous leaf reproduce constants.
        """

    def on_strip(self, placement: NodePlacement, num_points: int, behind: Matrix, length: float) -> Matrix:
        """Matrix from values on the axis to those on the strip, ``(number, num_points)``.

        Args:
            placement: of the nodes.
            num_points: nodes on the axis.
            behind: distances behind the far wall, in spacings, shape ``(number,)``, at most ``length``.
            length: of the strip, in spacings.
        """
        s = behind / length
        far = self.beyond_wall(placement, num_points, behind)[:, ::-1]
        near = self.beyond_wall(placement, num_points, length - behind)
        return _fade(s)[:, None] * far + _fade(1 - s)[:, None] * near

    def inside(self, placement: NodePlacement, num_points: int) -> Matrix:
        """What the nodes of the axis itself weigh in a sum over the longer interval, in spacings, ``(num_points,)``."""
        weights = np.ones(num_points)
        if not self.is_continuous:
            weights[[0, -1]] = placement.end_weights(num_points)
        return weights


@register_component("zero_padding")
@dataclass(frozen=True)
class ZeroPadding(Padding):
    """Zero beyond the walls: a convolution then runs *over the box alone*.

        (k * u)(x) = integral_box k(x - y) u(y) dy

    The sum over nodes takes the quadrature weights of the domain, which makes it O(h^2) accurate; equal weights would
    be O(h) where walls are nodes, or where both are missing. The truncated Fourier series of the field itself
    converges slowly because of the jump, like 1/k.

    >>> from neuralop_kit.solvers.nodes import Vertex
    >>> ZeroPadding().inside(Vertex(), 5)
    array([0.5, 1. , 1. , 1. , 0.5])
    """

    is_continuous: ClassVar[bool] = False

    def beyond_wall(self, placement: NodePlacement, num_points: int, distance: Matrix) -> Matrix:
        """Zeros."""
        return np.zeros((len(distance), num_points))


@register_component("reflection_padding")
@dataclass(frozen=True)
class ReflectionPadding(Padding):
    """Mirror images beyond the walls: continuous, and never larger than the field itself.

    Fourier coefficients decay like 1/k^2, because slopes change sign at the walls. The error under refinement is
    O(h^2): images are interpolated linearly between nodes, and extrapolated to walls next to ``interior`` nodes.

    >>> from neuralop_kit.solvers.nodes import Vertex
    >>> ReflectionPadding().on_strip(Vertex(), 5, np.array([1.0]), 2.0) @ np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    array([2.])
    """

    def beyond_wall(self, placement: NodePlacement, num_points: int, distance: Matrix) -> Matrix:
        """Rows of linear interpolation at the mirror images."""
        position = distance - placement.offset
        left = np.clip(np.floor(position), 0, max(num_points - 2, 0)).astype(int)
        share = (position - left)[:, None]
        nodes = np.eye(num_points)
        return (1 - share) * nodes[left] + share * nodes[np.minimum(left + 1, num_points - 1)]


def key_of(padding: Padding) -> str:
    """A padding as text: compiled graphs hold numbers and strings as constants, but no objects.

    Raises:
        RegistryError: the class is not registered by ``register_component``.

    >>> padding_of(key_of(ReflectionPadding(0.5)))
    ReflectionPadding(fraction=0.5)
    """
    key = json.dumps(encode(padding))
    padding_of(key)
    return key


@lru_cache(maxsize=128)
def padding_of(key: str) -> Padding:
    """Inverse of :func:`key_of`."""
    padding = decode(json.loads(key))
    if not isinstance(padding, Padding):
        raise RegistryError(f"expected a registered padding, got {key}; decorate its class: @register_component(name)")
    return padding


def _fade(s: Matrix) -> Matrix:
    """The polynomial from 1 at 0 to 0 at 1 whose first three derivatives vanish at both ends."""
    return 1 - s**4 * (35 - 84 * s + 70 * s**2 - 20 * s**3)
