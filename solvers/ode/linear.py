"""Linear systems of stiff methods: ``(1 - a J) x = b`` with ``J`` the field's Jacobian, dense or matrix-free."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuralop_kit.solvers.flexible_gmres import flexible_gmres
from neuralop_kit.solvers.ode.checks import refuse_transforms
from neuralop_kit.solvers.ode.control import PerSample
from neuralop_kit.solvers.ode.method import Field

LinearMap = Callable[[Tensor], Tensor]

# A residual above this share of the right-hand side is no solution.
FAR = 1e-3


class LinearSolver(ABC):
    """Solves ``(1 - a J) x = b`` sample by sample."""

    @abstractmethod
    def prepare(self, field: Field, t: Tensor, y: Tensor, scale: Tensor) -> LinearMap:
        """``b -> x`` with the Jacobian at ``(t, y)`` and ``a = scale``, which broadcasts against ``y``."""


class DenseLU(LinearSolver):
    """The Jacobian as a matrix, one forward derivative per component, and one LU factorization per sample.

    Cost per step: ``n`` derivatives of the field, ``n^3`` for the factors; memory ``batch * n^2``. Good for ``n`` up to
    a few hundred.
    """

    def prepare(self, field: Field, t: Tensor, y: Tensor, scale: Tensor) -> LinearMap:
        """See the base class."""
        jacobian = jacobian_of(field, t, y)
        size = jacobian.shape[-1]
        # One number per sample, or one for all.
        scale = scale.reshape(-1, 1, 1)
        matrix = torch.eye(size, dtype=y.dtype, device=y.device) - scale * jacobian
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)

        def solve(b: Tensor) -> Tensor:
            return torch.linalg.lu_solve(factors, pivots, b.reshape(len(b), size, 1)).view_as(b)

        return solve


class Krylov(LinearSolver):
    """Restarted GMRES on products ``J v``, which forward derivatives give without a matrix: for fields on grids.

    A sample whose system is far from solved, with a relative residual above 1e-3 after all iterations, gets NaN: its
    step is rejected, and a shorter one has an easier system. Gradients are those of the exact solution, by one solve
    with the transposed operator. In forward mode take :class:`DenseLU`.

    Args:
        rtol: relative residual, not below ten times the rounding of the state; what is left of it adds to the error of
            a step.
        restart: directions kept.
        max_iterations: products per system.

    Raises:
        ArgumentError: a transform of ``torch.func`` looks on.

    >>> from neuralop_kit.solvers.ode import Rosenbrock23, odeint
    >>> y0, t = torch.linspace(0, 3, 30, dtype=torch.float64)[None].sin(), torch.tensor([0.0, 0.1])
    >>> heat = lambda t, y: 1e3 * torch.nn.functional.pad(y.diff(n=2), (1, 1))
    >>> int(odeint(heat, y0, t, method=Rosenbrock23(linear=Krylov()), rtol=1e-3, atol=1e-3).stats.status)
    0
    """

    def __init__(self, *, rtol: float = 1e-8, restart: int = 30, max_iterations: int = 300) -> None:
        self.rtol, self.restart, self.max_iterations = rtol, restart, max_iterations

    def prepare(self, field: Field, t: Tensor, y: Tensor, scale: Tensor) -> LinearMap:
        """See the base class."""
        refuse_transforms("Krylov()")

        def operator(x: Tensor) -> Tensor:
            return x - scale * torch.func.jvp(lambda u: field(t, u), (y,), (x,))[1]

        def transposed(x: Tensor) -> Tensor:
            with torch.enable_grad():
                u = y.detach().requires_grad_()
                (pulled,) = torch.autograd.grad(field(t.detach(), u), u, scale.detach() * x)
            return x - pulled

        def solve(b: Tensor) -> Tensor:
            with torch.no_grad():
                x, is_near = self._gmres(operator, b)
                x = torch.where(PerSample().spread(is_near, x.ndim), x, torch.nan)
            if not torch.is_grad_enabled():
                return x
            return _Attached.apply(x, b - operator(x), lambda g: self._gmres(transposed, g)[0])

        return solve

    def _gmres(self, operator: LinearMap, b: Tensor) -> tuple[Tensor, Tensor]:
        """A solution, and which samples have one."""
        rtol = max(self.rtol, 10 * torch.finfo(b.dtype).eps)
        x, info = flexible_gmres(operator, b, rtol=rtol, restart=self.restart, max_iterations=self.max_iterations)
        return x, info.residual_norm <= max(rtol, FAR)


class _Attached(torch.autograd.Function):
    """A solution ``x`` with the derivative of ``A^-1 r``, where the residual ``r`` is about zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, solve_transposed: LinearMap) -> Tensor:
        ctx.solve_transposed = solve_transposed
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_x: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.solve_transposed(by_x), None


def jacobian_of(field: Field, t: Tensor, y: Tensor) -> Tensor:
    """``df/dy`` of every sample, shape ``(batch, n, n)``; samples must not depend on each other."""
    size = y[0].numel()
    directions = torch.eye(size, dtype=y.dtype, device=y.device).view(size, 1, *y.shape[1:]).expand(size, *y.shape)
    columns = torch.func.vmap(lambda v: torch.func.jvp(lambda u: field(t, u), (y,), (v,))[1])(directions)
    return columns.reshape(size, len(y), size).permute(1, 2, 0)


def dominant_pair(field: Field, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """``J J v`` and ``J v`` with a rough fixed ``v``: the quotient of their norms is about the largest |eigenvalue|.

    Two stages of a step will not do for a stiff method: both lie on the slow manifold, where the field looks harmless.
    """
    index = torch.arange(y[0].numel(), dtype=y.dtype, device=y.device)
    v = torch.cos(index * index).view(y.shape[1:]).expand_as(y)

    def product(x: Tensor) -> Tensor:
        return torch.func.jvp(lambda u: field(t, u), (y,), (x,))[1]

    once = product(v)
    return product(once), once


def time_derivative(field: Field, t: Tensor, y: Tensor) -> Tensor:
    """``df/dt``."""
    return torch.func.jvp(lambda s: field(s, y), (t,), (torch.ones_like(t),))[1]
