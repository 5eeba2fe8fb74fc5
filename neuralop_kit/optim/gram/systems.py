"""Factorisations of a Jacobian, on the side that is smaller and at the precision that is asked for."""

import math
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from neuralop_kit.optim.gram.eigen import Eigenvectors, eigenvectors
from neuralop_kit.optim.gram.filters import Damp, Filter, Truncate, filtered
from neuralop_kit.optim.gram.jacobian import Jacobian, LowRankJacobian
from neuralop_kit.optim.gram.residual import finite_jacobian, finite_product

# What is below this multiple of the rounding error is noise.
_SAFETY = 4.0
_EPS = torch.finfo(torch.float64).eps


class System(ABC):
    """Solves for steps ``V f(S) U^T r`` with one Jacobian and any filter.

    ``floor`` is the relative size below which singular values are noise; ``rank`` counts what the last step used.
    """

    floor: float
    rank: int = 0

    def __init__(self, jacobian: Jacobian) -> None:
        self.jacobian = jacobian

    @abstractmethod
    def solve(self, r: Tensor, filter_: Filter) -> Tensor:
        """The step ``(parameters,)``, float64; zero for a Jacobian of zero."""


class QRSystem(System):
    """QR of J or of its transpose; singular values are good to the rounding of J.

    A product of J with itself loses half of the digits; here none is formed. Needs J as a matrix. A damping of at least
    ``rtol^2`` holds back what ``rtol`` would drop, and takes one more QR factorisation; other filters take an SVD of
    the triangle, four times as long.
    """

    def __init__(self, jacobian: Jacobian) -> None:
        super().__init__(jacobian)
        matrix = finite_jacobian(jacobian.dense())
        self.is_tall = jacobian.num_rows >= jacobian.num_columns
        self.reflectors = _Reflectors(matrix if self.is_tall else matrix.T)
        # J = Q T, or T Q^T.
        self.triangle = self.reflectors.triangle if self.is_tall else self.reflectors.triangle.T
        self.floor = _SAFETY * max(matrix.shape) ** 0.5 * max(jacobian.factor_eps, _EPS)
        # Of the last damping: a step and its bend are two solves with one.
        self._damped: tuple[float, _Reflectors] | None = None

    def solve(self, r: Tensor, filter_: Filter) -> Tensor:
        """See :class:`System`."""
        right = self.reflectors.transposed_times(r) if self.is_tall else r
        if isinstance(filter_, Damp) and filter_.damping >= max(filter_.rtol, self.floor) ** 2:
            step = self._least_squares(right, filter_.damping)
        else:
            u, s, vh = self._svd
            values, self.rank = filtered(filter_, s, self.floor)
            step = vh.T @ (values * (u.T @ right))
        return step if self.is_tall else self.reflectors.times(step)

    def _least_squares(self, right: Tensor, damping: float) -> Tensor:
        """``argmin |T y - right|^2 + damping s_max^2 |y|^2``, as a least squares problem of twice the rows."""
        self.rank = len(right)
        if self._damped is None or self._damped[0] != damping:
            size = (damping**0.5 * self._largest).clamp_min(1e-300)
            below = size * torch.eye(len(right), dtype=right.dtype, device=right.device)
            self._damped = damping, _Reflectors(torch.cat([self.triangle, below]))
        factor = self._damped[1]
        image = factor.transposed_times(torch.cat([right, torch.zeros_like(right)]))
        return torch.linalg.solve_triangular(factor.triangle, image.unsqueeze(1), upper=True).squeeze(1)

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vh = torch.linalg.svd(self.triangle)
        return u, s, vh

    @cached_property
    def _largest(self) -> Tensor:
        """The largest singular value, by power iterations until nothing changes; to five digits in most cases."""
        starts = _starts(self.triangle[self.triangle.norm(dim=1).argmax()])
        value, v = max((self._climb(start) for start in starts), key=lambda found: found[0].item())
        for _ in range(19):
            before, (value, v) = value, self._climb(v)
            if (value - before).abs() <= 4 * _EPS * value:
                break
        return value

    def _climb(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Ten power iterations: the estimate, and where they end."""
        for _ in range(10):
            image = self.triangle @ _unit(v)
            v = self.triangle.T @ _unit(image)
        return image.norm(), v


class _Reflectors:
    """A QR factorisation ``Q R`` of a matrix with at least as many rows as columns; Q stays a product of reflections.

    Forming it would take as long as the factorisation.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.a, self.tau = torch.geqrf(matrix)
        self.triangle = self.a[: self.a.shape[1]].triu()

    def times(self, y: Tensor) -> Tensor:
        """``Q y``."""
        full = torch.cat([y, y.new_zeros(self.a.shape[0] - len(y))])
        return torch.ormqr(self.a, self.tau, full.unsqueeze(1)).squeeze(1)

    def transposed_times(self, x: Tensor) -> Tensor:
        """``Q^T x``."""
        return torch.ormqr(self.a, self.tau, x.unsqueeze(1), transpose=True).squeeze(1)[: self.a.shape[1]]


class LowRankSystem(System):
    """An SVD of the narrow factor; singular values are good to the rounding of J."""

    def __init__(self, jacobian: LowRankJacobian) -> None:
        super().__init__(jacobian)
        self.right = jacobian.right
        self.u, self.s, self.vh = torch.linalg.svd(jacobian.left, full_matrices=False)
        self.floor = _SAFETY * max(jacobian.left.shape) ** 0.5 * max(jacobian.factor_eps, _EPS)

    def solve(self, r: Tensor, filter_: Filter) -> Tensor:
        """See :class:`System`."""
        values, self.rank = filtered(filter_, self.s, self.floor)
        return self.right @ (self.vh.T @ (values * (self.u.T @ r)))


class GramSystem(System):
    """Eigenvectors of ``J J^T`` or ``J^T J``, whichever is smaller; of damped ones without threshold a Cholesky factor.

    Singular values are good down to ``sqrt(n * eps)`` of the largest one, as J is squared. A pseudo-inverse takes
    no eigenvectors unless there are few rows, a limit on the rank, or a singular value right at the threshold.
    """

    def __init__(self, jacobian: Jacobian) -> None:
        super().__init__(jacobian)
        self.by_rows = jacobian.num_rows <= jacobian.num_columns
        self.size = min(jacobian.num_rows, jacobian.num_columns)
        self.floor = _SAFETY * max((self.size * _EPS) ** 0.5, jacobian.factor_eps)
        self._scale = 1.0
        # At once: a Jacobian that is not finite shows up here, before anything is made of it.
        self._product: Tensor | None = self._squared()
        self._eigen: Eigenvectors | None = None
        self._largest: Tensor | None = None
        # Of the last damping: a step and its bend are two solves with one.
        self._factor: tuple[float, Tensor] | None = None

    def solve(self, r: Tensor, filter_: Filter) -> Tensor:
        """See :class:`System`."""
        # J^T U f(S)/S U^T r on the side of rows, V f(S)/S V^T J^T r on that of columns.
        right = r if self.by_rows else self.jacobian.transposed_times(r)
        if isinstance(filter_, Damp) and filter_.rtol == 0.0:
            solution = self._damped(right, filter_.damping)
        else:
            solution = self._filtered(right, filter_)
        return self.jacobian.transposed_times(solution) if self.by_rows else solution

    def _filtered(self, right: Tensor, filter_: Filter) -> Tensor:
        vectors = self._eigenvectors()
        if isinstance(filter_, Truncate) and filter_.max_rank is None:
            found = vectors.inverse(right, above=max(filter_.rtol, self.floor) ** 2)
            if found is not None:
                solution, self.rank = found
                return solution * self._scale
        s = (vectors.values.clamp_min(0.0) / self._scale).sqrt().flip(0)
        values, self.rank = filtered(filter_, s, self.floor)
        factors = torch.where(values != 0, values / s, 0.0).flip(0)
        return vectors.combination(factors * vectors.coefficients(right))

    def _damped(self, right: Tensor, damping: float) -> Tensor:
        self.rank = self.size
        if self._factor is None or self._factor[0] != damping:
            self._factor = None  # before the next one: each is as large as the Gram matrix
            # Less damping than the noise could make the matrix indefinite; a matrix of zeros gets any positive one.
            shift = (max(damping, self.floor**2) * self._largest_eigenvalue()).clamp_min(1e-300)
            damped = self._gram().clone()
            damped.diagonal().add_(shift)
            self._factor = damping, torch.linalg.cholesky_ex(damped).L
        return torch.cholesky_solve(right.unsqueeze(1), self._factor[1]).squeeze(1) * self._scale

    def _gram(self) -> Tensor:
        """The matrix, scaled."""
        if self._product is None:
            self._product = self._squared()
        return self._product

    def _squared(self) -> Tensor:
        product = finite_product(self.jacobian.gram() if self.by_rows else self.jacobian.normal())
        self._scale = _ordinary_scale(product)
        return product if self._scale == 1.0 else product * self._scale

    def _eigenvectors(self) -> Eigenvectors:
        """Those of this side; eigenvalues are squares of singular values."""
        if self._eigen is None:
            # With its vectors the matrix is no longer needed, and it is among the largest things in memory.
            self._eigen, self._product = eigenvectors(self._gram()), None
        return self._eigen

    def _largest_eigenvalue(self) -> Tensor:
        """To a few per cent, by power iterations."""
        if self._largest is None:
            product = self._gram()
            v = torch.stack(_starts(product[:, product.diagonal().argmax()]), dim=1)
            for _ in range(10):
                v = product @ (v / v.norm(dim=0).clamp_min(1e-300))
            self._largest = v.norm(dim=0).max()
        return self._largest


def _starts(largest: Tensor) -> tuple[Tensor, Tensor]:
    """Where power iterations start: at the largest row, and at another vector, as that may miss what is larger.

    So it does where blocks of residuals have no weight in common. Neither finds more than there is.
    """
    return largest, torch.arange(1, len(largest) + 1, dtype=largest.dtype, device=largest.device).cos()


def _unit(v: Tensor) -> Tensor:
    """Of length one, or zero."""
    return v / v.norm().clamp_min(1e-300)


def _ordinary_scale(product: Tensor) -> float:
    """A power of four that brings a Gram matrix to size one where squares of its entries might overflow or vanish."""
    _, exponent = math.frexp(product.diagonal().max().item())
    return 4.0 ** -max(exponent // 2, -500) if abs(exponent) > 256 else 1.0


def factorize(jacobian: Jacobian, rtol: float) -> System:
    """The cheapest system whose singular values are good down to ``rtol``, or else the most precise one.

    A Gram matrix is cheapest. Where it is too coarse, a QR factorisation is taken, if J was computed precisely enough
    for that to help and fits the memory budget as a matrix.

    Raises:
        NonFiniteError: a derivative is not finite.
    """
    if isinstance(jacobian, LowRankJacobian):
        return LowRankSystem(jacobian)
    gram_floor = _SAFETY * (min(jacobian.num_rows, jacobian.num_columns) * _EPS) ** 0.5
    is_too_coarse = 0.0 < rtol < gram_floor
    helps = _SAFETY * jacobian.factor_eps < gram_floor and jacobian.dense_fits
    return QRSystem(jacobian) if is_too_coarse and helps else GramSystem(jacobian)
