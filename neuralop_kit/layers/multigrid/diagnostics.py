"""What a multigrid operator is worth as a solver or preconditioner for its own finest system."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigvalsh_tridiagonal
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs
from torch import Tensor

from neuralop_kit.layers.multigrid.operator import MultigridOperator
from neuralop_kit.layers.multigrid.walls import cut_walls, restore_walls
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, ConvergenceError


def contraction_factor(layer: MultigridOperator, shape: Sequence[int], *, rtol: float = 1e-3) -> float:
    """Factor by which the iteration ``v <- v + B (f - A v)`` finally shrinks the error: the spectral radius of I - B A.

    ``B`` is the layer and ``A`` is :meth:`MultigridOperator.system`. Below 1 the iteration converges. Where ``A``
    annihilates constants (Neumann and periodic Laplacians) they are left out.

    Args:
        layer: from as many channels to as many.
        shape: points per axis.
        rtol: of the result.

    Raises:
        ConvergenceError: the eigenvalue was not found.

    >>> from neuralop_kit import Domain
    >>> from neuralop_kit.layers.multigrid import EllipticKernels
    >>> domain = Domain.box((1.0, 1.0), nodes="interior")
    >>> solver = MultigridOperator(1, 1, 4, domain=domain, coarsest=2, initialization=EllipticKernels())
    >>> 0.34 < contraction_factor(solver, (15, 15)) < 0.38
    True
    """
    space = _Space(layer, shape)
    operator = LinearOperator((space.size, space.size), matvec=space.error_after_iteration, dtype=np.float64)
    start = space.random().cpu().numpy().ravel()
    try:
        values = eigs(operator, k=1, which="LM", v0=start, tol=rtol, ncv=min(30, space.size), return_eigenvectors=False)
    except ArpackNoConvergence as failure:
        raise ConvergenceError(f"expected an eigenvalue, got {failure}; raise rtol") from failure
    return float(abs(values[0]))


def condition_number(layer: MultigridOperator, shape: Sequence[int], *, num_steps: int = 40) -> float:
    """Ratio of the extreme eigenvalues of ``B A``, which decides how fast conjugate gradients converge.

    By Lanczos' method from a random start; both maps must be symmetric, see :func:`symmetry_defect`. The result grows
    with ``num_steps`` towards the exact value.

    Args:
        layer: from as many channels to as many, symmetric and positive definite together with its system.
        shape: points per axis.
        num_steps: at most this many applications of ``B`` and ``A``.

    Raises:
        ArgumentError: ``B`` or ``A`` is found not to be positive definite.
    """
    space = _Space(layer, shape)
    residual = space.random()
    direction = image = space.apply(residual)
    energy = first_energy = space.dot(residual, image)
    diagonal, off_diagonal, last = [], [], 0.0
    for _ in range(min(num_steps, space.size)):
        pushed = space.system(direction)
        curvature = space.dot(direction, pushed)
        if not (energy > 0 and curvature > 0):
            raise ArgumentError(
                f"expected a positive definite layer and system, got <r, B r> = {energy:.2e}, <p, A p> = "
                f"{curvature:.2e}; look at symmetry_defect and contraction_factor"
            )
        step = energy / curvature
        diagonal.append(1 / step + last)
        residual = residual - step * pushed
        image = space.apply(residual)
        ratio, energy = space.dot(residual, image) / energy, space.dot(residual, image)
        if energy <= 1e-24 * first_energy:
            break
        off_diagonal.append(ratio**0.5 / step)
        last = ratio / step
        direction = image + ratio * direction
    values = eigvalsh_tridiagonal(np.array(diagonal), np.array(off_diagonal[: len(diagonal) - 1]))
    return float(values[-1] / values[0])


def symmetry_defect(layer: MultigridOperator, shape: Sequence[int]) -> float:
    """``|B x - B* x| / |B x|`` for a random ``x``, with the adjoint in the domain's quadrature-weighted inner product.

    Zero (1e-15) for V, W and F cycles with symmetric stencils and equal sweeps before and after on nested grids of
    points; about 0.1 for unequal ones.

    Args:
        layer: from as many channels to as many.
        shape: points per axis.
    """
    space = _Space(layer, shape)
    x = space.random()
    with torch.enable_grad():
        argument = torch.zeros_like(x).requires_grad_()
        (transposed,) = torch.autograd.grad(space.layer(argument), argument, space.weights * x)
    image = space.apply(x)
    adjoint_image = space.without_null_space(transposed / space.weights)
    return float((image - adjoint_image).norm() / image.norm())


class _Space:
    """Fields on one grid, for a copy of the layer in double precision."""

    def __init__(self, layer: MultigridOperator, shape: Sequence[int]) -> None:
        if layer.in_channels != layer.out_channels:
            raise ArgumentError(
                f"expected as many input as output channels, got {layer.in_channels} and {layer.out_channels}; "
                "only such a layer is a solver"
            )
        self.layer = copy.deepcopy(layer).double()
        device = next(self.layer.parameters()).device
        self.weights = _trapezoid_weights(layer.domain, shape).to(device)
        self.field_shape = (1, layer.in_channels, *shape)
        self.size = math.prod(self.field_shape)
        self.is_singular = False
        ones = torch.ones(self.field_shape, dtype=torch.float64, device=device)
        image, typical = self.layer.system(ones), self.layer.system(self.random())
        self.is_singular = bool(image.norm() <= 1e-10 * typical.norm())

    def random(self) -> Tensor:
        """The same random field every time, zero where the layer's results are."""
        values = torch.randn(self.field_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        domain = self.layer.domain
        values = restore_walls(cut_walls(values.to(self.weights.device), domain), domain)
        return self.without_null_space(values)

    @torch.no_grad()
    def apply(self, v: Tensor) -> Tensor:
        """``B v``, without constants where ``A`` annihilates them."""
        return self.without_null_space(self.layer(v))

    @torch.no_grad()
    def system(self, v: Tensor) -> Tensor:
        """``A v``."""
        return self.layer.system(v)

    def error_after_iteration(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
        """``(I - B A) v`` on flat arrays."""
        v = torch.from_numpy(values.reshape(self.field_shape)).to(self.weights.device)
        v = self.without_null_space(v)
        return (v - self.apply(self.system(v))).cpu().numpy().ravel()

    def without_null_space(self, v: Tensor) -> Tensor:
        """Subtract the mean of every channel where the system annihilates constants."""
        if not self.is_singular:
            return v
        dims = tuple(range(2, v.ndim))
        return v - (self.weights * v).sum(dims, keepdim=True) / self.weights.sum()

    def dot(self, u: Tensor, v: Tensor) -> float:
        """Quadrature-weighted inner product."""
        return float((self.weights * u * v).sum())


def _trapezoid_weights(domain: Domain, shape: Sequence[int]) -> Tensor:
    """Quadrature weights for functions that vanish on Dirichlet walls: there, no point stands for more than a cell."""
    product = torch.ones((), dtype=torch.float64)
    for index, (axis, n) in enumerate(zip(domain.axes, shape, strict=True)):
        line = domain.axis_weights(index, n)
        if axis.boundary == "dirichlet":
            line = torch.full_like(line, axis.spacing(n))
        product = product.unsqueeze(-1) * line
    return product
