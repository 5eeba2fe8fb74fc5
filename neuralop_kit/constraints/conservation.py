"""ConservationConstraint: the integral of every channel, exactly."""

import torch
from torch import Tensor, nn

from neuralop_kit.constraints.fields import check_field, check_totals
from neuralop_kit.constraints.precision import in_single_at_least
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.status import SolveInfo, Status


class ConservationConstraint(nn.Module):
    """The nearest field whose channels have given integrals: mass, momentum, energy that may not drift.

        v_c = u_c + (m_c - integral u_c dx) / |D|

    the L2 projection, at any resolution, on boxes and spheres. The integral is the domain's quadrature; it holds to
    rounding, as the formula is applied twice. For a conservation *law*, where what is conserved locally counts too, see
    :class:`FluxForm`.

    Args:
        domain: gives the weights.

    Shape: field ``(batch, channel, *space)`` and integrals ``m`` ``(batch, channel)`` to a field and a
    :class:`SolveInfo` whose ``residual_norm`` is the largest of ``|integral v_c - m_c| / (integral |v_c| + |m_c|)``.

    >>> layer = ConservationConstraint(Domain.periodic((2.0,)))
    >>> u = torch.randn(4, 3, 64, dtype=torch.float64)
    >>> v, info = layer(u, layer.integral(u + 1))
    >>> (layer.integral(v) - layer.integral(u) - 2).abs().max().item() < 1e-14
    True
    """

    def __init__(self, domain: Domain) -> None:
        super().__init__()
        self.domain = domain

    def integral(self, u: Tensor) -> Tensor:
        """Integrals of a field, ``(batch, channel)``."""
        check_field(u, self.domain)
        w = self.domain.weights(u.shape[2:], dtype=u.dtype, device=u.device)
        return (w * u).flatten(2).sum(dim=2)

    @in_single_at_least
    def forward(self, u: Tensor, totals: Tensor) -> tuple[Tensor, SolveInfo]:
        """The corrected field, and what holds."""
        check_field(u, self.domain)
        check_totals(totals, u)
        w = self.domain.weights(u.shape[2:], dtype=u.dtype, device=u.device)
        measure = w.sum()
        v = u
        for _ in range(2):
            shift = (totals - self.integral(v)) / measure
            v = v + shift.view(*shift.shape, *[1] * self.domain.num_dims)
        return v, self._report(v, totals)

    @torch.no_grad()
    def _report(self, v: Tensor, totals: Tensor) -> SolveInfo:
        size = self.integral(v.abs()) + totals.abs()
        error = (self.integral(v) - totals).abs() / torch.where(size > 0, size, 1.0)
        residual = error.amax(dim=1)
        status = torch.where(residual.isfinite(), Status.CONVERGED, Status.INVALID_INPUT)
        return SolveInfo(status, torch.zeros_like(status), residual)
