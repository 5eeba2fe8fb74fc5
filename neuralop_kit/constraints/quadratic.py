"""QPConstraint: linear equations and inequalities, of any kind."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from neuralop_kit.constraints.fields import check_field, of_no_item
from neuralop_kit.constraints.precision import in_single_at_least
from neuralop_kit.layers.checks import with_an_item
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.optimization import QPInfo, solve_qp

# The field of one item (channel, *space), and data of that item, to values.
AffineFunction = Callable[..., Tensor]


class QPConstraint(nn.Module):
    """The nearest field that satisfies linear equations and inequalities: monotone, convex, with bounded fluxes.

        v = argmin ||v - u||_L2   subject to   a(v, data) = 0,   g(v, data) <= 0

    with ``a`` and ``g`` affine in ``v``: they are differentiated once to become matrices. Exactly differentiable,
    twice, with respect to ``u`` and ``data``. Where a projection in closed form exists, as for moments, bounds and
    integrals, that layer is hundreds of times faster.

    Args:
        domain: gives the weights.
        equalities, inequalities: functions of the field of *one item*, ``(channel, *space)``, and of that item's data;
            they return values of any shape. At least one of them.
        relaxation: items without a solution get the field with the smallest ``||v - u||^2 + relaxation (|a(v)|^2 +
            |max(g(v), 0)|^2)`` instead, detached; their status stays what it is. None for NaN.

    Shape: field ``(batch, channel, *space)`` and data, each ``(batch, ...)``, to a field and a :class:`QPInfo`.
    Cost: dense matrices, for fields up to some hundreds of points.

    Raises:
        ArgumentError: there is no function, or the relaxation is not positive. ShapeError: the field does not fit.

    >>> layer = QPConstraint(Domain.box((1.0,)), inequalities=lambda v: v[..., :-1] - v[..., 1:])  # increasing
    >>> v, info = layer(torch.tensor([[[-1.0, 2.0, 1.0, 3.0]]]))
    >>> v
    tensor([[[-1.0000, 1.5000, 1.5000, 3.0000]]])
    """

    def __init__(
        self,
        domain: Domain,
        *,
        equalities: AffineFunction | None = None,
        inequalities: AffineFunction | None = None,
        relaxation: float | None = None,
    ) -> None:
        super().__init__()
        if equalities is None and inequalities is None:
            raise ArgumentError("expected equalities, inequalities or both, got none; write inequalities=lambda v: -v")
        if relaxation is not None and not relaxation > 0:
            raise ArgumentError(f"expected a positive relaxation, got {relaxation}; large ones violate less")
        self.domain, self.relaxation = domain, relaxation
        self.equalities, self.inequalities = equalities, inequalities

    @in_single_at_least
    def forward(self, u: Tensor, *data: Tensor) -> tuple[Tensor, QPInfo]:
        """The corrected field, and what became of each item."""
        check_field(u, self.domain)
        if len(u) == 0:
            return of_no_item(*self.forward(with_an_item(u), *map(with_an_item, data)))
        weights = self.domain.weights(u.shape[2:], dtype=u.dtype, device=u.device).expand(u.shape[1:]).flatten()
        # Divided by their mean, so that the relaxation and multipliers do not depend on the resolution.
        weights = weights / weights.mean()
        a, b = _rows(self.equalities, u, data)
        g, h = _rows(self.inequalities, u, data)
        v, info = solve_qp(torch.diag(weights), -weights * u.flatten(1), A=a, b=b, G=g, h=h)
        if self.relaxation is not None and not info.converged.all():
            v = self._relaxed(v, u.flatten(1), weights, (a, b, g, h), info)
        return v.view_as(u), info

    def _relaxed(
        self, v: Tensor, u: Tensor, weights: Tensor, rows: tuple[Tensor, Tensor, Tensor, Tensor], info: QPInfo
    ) -> Tensor:
        """Replace items without a solution; one more unknown ``t >= g(v)`` per inequality, with a price."""
        index = (~info.converged).nonzero().squeeze(1)
        u, a, b, g, h = (t.detach().index_select(0, index) for t in (u, *rows))
        number, price = g.shape[1], u.new_tensor(self.relaxation)
        hessian = torch.diag(weights) + price * (a.mT @ a)
        quadratic = torch.block_diag(torch.zeros_like(hessian[0]), price * torch.eye(number, dtype=u.dtype))
        quadratic = quadratic.to(u.device) + nn.functional.pad(hessian, (0, number, 0, number))
        linear = -weights * u - price * (b.unsqueeze(-2) @ a).squeeze(-2)
        linear = nn.functional.pad(linear, (0, number))
        identity = torch.eye(number, dtype=u.dtype, device=u.device).expand(len(index), -1, -1)
        relaxed, _ = solve_qp(quadratic, linear, G=torch.cat([g, -identity], dim=2), h=h, order=0)
        return v.index_copy(0, index, relaxed[:, : u.shape[1]])


def _rows(function: AffineFunction | None, u: Tensor, data: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Matrix and right-hand side of each item: ``function(v) = matrix v - right``."""
    if function is None:
        return u.new_zeros(len(u), 0, u[0].numel()), u.new_zeros(len(u), 0)

    def flat(v: Tensor, *item: Tensor) -> Tensor:
        return function(v.view(u.shape[1:]), *item).reshape(-1)

    zero = torch.zeros_like(u[0]).flatten()
    if not data:
        matrix, value = jacrev(flat)(zero), flat(zero)
        return matrix.expand(len(u), -1, -1), -value.expand(len(u), -1)
    axes = (None, *[0] * len(data))
    return vmap(jacrev(flat), in_dims=axes)(zero, *data), -vmap(flat, in_dims=axes)(zero, *data)
