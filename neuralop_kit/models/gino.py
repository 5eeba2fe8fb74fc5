"""GINO: from a cloud of points to a cloud of points, through a grid."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.layers import GraphKernel, PointwiseLinear
from neuralop_kit.models.fno import FNO
from neuralop_kit.models.lifted import Activation
from neuralop_kit.registry import register_model
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DomainError


@register_model("gino")
class GINO(nn.Module):
    """Geometry-informed neural operator: a cloud of points is read onto a grid, an :class:`FNO` acts there.

        G(u)(y) = Q D F E [u, 1](y)

    with a :class:`GraphKernel` ``E`` from the points to the grid, an :class:`FNO` ``F``, a :class:`GraphKernel` ``D``
    from the grid to the queries and a pointwise map ``Q``. The channel of ones tells the grid where there are points:
    a ball without any reads zero. The cloud can be refined at will; the grid stays as it is unless a call asks for
    another, which converges as well: the FNO acts on functions, and sums over the grid are quadratures.

    Args:
        in_channels, out_channels: channels of the input and output functions.
        domain: a box that holds all points.
        radius: of the balls, in the unit of the coordinates; at least the spacing of the grid, better two or three.
        grid: points of the grid per axis, where a call does not say otherwise.
        width: channels on the grid.
        num_layers, modes: of the FNO.
        activation: a smooth pointwise function.

    Shape: ``(batch, in_channels, n)`` at points ``(n, d)``, or ``(batch, n, d)`` for a cloud per item, to
    ``(batch, out_channels, m)`` at queries ``(m, d)``.

    Raises:
        ArgumentError: a size is below 1, or the radius is not positive.
        DomainError: the domain is a sphere or has more than three axes, or the grid, here or in a call, is too small
            for it or coarser than the radius.
        ShapeError: shapes do not go together.

    Source: Li et al. (2023), arXiv 2309.00583, with quadrature weights in both graph layers.

    >>> model = GINO(2, 1, domain=Domain.box((1.0, 1.0)), radius=0.2, grid=(12, 12), width=8, num_layers=1, modes=4)
    >>> points, queries = torch.rand(300, 2), torch.rand(40, 2)
    >>> model(torch.randn(4, 2, 300), points, queries).shape
    torch.Size([4, 1, 40])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        domain: Domain,
        radius: float,
        grid: Sequence[int],
        width: int = 32,
        num_layers: int = 4,
        modes: int | Sequence[int] = 12,
        activation: Activation = nn.functional.gelu,
    ) -> None:
        super().__init__()
        self.domain, self.radius = domain, radius
        self.grid = self._checked(grid)
        self.encode = GraphKernel(in_channels + 1, width, radius, num_dims=domain.num_dims)
        self.on_grid = FNO(
            width, width, domain=domain, width=width, num_layers=num_layers, modes=modes, activation=activation
        )
        self.decode = GraphKernel(width, width, radius, num_dims=domain.num_dims)
        self.read_out = PointwiseLinear(width, out_channels)

    def forward(
        self,
        u: Tensor,
        points: Tensor,
        queries: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        grid: Sequence[int] | None = None,
    ) -> Tensor:
        """The operator applied to ``u`` at ``points``; values at ``queries``, by default at the points themselves.

        ``weights`` are the quadrature weights of the points, ``(n,)`` or ``(batch, n)``, any scale; equal by default,
        which is right where points are equally dense. ``grid`` is used for this call in place of the model's own.
        """
        queries = points if queries is None else queries
        shape = self.grid if grid is None else self._checked(grid)
        nodes = self.domain.coordinates(shape, dtype=points.dtype, device=points.device).flatten(1).mT
        shares = self.domain.weights(shape, dtype=points.dtype, device=points.device).flatten()
        with_ones = torch.cat((u, torch.ones_like(u[:, :1])), dim=1)
        onto = nodes if points.ndim == 2 else nodes.expand(len(points), -1, -1)
        read = self.encode(with_ones, points, onto, weights=weights).unflatten(2, shape)
        acted = self.on_grid(read).flatten(2)
        source = nodes if queries.ndim == 2 else nodes.expand(len(queries), -1, -1)
        values: Tensor = self.read_out(self.decode(acted, source, queries, weights=shares))
        return values

    def _checked(self, grid: Sequence[int]) -> tuple[int, ...]:
        self.domain.check_shape(grid)
        if max(self.domain.spacing(grid)) > self.radius:
            raise DomainError(
                f"expected a grid finer than the radius {self.radius:g}, got spacings {self.domain.spacing(grid)}; "
                "use more points or a larger radius"
            )
        return tuple(grid)
