"""Flexible GMRES for a batch of independent linear systems, with a preconditioner that may change at every step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.conjugate_gradients import LinearMap
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.status import SolveInfo, Status


def flexible_gmres(
    operator: LinearMap,
    rhs: Tensor,
    *,
    preconditioner: LinearMap | None = None,
    rtol: float = 1e-8,
    restart: int = 30,
    max_iterations: int = 300,
) -> tuple[Tensor, SolveInfo]:
    """Solve ``A x = b`` item by item for any invertible ``A``; axis 0 is the batch, all others belong to the unknown.

        x = x_0 + Z y,      y = argmin || b - A (x_0 + Z y) ||,      z_j = M_j(v_j),   v_j orthonormal

    ``Z`` is kept beside ``V``, so ``M`` may be anything: a nonsymmetric cycle, a network, an inner iteration. What is
    minimised is the true residual, not a preconditioned one. Stops an item when ``||b - A x|| <= rtol ||b||``; an item
    that has stopped is frozen, so a batch gives what its items give alone.

    Args:
        operator: ``x -> A x``, linear in every item.
        rhs: ``b``, shape ``(batch, *unknown)``.
        preconditioner: ``r -> M r``, near the inverse of ``A``; by default the identity.
        rtol: relative tolerance for the residual, positive.
        restart: directions kept, at least 1; memory is ``2 * restart`` fields. Good value: 30.
        max_iterations: at least 1.

    Returns:
        ``x`` and a :class:`SolveInfo`; ``BREAKDOWN`` where the residual became NaN or infinite.

    Raises:
        ArgumentError: ``rtol``, ``restart`` or ``max_iterations`` is out of range.

    Source: Saad (1993), SIAM J. Sci. Comput. 14, algorithm 2.2; Gram-Schmidt twice instead of modified Gram-Schmidt.

    >>> matrix = torch.tensor([[2.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    >>> x, info = flexible_gmres(lambda v: v @ matrix.mT, torch.tensor([[3.0, 0.0]], dtype=torch.float64))
    >>> [round(value, 10) for value in x.flatten().tolist()], info.iterations
    ([1.0, 1.0], tensor([2]))
    """
    if not rtol > 0 or min(restart, max_iterations) < 1:
        raise ArgumentError(
            f"expected rtol > 0, restart >= 1 and max_iterations >= 1, got {rtol}, {restart} and {max_iterations}; "
            "correct them"
        )
    flat = rhs.flatten(1)
    size = torch.linalg.vector_norm(flat, dim=1)

    def residual_of(x: Tensor) -> Tensor:
        return flat - operator(x.view_as(rhs)).flatten(1)

    x, spent = torch.zeros_like(flat), 0
    iterations = torch.zeros(len(rhs), dtype=torch.int64, device=rhs.device)
    residual = flat
    while True:
        norm = torch.linalg.vector_norm(residual, dim=1)
        # Comparisons with NaN are false, so a broken item is not active.
        active = norm > rtol * size
        if spent >= max_iterations or not active.any():
            break
        space = _Space(residual, norm, active, target=rtol * size)
        for _ in range(min(restart, max_iterations - spent)):
            direction = space.newest
            corrected = direction if preconditioner is None else preconditioner(direction.view_as(rhs)).flatten(1)
            iterations += space.active
            spent += 1
            space.add(corrected, operator(corrected.view_as(rhs)).flatten(1))
            if not space.active.any():
                break
        x = torch.where(active[:, None], x + space.correction(), x)
        residual = residual_of(x)
    norm = torch.linalg.vector_norm(residual, dim=1)
    status = torch.where(norm <= rtol * size, int(Status.CONVERGED), int(Status.MAX_ITERATIONS))
    status = torch.where(norm.isfinite(), status, int(Status.BREAKDOWN))
    return x.view_as(rhs), SolveInfo(status, iterations, torch.where(size > 0, norm / size, norm))


@dataclass
class _Space:
    """A growing Krylov space: orthonormal ``V``, directions ``Z``, and ``A Z = V H``; items that are done stay put."""

    residual: Tensor  # (batch, n)
    norm: Tensor  # (batch,)
    active: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        self.basis = [torch.where(self.active[:, None], self.residual / self.norm[:, None], 0.0)]
        self.directions: list[Tensor] = []
        self.columns: list[Tensor] = []
        self.coefficients = torch.zeros(len(self.norm), 0, dtype=self.norm.dtype, device=self.norm.device)

    @property
    def newest(self) -> Tensor:
        """The direction to go on with, zero where there is nothing to do."""
        return self.basis[-1]

    def add(self, direction: Tensor, image: Tensor) -> None:
        """One column: orthogonalise ``A z`` against the basis, and solve the small least-squares problem again."""
        basis = torch.stack(self.basis, dim=2)
        column = (basis.mT @ image[:, :, None]).squeeze(2)
        image = image - (basis @ column[:, :, None]).squeeze(2)
        # What rounding left of the basis is removed once more, or the residual stalls above the tolerance.
        again = (basis.mT @ image[:, :, None]).squeeze(2)
        image = image - (basis @ again[:, :, None]).squeeze(2)
        length = torch.linalg.vector_norm(image, dim=1)
        self.columns.append(torch.cat([column + again, length[:, None]], dim=1))
        self.directions.append(direction)
        solution, rest = self._least_squares()
        # An item that stops keeps the coefficients of its last step.
        padded = torch.nn.functional.pad(self.coefficients, (0, 1))
        usable = self.active & rest.isfinite()
        self.coefficients = torch.where(usable[:, None], solution, padded)
        self.active = usable & (rest > self.target) & (length > 0)
        self.basis.append(torch.where(self.active[:, None], image / length[:, None], 0.0))

    def correction(self) -> Tensor:
        """``Z y``."""
        return (torch.stack(self.directions, dim=2) @ self.coefficients[:, :, None]).squeeze(2)

    def _least_squares(self) -> tuple[Tensor, Tensor]:
        """``y`` that minimises ``|| beta e_1 - H y ||``, and that minimum."""
        count = len(self.columns)
        hessenberg = torch.zeros(len(self.norm), count + 1, count, dtype=self.norm.dtype, device=self.norm.device)
        for j, column in enumerate(self.columns):
            hessenberg[:, : j + 2, j] = column
        # Items that are done no longer grow; any invertible triangle keeps the factorization defined.
        unit = torch.eye(count + 1, count, dtype=hessenberg.dtype, device=hessenberg.device)
        hessenberg = torch.where(self.active[:, None, None] & hessenberg.isfinite(), hessenberg, unit)
        q, r = torch.linalg.qr(hessenberg, mode="complete")
        load = self.norm[:, None] * q[:, 0]
        solution = torch.linalg.solve_triangular(r[:, :count], load[:, :count, None], upper=True).squeeze(2)
        return solution, load[:, count].abs()
