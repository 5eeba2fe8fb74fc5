"""SimplexConstraint: positivity and mass together, exactly."""

import math

from torch import Tensor, nn

from neuralop_kit.constraints.fields import check_field, check_totals, worst_of_channels
from neuralop_kit.constraints.precision import in_single_at_least
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.optimization import project_onto_budget
from neuralop_kit.solvers.status import SolveInfo


class SimplexConstraint(nn.Module):
    """The nearest field between two bounds with a given integral: concentrations, densities, saturations.

        v_c = argmin ||v - u_c||_L2   subject to   lower <= v <= upper,   integral v dx = m_c
            = clip(u_c + s_c, lower, upper)

    Bounds hold exactly, the integral to rounding; derivatives are exact, of any order. Clipping first and rescaling
    afterwards would satisfy the same constraints, further away from ``u`` and not idempotently.

    Args:
        domain: gives the weights.
        lower, upper: bounds in the unit of the field, ``lower < upper``; infinite where there is none.

    Shape: field ``(batch, channel, *space)`` and integrals ``m`` ``(batch, channel)`` to a field and a
    :class:`SolveInfo`, of the worst channel of each item. A total that the bounds cannot meet: status ``INFEASIBLE``.

    Raises:
        ArgumentError: ``lower`` is not below ``upper``.

    Source: :func:`neuralop_kit.solvers.optimization.project_onto_budget`.

    >>> import torch
    >>> layer = SimplexConstraint(Domain.periodic((1.0, 1.0)))
    >>> v, info = layer(torch.randn(2, 1, 16, 16), torch.full((2, 1), 0.3))
    >>> bool(v.min() >= 0), v.mean(dim=(1, 2, 3))
    (True, tensor([0.3000, 0.3000]))
    """

    def __init__(self, domain: Domain, *, lower: float = 0.0, upper: float = math.inf) -> None:
        super().__init__()
        if not lower < upper:
            raise ArgumentError(f"expected lower < upper, got {lower} and {upper}; exchange or correct them")
        self.domain, self.lower, self.upper = domain, lower, upper

    @in_single_at_least
    def forward(self, u: Tensor, totals: Tensor) -> tuple[Tensor, SolveInfo]:
        """The corrected field, and what holds."""
        check_field(u, self.domain)
        check_totals(totals, u)
        w = self.domain.weights(u.shape[2:], dtype=u.dtype, device=u.device)
        v, info = project_onto_budget(
            u.flatten(2).flatten(0, 1), totals.flatten(), weights=w.flatten(), lower=self.lower, upper=self.upper
        )
        return v.view_as(u), worst_of_channels(info, u.shape[:2])
