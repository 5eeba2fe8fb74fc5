"""ConditionedMultigrid: a multigrid cycle for -div(a grad u) whose coefficient is an input, with learned weights."""

import torch
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_real
from neuralop_kit.layers.multigrid.network_cycle import NetworkCycle
from neuralop_kit.layers.multigrid.smoothers import Chebyshev
from neuralop_kit.solvers.conjugate_gradients import LinearMap, conjugate_gradients
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.pde.elliptic import FiniteVolumes
from neuralop_kit.solvers.status import SolveInfo


class ConditionedMultigrid(nn.Module):
    """One symmetric multigrid cycle that depends on a coefficient: a learned preconditioner, and a layer.

        v = cycle(a) f  ~  A(b)^-1 f,      A(b) v = -div(b grad v),      log b_i = sum_j W_ij log a_j + c_i

    ``A(b)`` is the finite-volume network of the learned coefficient ``b``; coarse networks and transfers follow from it
    by circuit theory, so that they know where ``b`` jumps, which no stencil with fixed weights does. Learned are ``W``
    and ``c``, and per level the factors of the sweeps and of the coarse correction. At first ``b = a``, the factors are
    Chebyshev's, and the layer is a multigrid solver; it stays linear in ``f``, symmetric, and zero on Dirichlet walls.

    Args:
        coefficient_channels: positive coefficients ``a_j`` that come in.
        channels: fields ``f_i`` that come in, and go out, each with its own ``b_i``.
        levels: levels with factors of their own, counted from the coarse end; finer ones share the last.
        domain: a box with walls, at least one axis Dirichlet.
        sweeps: before the coarse correction, and again after it.

    Shapes: ``forward(f, coefficient)`` with ``f`` ``(batch, channels, *space)`` and ``coefficient``
    ``(batch, coefficient_channels, *space)`` to ``(batch, channels, *space)``; any size.
    Good values: 2 sweeps, 5 levels. Cost: linear in the number of points.

    A coefficient that is not positive gives NaN in its own item.

    Raises:
        DomainError: the domain has a periodic axis or no Dirichlet axis.
        ArgumentError: a size is below 1.
        ShapeError: the fields do not fit.

    Source: the coarse networks are those of :class:`neuralop_kit.solvers.pde.MultigridCG`.

    >>> domain = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
    >>> layer = ConditionedMultigrid(1, 1, 4, domain=domain)
    >>> a = 1 + torch.rand(2, 1, 32, 32, dtype=torch.float64)
    >>> u, info = layer.double().solve(torch.ones_like(a), a, rtol=1e-8)
    >>> bool(info.converged.all() and (info.residual_norm < 1e-6).all())
    True
    """

    def __init__(
        self, coefficient_channels: int, channels: int, levels: int, *, domain: Domain, sweeps: int = 2
    ) -> None:
        super().__init__()
        if min(coefficient_channels, channels, levels, sweeps) < 1:
            raise ArgumentError(
                f"expected positive sizes, got {coefficient_channels} coefficients, {channels} channels, {levels} "
                f"levels and {sweeps} sweeps; correct them"
            )
        self.scheme, self.domain = FiniteVolumes(domain), domain
        self.coefficient_channels, self.channels = coefficient_channels, channels
        # The same factors, in the opposite order, serve after the correction.
        factors = torch.tensor(Chebyshev().relaxations(sweeps, domain.num_dims)).log()
        self.log_factors = nn.Parameter(factors.expand(levels, channels, sweeps).clone())
        self.log_correction = nn.Parameter(torch.zeros(levels, channels))
        self.mixing = nn.Parameter(torch.eye(channels, coefficient_channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, f: Tensor, coefficient: Tensor) -> Tensor:
        """The cycle for ``coefficient``, applied to the density ``f``."""
        self._check(f, coefficient)
        cycle = self.cycle(coefficient)
        inside = self.scheme.unknowns(tuple(f.shape[2:]))
        load = f[(slice(None), slice(None), *inside)] * self.scheme.volumes(f[:, 0])
        v = cycle(load.flatten(0, 1))
        return self.scheme.extend(v, None, tuple(f.shape[2:])).unflatten(0, f.shape[:2])

    def cycle(self, coefficient: Tensor) -> NetworkCycle:
        """The prepared cycle for ``coefficient``, on loads ``(batch * channels, *unknowns)``; the costly part, once."""
        mixed = torch.einsum("ij,bj...->bi...", self.mixing, coefficient.log())
        learned = (mixed + self.log_scale.view(-1, *[1] * self.domain.num_dims)).exp()
        network = self.scheme.network(learned.flatten(0, 1))
        batch = coefficient.shape[0]
        return NetworkCycle(
            network,
            factors=self.log_factors.exp().repeat(1, batch, 1),
            corrections=self.log_correction.exp().repeat(1, batch),
        )

    @torch.no_grad()
    def as_preconditioner(self, coefficient: Tensor) -> LinearMap:
        """The cycle as a map ``r -> M r`` for :func:`neuralop_kit.solvers.conjugate_gradients`, without gradients.

        Residuals are loads (density times volume) at the unknowns, ``(batch * channels, *unknowns)``.
        """
        cycle = self.cycle(coefficient.detach())

        @torch.no_grad()
        def apply(residual: Tensor) -> Tensor:
            return cycle(residual)

        return apply

    @torch.no_grad()
    def solve(
        self, f: Tensor, coefficient: Tensor, *, rtol: float = 1e-8, max_iterations: int = 200
    ) -> tuple[Tensor, SolveInfo]:
        """Solve ``-div(a grad u) = f`` by conjugate gradients with this preconditioner, whatever it has learned.

        Needs one channel and one coefficient. ``info.residual_norm`` is recomputed from the equation at the end: it is
        the certificate that a learned map alone cannot give.
        """
        self._check(f, coefficient)
        if (self.channels, self.coefficient_channels) != (1, 1):
            raise ArgumentError(
                f"expected one channel and one coefficient to solve for, got {self.channels} and "
                f"{self.coefficient_channels}; use as_preconditioner()"
            )
        network, load = self.scheme.system(coefficient[:, 0], f[:, 0], None)
        u, info = conjugate_gradients(
            network.apply,
            load,
            preconditioner=self.as_preconditioner(coefficient),
            rtol=rtol,
            max_iterations=max_iterations,
        )
        return self.scheme.extend(u, None, tuple(f.shape[2:])).unsqueeze(1), info

    def _check(self, f: Tensor, coefficient: Tensor) -> None:
        for name, field, channels in (("f", f, self.channels), ("coefficient", coefficient, self.coefficient_channels)):
            if field.ndim != 2 + self.domain.num_dims or field.shape[1] != channels:
                raise ShapeError(
                    f"expected {name} of shape (batch, {channels}, *space) with {self.domain.num_dims} space axes, "
                    f"got {tuple(field.shape)}; a single channel still needs its axis: {name}[:, None]"
                )
            check_real(field)
        if f.shape[0] != coefficient.shape[0] or f.shape[2:] != coefficient.shape[2:]:
            raise ShapeError(
                f"expected both fields on one grid, got {tuple(f.shape)} and {tuple(coefficient.shape)}; resample one"
            )
