"""FluxForm: what leaves one cell enters the next."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.constraints.fields import check_field
from neuralop_kit.constraints.precision import in_single_at_least
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DomainError, ShapeError
from neuralop_kit.solvers.status import SolveInfo, Status

# Newton's method on a concave or convex function converges monotonically; quadratic from the first few steps on.
_NEWTON_STEPS = 20


class FluxForm(nn.Module):
    """One time step of a conservation law, from fluxes on the faces of cells.

        s(v)_i = s(u)_i - dt sum_axes (F_(i+1/2) - F_(i-1/2)) / h

    A network predicts ``F``; whatever it predicts, the total of ``s`` changes by what passes the walls and by nothing
    else, because every face is one number that both its cells read: ``sum_i h^d (s(v)_i - s(u)_i)`` telescopes. This
    holds to rounding for any split of the faces over experts or ranks, as long as a face belongs to one of them.

    Args:
        domain: equal cells: ``cell`` nodes, or ``left`` nodes on periodic axes.
        stored: ``s``, elementwise, increasing, concave or convex: the density that is conserved, when it is not the
            field itself, for example ``FreundlichSorption().stored``. It is inverted by Newton's method at every cell.

    Shape: field ``(batch, channel, *space)`` and one tensor of fluxes per axis, like the field but along its axis with
    ``n`` faces where periodic (face ``i`` to the left of cell ``i``) and ``n + 1`` between walls, to a field and a
    :class:`SolveInfo` whose ``residual_norm`` is the relative error of the balance of the worst channel.
    Derivatives: any order without ``stored``, up to the second with it.

    Raises:
        DomainError: cells are not equal.
        ShapeError: fluxes do not fit the field.

    Source: Godunov (1959); LeVeque (2002), Finite Volume Methods, eq. 4.4.

    >>> layer = FluxForm(Domain.periodic((1.0,)))
    >>> u = torch.randn(2, 1, 64, dtype=torch.float64)
    >>> v, info = layer(u, [torch.randn(2, 1, 64, dtype=torch.float64)], dt=0.01)
    >>> (v.sum(2) - u.sum(2)).abs().max().item() < 1e-12
    True
    """

    def __init__(self, domain: Domain, *, stored: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        for axis in domain.axes:
            if axis.nodes not in ("cell", "left"):
                raise DomainError(f"expected equal cells, got {axis.nodes!r} nodes; take nodes='cell'")
        self.domain, self.stored = domain, stored

    @in_single_at_least
    def forward(self, u: Tensor, fluxes: Sequence[Tensor], *, dt: float) -> tuple[Tensor, SolveInfo]:
        """The next state, and how well the balance holds."""
        check_field(u, self.domain)
        density = u if self.stored is None else self.stored(u)
        change = -dt * self.divergence(fluxes, u.shape)
        target = density + change
        v = target if self.stored is None else _invert(self.stored, target, start=u)
        return v, self._report(v, density, fluxes, dt)

    def divergence(self, fluxes: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """``sum_axes (F_(i+1/2) - F_(i-1/2)) / h`` for a field of shape ``(batch, channel, *space)``."""
        self._check_fluxes(fluxes, shape)
        parts = []
        for index, (axis, flux) in enumerate(zip(self.domain.axes, fluxes, strict=True)):
            dim, n = 2 + index, shape[2 + index]
            right = flux.roll(-1, dim) if axis.is_periodic else flux.narrow(dim, 1, n)
            parts.append((right - flux.narrow(dim, 0, n)) / axis.spacing(n))
        return torch.stack(parts).sum(dim=0)

    def _check_fluxes(self, fluxes: Sequence[Tensor], shape: Sequence[int]) -> None:
        wanted = []
        for index, axis in enumerate(self.domain.axes):
            size = list(shape)
            size[2 + index] += not axis.is_periodic
            wanted.append(tuple(size))
        if [tuple(flux.shape) for flux in fluxes] != wanted:
            raise ShapeError(
                f"expected fluxes of shapes {wanted}, got {[tuple(flux.shape) for flux in fluxes]}; one tensor per "
                "axis, with a face more than cells between walls"
            )

    @torch.no_grad()
    def _report(self, v: Tensor, before: Tensor, fluxes: Sequence[Tensor], dt: float) -> SolveInfo:
        """``|sum V (s(v) - s(u)) + dt (out - in)| / sum V (|s(v)| + |s(u)|)``."""
        after = v if self.stored is None else self.stored(v)
        spacing = self.domain.spacing(v.shape[2:])
        volume = math.prod(spacing)
        balance = volume * (after - before).flatten(2).sum(dim=2)
        for index, (axis, flux, h) in enumerate(zip(self.domain.axes, fluxes, spacing, strict=True)):
            if not axis.is_periodic:
                through = flux.select(2 + index, -1) - flux.select(2 + index, 0)
                balance = balance + dt * (volume / h) * through.reshape(*v.shape[:2], -1).sum(dim=2)
        size = volume * (after.abs() + before.abs()).flatten(2).sum(dim=2)
        residual = (balance.abs() / torch.where(size > 0, size, 1.0)).amax(dim=1)
        tolerance = 1e3 * torch.finfo(v.dtype).eps
        status = torch.where(residual <= tolerance, Status.CONVERGED, Status.MAX_ITERATIONS)
        status = torch.where(residual.isfinite(), status, Status.INVALID_INPUT)
        return SolveInfo(status, torch.full_like(status, _NEWTON_STEPS * (self.stored is not None)), residual)


def _invert(function: Callable[[Tensor], Tensor], target: Tensor, *, start: Tensor) -> Tensor:
    """``v`` with ``function(v) = target``, element by element; derivatives up to the second."""

    def value_and_slope(v: Tensor) -> tuple[Tensor, Tensor]:
        value, slope, *_ = torch.func.jvp(function, (v,), (torch.ones_like(v),))
        return value, slope

    with torch.no_grad():
        v, goal = start.detach(), target.detach()
        for _ in range(_NEWTON_STEPS):
            value, slope = value_and_slope(v)
            v = v + (goal - value) / slope
        _, slope = value_and_slope(v)
    # The value stands; each step with a fixed slope makes one more order of derivatives exact.
    for _ in range(2):
        v = v + (target - function(v)) / slope
    return v
