"""BoundaryLifting: values on the walls, exactly."""

import torch
from torch import Tensor, nn

from neuralop_kit.constraints.fields import check_field
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DomainError, ShapeError
from neuralop_kit.solvers.status import SolveInfo, Status


class BoundaryLifting(nn.Module):
    """Gives a field the values of another one on the walls, and blends the difference into the interior.

        v = R u + (g - R g),      R = prod_i (1 - P_i),

    where ``P_i`` interpolates linearly between the two ends of axis ``i``, or continues the value of one end
    constantly. ``R`` takes out a field's wall values (zero there, bit for bit) and ``g - R g`` is the transfinite
    interpolation of those of ``g``: only wall values of ``g`` matter. So ``v = g`` on every chosen wall *exactly*, for
    any ``u``; a field that has the values already stays as it is. Linear in ``u``: apply it with ``g = 0`` to basis
    functions and they vanish on the walls. Wall values that meet at corners must agree there.

    Args:
        domain: box whose chosen axes carry ``vertex`` nodes, so that walls are points.
        sides: per axis, which ends hold: ``"both"``, ``"start"`` (an initial condition on a time axis), ``"stop"`` or
            ``"none"``; by default both ends of every Dirichlet axis.

    Shape: ``u`` ``(batch, channel, *space)`` and ``g``, which broadcasts to it, to a field and a :class:`SolveInfo`
    whose ``residual_norm`` is the largest ``|v - g|`` on the walls: zero.

    Raises:
        DomainError: a chosen axis is periodic or has no nodes on its walls, or nothing is chosen.

    Source: Gordon and Hall (1973), Numer. Math. 21; Lagaris et al. (1998) for networks.

    >>> layer = BoundaryLifting(Domain.box((1.0,)))
    >>> layer(torch.zeros(1, 1, 5), torch.tensor([2.0, 0.0, 0.0, 0.0, 4.0]))[0]
    tensor([[[2.0000, 2.5000, 3.0000, 3.5000, 4.0000]]])
    """

    def __init__(self, domain: Domain, *, sides: tuple[str, ...] | None = None) -> None:
        super().__init__()
        chosen = sides or tuple("both" if axis.boundary == "dirichlet" else "none" for axis in domain.axes)
        if len(chosen) != domain.num_dims or not set(chosen) <= {"both", "start", "stop", "none"}:
            raise DomainError(
                f"expected one of 'both', 'start', 'stop', 'none' for each of {domain.num_dims} axes, got {chosen}; "
                "correct them"
            )
        for axis, side in zip(domain.axes, chosen, strict=True):
            if side != "none" and axis.nodes != "vertex":
                raise DomainError(
                    f"expected vertex nodes on an axis with walls that hold values, got {axis.nodes!r}; "
                    "take nodes='vertex'"
                )
        if set(chosen) == {"none"}:
            raise DomainError(f"expected at least one wall that holds values, got none in {domain}; name its sides")
        self.domain, self.sides = domain, chosen

    def forward(self, u: Tensor, boundary: Tensor) -> tuple[Tensor, SolveInfo]:
        """The lifted field, and its error on the walls."""
        check_field(u, self.domain)
        try:
            g = boundary.expand(u.shape)
        except RuntimeError as error:
            raise ShapeError(
                f"expected boundary values that broadcast to {tuple(u.shape)}, got {tuple(boundary.shape)}; "
                "give a field, of which only the walls matter"
            ) from error
        v = self.remove(u) + (g - self.remove(g))
        return v, self._report(v, g)

    def remove(self, u: Tensor) -> Tensor:
        """``R u``: zero on the chosen walls."""
        for index, side in enumerate(self.sides):
            dim = 2 + index
            first, last = u.narrow(dim, 0, 1), u.narrow(dim, u.shape[dim] - 1, 1)
            if side == "both":
                s = torch.linspace(0, 1, u.shape[dim], dtype=u.dtype, device=u.device)
                s = s.view(-1, *[1] * (self.domain.num_dims - 1 - index))
                u = u - ((1 - s) * first + s * last)
            elif side != "none":
                u = u - (first if side == "start" else last)
        return u

    @torch.no_grad()
    def _report(self, v: Tensor, g: Tensor) -> SolveInfo:
        error = (v - g).abs()
        largest = torch.zeros_like(error[:, 0].flatten(1)[:, 0])
        for index, side in enumerate(self.sides):
            ends = {"both": (0, -1), "start": (0,), "stop": (-1,), "none": ()}[side]
            for end in ends:
                largest = torch.maximum(largest, error.select(2 + index, end).flatten(1).amax(dim=1))
        status = torch.where(largest.isfinite(), Status.CONVERGED, Status.INVALID_INPUT)
        return SolveInfo(status, torch.zeros_like(status), largest)
