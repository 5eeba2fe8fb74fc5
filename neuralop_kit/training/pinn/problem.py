"""What a physics-informed network is trained on: points, residuals there, and the solution it should find."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralop_kit.solvers.errors import ShapeError

Points = Mapping[str, Tensor]


class PointProblem(ABC):
    """A differential equation for a network of coordinates, ``u = network(x)``, with a solution that is known.

    Coordinates are columns of ``x``, of shape ``(num_points, num_dims)``; time, if there is one, is the last. Residuals
    are signed and unscaled, one block each for ``interior``, ``boundary`` and, with time, ``initial``; the optimizers
    of residual vectors take the blocks as they are, half the sum of their mean squares is the loss of the others.

    A leaf says where points are drawn, what the equation leaves over, and the exact solution. Derivatives are taken by
    backward passes; from them an engine of :mod:`neuralop_kit.optim` gets the Jacobian of all residuals in one more.

    Attributes:
        num_dims: number of coordinates.
        widths: hidden layers of the network.
        published: relative L2 errors of the literature by method, where there are any.
    """

    num_dims: ClassVar[int]
    widths: ClassVar[tuple[int, ...]] = (64,)
    published: ClassVar[Mapping[str, float]] = MappingProxyType({})

    @abstractmethod
    def draw(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Random points in float64: ``interior``, of which derivatives are taken, and those of the other blocks."""

    @abstractmethod
    def residuals(self, network: nn.Module, points: Points) -> dict[str, Tensor]:
        """What is left over at the points of each block, ``(num_points,)`` each, with its graph."""

    @abstractmethod
    def exact(self, x: Tensor) -> Tensor:
        """The solution, ``(num_points, num_dims) -> (num_points,)``."""

    @abstractmethod
    def test_points(self) -> Tensor:
        """Points ``(num_points, num_dims)`` at which errors are measured; none of them is drawn for training."""

    def network(self) -> nn.Sequential:
        """A new network in float64 with tanh between its layers; weights from torch's global random state."""
        sizes = (self.num_dims, *self.widths, 1)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.Tanh()]
        return nn.Sequential(*layers[:-1]).double()

    @torch.no_grad()
    def relative_error(self, network: nn.Module) -> float:
        """Relative L2 error at :meth:`test_points`; infinite where the network is not finite."""
        x, u = self._truth
        error = float((values(network, x) - u).norm() / u.norm())
        return error if error < float("inf") else float("inf")

    @cached_property
    def _truth(self) -> tuple[Tensor, Tensor]:
        """Test points and the solution there: some solutions take longer than a step of training."""
        x = self.test_points()
        return x, self.exact(x)


def values(network: nn.Module, x: Tensor) -> Tensor:
    """The network at points, ``(num_points, num_dims) -> (num_points,)``.

    Raises:
        ShapeError: the network has more than one output.
    """
    u = network(x)
    if u.shape != (len(x), 1):
        raise ShapeError(
            f"expected one output per point, ({len(x)}, 1), got {tuple(u.shape)}; end in nn.Linear(width, 1)"
        )
    return u.squeeze(1)


def derivatives(u: Tensor, x: Tensor, second: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """First derivatives of ``u`` along all axes, and pure second ones along some.

    Args:
        u: ``(num_points,)``, each from its own point alone.
        x: the points, ``(num_points, num_dims)``, which require gradients.
        second: axes of the second derivatives; each costs a backward pass through the first one.

    Returns:
        The gradient ``(num_points, num_dims)``, and a list of tensors ``(num_points,)``.

    >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    >>> gradient, (u_yy,) = derivatives(x[:, 0] * x[:, 1] ** 3, x, second=(1,))
    >>> gradient.tolist(), u_yy.tolist()
    ([[8.0, 12.0]], [12.0])
    """
    (gradient,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return gradient, [torch.autograd.grad(gradient[:, i].sum(), x, create_graph=True)[0][:, i] for i in second]


def on_faces(num_dims: int, per_face: int, generator: torch.Generator | None) -> Tensor:
    """Random points on the faces of the unit cube, ``(2 * num_dims * per_face, num_dims)``, float64."""
    faces = torch.rand(num_dims, 2, per_face, num_dims, generator=generator, dtype=torch.float64)
    for axis in range(num_dims):
        faces[axis, 0, :, axis], faces[axis, 1, :, axis] = 0.0, 1.0
    return faces.flatten(0, 2)
