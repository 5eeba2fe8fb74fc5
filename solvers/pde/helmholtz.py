"""Helmholtz: waves of one frequency in a medium of variable speed."""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError
from neuralop_kit.solvers.pde.absorbing import Reflecting, WaveBoundary
from neuralop_kit.solvers.pde.bilinear_elements import BilinearElements
from neuralop_kit.solvers.pde.nine_point import CENTRE, OFFSETS, BlockFactors, NinePointMatrix
from neuralop_kit.solvers.pde.symmetric_solve import Factors, SymmetricSolve
from neuralop_kit.solvers.status import SolveInfo, Status

# Coordinates (2, *points) to values (*points) or (batch, *points).
PointFunction = Callable[[Tensor], Tensor]
# Coordinates (2, *points) and the outward normal (2,) to values (*points) or (batch, *points).
WallFlux = Callable[[Tensor, Tensor], Tensor]
Factorize = Callable[[NinePointMatrix], Factors]

POINTS_PER_WAVELENGTH = 10
# Relative residual above which a solution is not believed.
RESIDUAL_TOLERANCE = 1e-9


class Helmholtz:
    """Waves of one frequency where the speed of sound varies: indefinite, oscillating, hard for iterations.

        -Lap u - (omega/c)^2 u = f   in a rectangle,     du/dn = g on its walls, or an absorbing condition

    ``c`` is the speed, ``omega`` the angular frequency, ``omega/c`` the wavenumber. Bilinear finite elements with 3 x 3
    Gauss points per element: second order, but with a phase error of ``(k h)^2/24`` per radian, so that the error at
    fixed points per wavelength grows with the number of wavelengths (pollution). Solved directly, all items at once.
    Computed in float64 whatever the dtype of the fields. Differentiable in speed, source and flux to any order.

    Args:
        domain: a rectangle, Neumann, vertex nodes.
        omega: in radians per time, positive.
        boundary: :class:`Reflecting` (default), :class:`Impedance` or :class:`AbsorbingLayer`.
        factorize: :class:`BlockFactors` (default: dense blocks, any device), or :class:`SparseFactors`, scipy's LU.

    Warns:
        UserWarning: fewer than ten points per wavelength somewhere.

    Shapes: speed and source ``(batch, 1, *shape)``; solution ``(batch, 1, *shape)`` with reflecting walls, else
    ``(batch, 2, *shape)`` with real and imaginary part, for the time dependence ``exp(-i omega t)``.
    Good values: :meth:`mgno` on 101 x 101 nodes, 12 points per wavelength, 8 wavelengths across.
    Source: de Hoop et al. (2022), arXiv 2203.13181; Ihlenburg and Babuska (1995) for the phase error.

    >>> from neuralop_kit.solvers.pde import HuangSpeed, top_source
    >>> speed = HuangSpeed.draw(2, generator=torch.Generator().manual_seed(0))
    >>> u, info = Helmholtz.mgno().solve_function(speed, (101, 101), flux=top_source)
    >>> u.shape, info.converged.all().item()
    (torch.Size([2, 1, 101, 101]), True)
    """

    def __init__(
        self,
        domain: Domain,
        *,
        omega: float,
        boundary: WaveBoundary | None = None,
        factorize: Factorize = BlockFactors,
    ) -> None:
        if domain.num_dims != 2 or any((a.boundary, a.nodes) != ("neumann", "vertex") for a in domain.axes):
            raise DomainError(
                f"expected two Neumann axes with vertex nodes, got {domain}; use Domain.box((1.0, 1.0), "
                "boundary='neumann')"
            )
        if not (math.isfinite(omega) and omega > 0):
            raise ArgumentError(f"expected omega > 0, got {omega}; give the angular frequency")
        self.domain = domain
        self.omega = float(omega)
        self.boundary = boundary or Reflecting()
        self.factorize = factorize

    @classmethod
    def mgno(cls) -> "Helmholtz":
        """MgNO's and de Hoop et al.'s: omega 1000, hard walls; on 101 x 101 nodes with ``flux=top_source``.

        Their truth is the solution of that discrete system, 59 % away from the solution of the differential equation
        (at c = 20). Never judge super-resolution by solving on another grid.
        """
        return cls(Domain.box((1.0, 1.0), boundary="neumann"), omega=1000.0)

    @property
    def num_channels(self) -> int:
        """1 where solutions are real, 2 where they are complex."""
        return 2 if self.boundary.absorbs else 1

    def solve(
        self, speed: Tensor, source: Tensor | float = 0.0, *, flux: WallFlux | None = None
    ) -> tuple[Tensor, SolveInfo]:
        """The wave field and a report per item.

        Args:
            speed: ``c`` at the nodes, positive, bilinear in between.
            source: ``f`` at the nodes, of the same shape, or one number; real.
            flux: ``g`` as a function of the coordinates ``(2, *points)`` of wall nodes and of the outward normal
                ``(2,)``; linear in between; by default zero. May be complex where the boundary absorbs.

        Returns:
            ``u`` and :class:`SolveInfo`. An item whose data are not finite, or whose speed is not positive, is flagged
            ``INVALID_INPUT`` and comes back as NaN.
        """
        self._check(speed, source)
        shape, c = (speed.shape[2], speed.shape[3]), speed[:, 0].double()
        usable = ((c > 0) & c.isfinite()).flatten(1).all(dim=1)
        c = torch.where(usable[:, None, None], c, 1.0)
        elements = BilinearElements(self.domain, shape, speed.device)
        load = source[:, 0].double() if isinstance(source, Tensor) else torch.full_like(c, source)
        u, info = self._solve(elements, elements.interpolate(c), c, load, flux, usable)
        return u.to(torch.promote_types(speed.dtype, source.dtype if isinstance(source, Tensor) else speed.dtype)), info

    def solve_function(
        self, speed: PointFunction, shape: tuple[int, int], *, source: float = 0.0, flux: WallFlux | None = None
    ) -> tuple[Tensor, SolveInfo]:
        """The same with a speed that is known everywhere and evaluated at the Gauss points, not interpolated; float64.

        Args:
            speed: coordinates ``(2, *points)`` to ``(batch, *points)``, float64.
            shape: nodes per axis.
            source, flux: as in :meth:`solve`.
        """
        elements = BilinearElements(self.domain, shape)
        nodal = speed(self.domain.coordinates(shape, dtype=torch.float64))
        usable = ((nodal > 0) & nodal.isfinite()).flatten(1).all(dim=1)
        nodal = torch.where(usable[:, None, None], nodal, 1.0)
        at_points = torch.where(usable[:, None, None], speed(elements.quadrature_points()), 1.0)
        return self._solve(elements, at_points, nodal, torch.full_like(nodal, source), flux, usable)

    def _solve(
        self,
        elements: BilinearElements,
        speed: Tensor,
        nodal_speed: Tensor,
        source: Tensor,
        flux: WallFlux | None,
        usable: Tensor,
    ) -> tuple[Tensor, SolveInfo]:
        """From the speed at Gauss points and at nodes."""
        self._warn_if_coarse(elements, nodal_speed, usable)
        matrix = self._matrix(elements, speed, nodal_speed)
        load = elements.load(source).to(matrix.entries.dtype)
        if flux is not None:
            load = load + self._flux_load(elements, flux, matrix.entries.dtype)
        usable = usable & load.isfinite().flatten(1).all(dim=1)
        entries, load = _identity_where(~usable, matrix.entries), torch.where(usable[:, None, None], load, 0.0)
        factors = self.factorize(NinePointMatrix(entries.detach()))
        u = SymmetricSolve.apply(factors, entries, load)
        info = _report(NinePointMatrix(entries.detach()), load.detach(), u.detach(), usable)
        u = torch.view_as_real(u).movedim(-1, 1) if u.is_complex() else u.unsqueeze(1)
        return torch.where(usable[:, None, None, None], u, torch.nan), info

    def _matrix(self, elements: BilinearElements, speed: Tensor, nodal_speed: Tensor) -> NinePointMatrix:
        """Stiffness, minus mass times squared wavenumber, plus what the walls add."""
        x, y = elements.quadrature_lines()
        stretch_x = self.boundary.stretching(self.domain.axes[0], x)[:, None]
        stretch_y = self.boundary.stretching(self.domain.axes[1], y)
        along_x, along_y = (stretch_y / stretch_x).unsqueeze(0), (stretch_x / stretch_y).unsqueeze(0)
        entries = elements.matrix(along_x, along_y, -((self.omega / speed) ** 2) * stretch_x * stretch_y).entries
        coefficient = self.boundary.wall_coefficient()
        if coefficient:
            entries = entries + coefficient * self._wall_entries(elements, self.omega / nodal_speed)
        return NinePointMatrix(entries)

    def _wall_entries(self, elements: BilinearElements, wavenumber: Tensor) -> Tensor:
        """``integral of k u v`` over all walls as entries of a nine-point matrix."""
        total = wavenumber.new_zeros(len(wavenumber), len(OFFSETS), *elements.shape)
        for axis in (0, 1):
            along = 1 - axis
            steps = [(0, q) if axis == 0 else (q, 0) for q in (-1, 0, 1)]
            where = torch.tensor([OFFSETS.index(step) for step in steps], device=total.device)
            for end in (0, elements.shape[axis] - 1):
                bands = elements.edge_matrix(wavenumber.select(1 + axis, end), along)
                wall = torch.zeros_like(total.select(2 + axis, end)).index_add(1, where, bands)
                margins = [end, elements.shape[axis] - 1 - end]
                padding = [0, 0, *margins] if axis == 0 else margins
                total = total + torch.nn.functional.pad(wall.unsqueeze(2 + axis), padding)
        return total

    def _flux_load(self, elements: BilinearElements, flux: WallFlux, dtype: torch.dtype) -> Tensor:
        """``integral of g v`` over all walls, ``(batch or 1, n_x, n_y)``."""
        total = torch.zeros((), dtype=dtype, device=elements.device)
        points = self.domain.coordinates(elements.shape, dtype=torch.float64, device=elements.device)
        for axis in (0, 1):
            for end, sign in ((0, -1.0), (elements.shape[axis] - 1, 1.0)):
                normal = torch.zeros(2, dtype=torch.float64, device=elements.device)
                normal[axis] = sign
                values = flux(points.select(1 + axis, end), normal).to(dtype)
                wall = elements.edge_load(values.reshape(-1, values.shape[-1]), 1 - axis).unsqueeze(1 + axis)
                margins = [end, elements.shape[axis] - 1 - end]
                total = total + torch.nn.functional.pad(wall, [0, 0, *margins] if axis == 0 else margins)
        return total

    def _warn_if_coarse(self, elements: BilinearElements, speed: Tensor, usable: Tensor) -> None:
        if not usable.any():
            return
        shortest = 2 * math.pi * speed[usable].min().item() / self.omega
        density = shortest / max(self.domain.spacing(elements.shape))
        if density < POINTS_PER_WAVELENGTH:
            warnings.warn(
                f"expected at least {POINTS_PER_WAVELENGTH} points per wavelength, got {density:.1f}; refine the grid, "
                "or lower omega",
                stacklevel=4,
            )

    def _check(self, speed: Tensor, source: Tensor | float) -> None:
        if not isinstance(speed, Tensor) or not speed.is_floating_point():
            raise ArgumentError("expected a floating-point tensor as speed, got something else; use .double()")
        if speed.ndim != 4 or speed.shape[1] != 1:
            raise ShapeError(
                f"expected a speed of shape (batch, 1, n_x, n_y), got {tuple(speed.shape)}; "
                "a single channel still needs its axis: c[:, None]"
            )
        self.domain.check_shape(speed.shape[2:])
        if isinstance(source, Tensor) and source.shape != speed.shape:
            raise ShapeError(
                f"expected a source of the shape of the speed, {tuple(speed.shape)}, got {tuple(source.shape)}; "
                "use .expand_as(speed) for a field that all items share"
            )


def _identity_where(mask: Tensor, entries: Tensor) -> Tensor:
    """Entries with the identity for the items of ``mask``."""
    identity = torch.zeros_like(entries[:1])
    identity[:, CENTRE] = 1.0
    return torch.where(mask[:, None, None, None], identity, entries)


def _report(matrix: NinePointMatrix, load: Tensor, u: Tensor, usable: Tensor) -> SolveInfo:
    """Residual norms and what they say."""
    size = torch.linalg.vector_norm(load.flatten(1), dim=1)
    rest = torch.linalg.vector_norm((load - matrix.apply(u)).flatten(1), dim=1)
    relative = torch.where(size > 0, rest / size, rest)
    zero = torch.zeros(len(u), dtype=torch.int64, device=u.device)
    status = torch.where(relative <= RESIDUAL_TOLERANCE, zero, int(Status.BREAKDOWN))
    status = torch.where(usable, status, int(Status.INVALID_INPUT))
    return SolveInfo(status, zero, torch.where(usable, relative, torch.nan))
