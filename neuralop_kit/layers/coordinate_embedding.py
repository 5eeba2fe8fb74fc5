"""CoordinateEmbedding: tell a pointwise network where it is."""

import math

import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_field
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.sphere import SphereDomain


class CoordinateEmbedding(nn.Module):
    """Append functions of position as further channels, without an artificial jump.

        periodic axis       sin(2 pi j s), cos(2 pi j s)   for j = 1..num_frequencies
        any other axis      2 s - 1                        from -1 at one wall to 1 at the other
        sphere              the unit vector (x, y, z), smooth at the poles

    where ``s`` runs from 0 to 1 along the axis. The coordinate itself would jump where a periodic axis closes, which
    costs a spectral layer its accuracy and makes a differential layer diverge like 1/h.

    Args:
        domain: where the field lives.
        num_frequencies: harmonics per periodic axis, at least 1.

    Shape: ``(batch, channel, *space) -> (batch, channel + num_features, *space)``, any resolution. Exact: there is no
    discretisation error. Sines and cosines are taken per axis in float64, so the cost is that of copying the field.

    Raises:
        ArgumentError: ``num_frequencies`` is below 1.
        ShapeError: the field has another number of space axes.

    >>> embed = CoordinateEmbedding(domain=Domain.box((4.0, 1.0), boundary=("periodic", "dirichlet")))
    >>> embed.num_features, embed(torch.zeros(8, 1, 64, 33)).shape
    (3, torch.Size([8, 4, 64, 33]))
    """

    def __init__(self, *, domain: Domain, num_frequencies: int = 1) -> None:
        super().__init__()
        if num_frequencies < 1:
            raise ArgumentError(f"expected at least one frequency, got {num_frequencies}; leave the layer out for none")
        self.domain, self.num_frequencies = domain, num_frequencies

    @property
    def num_features(self) -> int:
        """How many channels are appended."""
        if isinstance(self.domain, SphereDomain):
            return 3
        return sum(2 * self.num_frequencies if axis.is_periodic else 1 for axis in self.domain.axes)

    def forward(self, u: Tensor) -> Tensor:
        """``u`` with the features behind its channels."""
        check_field(u, None, self.domain.num_dims)
        features = self.features(tuple(u.shape[2:]), dtype=u.dtype, device=u.device)
        return torch.cat([u, features.expand(u.shape[0], *features.shape)], dim=1)

    def features(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The appended channels on a grid, ``(num_features, *shape)``."""
        if isinstance(self.domain, SphereDomain):
            lines = [self.domain.axis_coordinates(i, n, device=device) for i, n in enumerate(shape)]
            theta, phi = torch.meshgrid(*lines, indexing="ij")
            vector = [theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()]
            return torch.stack(vector).to(dtype)
        channels = []
        for index, num_points in enumerate(shape):
            along = [num_points if i == index else 1 for i in range(len(shape))]
            of_axis = self._axis_features(index, num_points, device).to(dtype)
            channels.append(of_axis.view(-1, *along).expand(-1, *shape))
        return torch.cat(channels)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"domain={self.domain}, num_frequencies={self.num_frequencies}"

    def _axis_features(self, index: int, num_points: int, device: torch.device) -> Tensor:
        """Features of one axis along it, float64, ``(number, num_points)``."""
        axis = self.domain.axes[index]
        x = self.domain.axis_coordinates(index, num_points, device=device)
        scaled = (x - axis.start) / axis.length
        if not axis.is_periodic:
            return (2 * scaled - 1)[None]
        frequencies = torch.arange(1, self.num_frequencies + 1, dtype=torch.float64, device=device)
        angles = 2 * math.pi * frequencies[:, None] * scaled
        return torch.cat([angles.sin(), angles.cos()])
