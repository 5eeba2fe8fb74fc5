"""LinearConstraint: given moments, exactly."""

from collections.abc import Callable

from torch import Tensor, nn

from neuralop_kit.constraints.fields import check_field
from neuralop_kit.constraints.precision import in_single_at_least
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ShapeError
from neuralop_kit.solvers.optimization import project_onto_equalities
from neuralop_kit.solvers.status import SolveInfo

# Coordinates (num_dims, *shape) to weight functions (p, channels, *shape).
WeightFunctions = Callable[[Tensor], Tensor]


class LinearConstraint(nn.Module):
    """The nearest field with given linear functionals: mass, centre of mass, Fourier modes, any moments.

        v = argmin ||v - u||_L2   subject to   integral sum_c a_kc(x) v_c(x) dx = b_k,      k = 1..p
          = u + sum_k z_k a_k,    so the correction is a combination of the weight functions

    Functionals are given as functions, so one layer serves every resolution, and the correction converges with it.
    Integrals are those of the domain's quadrature and hold to rounding. Derivatives of any order.

    Args:
        functionals: from coordinates ``(num_dims, *shape)`` to ``a``, ``(p, channels, *shape)``, linearly independent.
        domain: gives coordinates and weights.

    Shape: field ``(batch, channels, *space)`` and values ``b`` ``(batch, p)`` to a field and a :class:`SolveInfo`
    whose ``residual_norm`` is the largest relative error of the ``b_k``. Dependent functionals: status ``BREAKDOWN``.
    For equations that are no integrals see :func:`project_onto_equalities`.

    >>> import torch
    >>> domain = Domain.box((1.0,))
    >>> layer = LinearConstraint(lambda x: torch.stack([torch.ones_like(x), x]), domain=domain)  # mass and moment
    >>> v, info = layer(torch.randn(4, 1, 33), torch.tensor([[1.0, 0.5]]).expand(4, 2))
    >>> info.converged.all()
    tensor(True)
    """

    def __init__(self, functionals: WeightFunctions, *, domain: Domain) -> None:
        super().__init__()
        self.functionals, self.domain = functionals, domain

    @in_single_at_least
    def forward(self, u: Tensor, values: Tensor) -> tuple[Tensor, SolveInfo]:
        """The corrected field, and what holds."""
        check_field(u, self.domain)
        shape = u.shape[2:]
        x = self.domain.coordinates(shape, dtype=u.dtype, device=u.device)
        w = self.domain.weights(shape, dtype=u.dtype, device=u.device)
        a = self.functionals(x)
        if a.shape[1:] != u.shape[1:]:
            raise ShapeError(
                f"expected weight functions of shape (p, {', '.join(map(str, u.shape[1:]))}), got {tuple(a.shape)}; "
                "give every functional a channel axis like the field's"
            )
        metric = w.expand(u.shape[1:]).flatten()
        v, info = project_onto_equalities(u.flatten(1), (w * a).flatten(1), values, weights=metric)
        return v.view_as(u), info
