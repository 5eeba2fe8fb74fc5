"""Darcy flow: pressure in a porous medium."""

from collections.abc import Callable

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ShapeError
from neuralop_kit.solvers.pde.elliptic import BoundaryValues, EllipticScheme, FiniteVolumes
from neuralop_kit.solvers.pde.implicit import solve_network
from neuralop_kit.solvers.pde.linear_solvers import LinearSolver, MultigridCG, SparseDirect
from neuralop_kit.solvers.pde.network import sum_of_fluxes
from neuralop_kit.solvers.pde.spline_nodal import SplineNodal
from neuralop_kit.solvers.status import SolveInfo

STYLES: dict[str, Callable[[Domain], EllipticScheme]] = {"finite_volumes": FiniteVolumes, "fno": SplineNodal}


class Darcy:
    """Steady flow through a porous medium, or heat conduction: the most used elliptic test problem.

        -div(a grad u) = f   in the box,     u = g on Dirichlet walls,    a du/dn = 0 on Neumann walls

    ``a`` is the permeability, ``u`` the pressure, ``-a grad u`` the flux. Finite volumes with harmonic means on the
    faces: second order for smooth ``a``, exact for layers, and what flows out of the box is the integral of ``f`` to
    rounding. Computed in float64 whatever the dtype of the fields; the result has theirs.

    Differentiable in ``coefficient``, ``source`` and boundary values to any order, by one adjoint solve each.

    Args:
        domain: a box of one to three dimensions, Dirichlet on at least one axis; any nodes (``"cell"`` is the most
            accurate for discontinuous coefficients). The box may be any size and have different points per axis.
        linear_solver: :class:`MultigridCG`, or :class:`SparseDirect`, the default of ``style="fno"``.
        style: ``"finite_volumes"``; or ``"fno"`` for what the FNO paper's generator does (:class:`SplineNodal`; less
            accurate, needed to equal its data); or a scheme, such as ``FiniteVolumes(domain, mean=arithmetic_mean)``.

    Raises:
        DomainError: the domain has a periodic axis or no Dirichlet axis, or does not go with the style.
        ArgumentError: the style is unknown.

    Shapes: all fields ``(batch, 1, *shape)``.
    Good values: ``a`` in {3, 12}, ``f = 1`` on the unit square give ``max u`` of about 0.01.
    Source: Li et al. (2021), Fourier neural operator, section 5.2.

    >>> domain = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
    >>> u, info = Darcy(domain).solve(torch.ones(2, 1, 32, 32), torch.ones(2, 1, 32, 32))
    >>> u.shape, round(u.max().item(), 3), info.converged.all().item()
    (torch.Size([2, 1, 32, 32]), 0.074, True)
    """

    def __init__(
        self,
        domain: Domain,
        *,
        style: str | EllipticScheme = "finite_volumes",
        linear_solver: LinearSolver | None = None,
    ) -> None:
        if isinstance(style, str) and style not in STYLES:
            raise ArgumentError(f"expected a style among {list(STYLES)}, or a scheme, got {style!r}; take one of these")
        self.domain = domain
        self.scheme = STYLES[style](domain) if isinstance(style, str) else style
        self.linear_solver = linear_solver or (SparseDirect() if style == "fno" else MultigridCG())

    def solve(
        self, coefficient: Tensor, source: Tensor | float, *, boundary: BoundaryValues | None = None
    ) -> tuple[Tensor, SolveInfo]:
        """The pressure and a report per item.

        Args:
            coefficient: ``a``, positive, shape ``(batch, 1, *shape)``.
            source: ``f``, of the same shape, or one number.
            boundary: Dirichlet values as a function: coordinates ``(num_dims, *points)`` to values ``(*points)`` or
                ``(batch, *points)``; by default zero.

        Returns:
            ``u``, shape ``(batch, 1, *shape)``, and :class:`SolveInfo`. An item whose data are not finite, or whose
            coefficient is not positive, is flagged ``INVALID_INPUT`` and comes back as NaN.

        Raises:
            ShapeError: the fields do not fit the domain or each other.
            ArgumentError: the coefficient is not a floating-point tensor.
        """
        a, f = self._check(coefficient, source)
        dtype = torch.promote_types(a.dtype, f.dtype)
        a, f = a.double()[:, 0], f.double()[:, 0]
        # NaN throughout marks an item for solve_network; the scheme alone would miss bad values at known nodes, and
        # negative coefficients whose mean is positive.
        usable = (a > 0) & a.isfinite() & f.isfinite()
        usable = usable.flatten(1).all(dim=1).view(-1, *[1] * self.domain.num_dims)
        network, load = self.scheme.system(torch.where(usable, a, torch.nan), f, boundary)
        u, info = solve_network(network, load, solver=self.linear_solver)
        u = torch.where(usable, self.scheme.extend(u, boundary, tuple(a.shape[1:])), torch.nan)
        return u.unsqueeze(1).to(dtype), info

    def fluxes(self, coefficient: Tensor, u: Tensor, *, boundary: BoundaryValues | None = None) -> tuple[Tensor, ...]:
        """Discrete flux ``-a du/dx_k * area`` through every face, in the direction of its axis.

        One tensor ``(batch, 1, *faces)`` per axis, with one face more along that axis than there are unknowns; the
        first and the last are the walls. Their differences summed over the axes are ``f * volume``.
        """
        a, u = self._check(coefficient, u)
        scheme, shape = self._finite_volumes(), tuple(a.shape[2:])
        network = scheme.network(a[:, 0])
        result = network.fluxes(u[:, 0][(slice(None), *scheme.unknowns(shape))])
        if boundary is not None:
            walls = scheme.wall_fluxes(network, boundary, shape)
            result = tuple(inner + wall for inner, wall in zip(result, walls, strict=True))
        return tuple(flux.unsqueeze(1) for flux in result)

    def residual(
        self, u: Tensor, coefficient: Tensor, source: Tensor | float, *, boundary: BoundaryValues | None = None
    ) -> Tensor:
        """``-div(a grad u) - f`` of the scheme, signed, at the unknowns: ``(batch, 1, *unknowns)``.

        On vertex nodes with Dirichlet data the outermost nodes are no unknowns: the result is smaller by 2 per axis.
        """
        a, f = self._check(coefficient, source)
        fluxes = [flux[:, 0] for flux in self.fluxes(coefficient, u, boundary=boundary)]
        scheme = self._finite_volumes()
        inside = scheme.unknowns(tuple(a.shape[2:]))
        balance = sum_of_fluxes(fluxes) / scheme.volumes(a[:, 0])
        return (balance - f[:, 0][(slice(None), *inside)]).unsqueeze(1)

    def _finite_volumes(self) -> FiniteVolumes:
        """The scheme, where it balances fluxes on the grid of the fields."""
        if not isinstance(self.scheme, FiniteVolumes):
            raise ArgumentError(
                f"expected finite volumes, got {type(self.scheme).__name__}, whose balance lives on another grid; "
                "use style='finite_volumes'"
            )
        return self.scheme

    def _check(self, coefficient: Tensor, other: Tensor | float) -> tuple[Tensor, Tensor]:
        """Both fields, the second expanded when it is a number."""
        num_dims = self.domain.num_dims
        if not isinstance(coefficient, Tensor) or not coefficient.is_floating_point():
            got = coefficient.dtype if isinstance(coefficient, Tensor) else type(coefficient).__name__
            raise ArgumentError(f"expected a floating-point tensor as coefficient, got {got}; use .double()")
        if coefficient.ndim != 2 + num_dims or coefficient.shape[1] != 1:
            raise ShapeError(
                f"expected a coefficient of shape (batch, 1, *space) with {num_dims} space axes, "
                f"got {tuple(coefficient.shape)}; a single channel still needs its axis: a[:, None]"
            )
        self.domain.check_shape(coefficient.shape[2:])
        if not isinstance(other, Tensor):
            return coefficient, torch.full_like(coefficient, other)
        if other.shape != coefficient.shape:
            raise ShapeError(
                f"expected fields of one shape, got {tuple(coefficient.shape)} for the coefficient and "
                f"{tuple(other.shape)} beside it; use .expand_as(coefficient) for a field that all items share"
            )
        return coefficient, other
