"""A Hessian, equilibrated and factored, and damped where its inverse would mean nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HessianFactor:
    """Cholesky factor of ``S H S + shift I`` for every item, with ``S = diag(H)^(-1/2)``.

    ``shift`` is zero where ``S H S`` is positive definite with a condition number below ``max_condition``; elsewhere
    it lifts the smallest eigenvalue to ``largest / max_condition``. So :meth:`solve` always means something, and
    ``is_damped`` says where it is not the inverse.

    Args:
        scale: diagonal of ``S``, shape ``(batch, num_unknowns)``.
        lower: shape ``(batch, num_unknowns, num_unknowns)``.
        shift: shape ``(batch,)``.
        condition: of ``S H S`` without shift, shape ``(batch,)``; infinite where it is not positive definite.
    """

    scale: Tensor
    lower: Tensor
    shift: Tensor
    condition: Tensor

    @property
    def is_damped(self) -> Tensor:
        """Which items are shifted."""
        return self.shift > 0

    @property
    def is_definite(self) -> Tensor:
        """Which items have a Hessian that is positive definite beyond rounding."""
        return self.condition.isfinite()

    @staticmethod
    def of(hessian: Tensor, *, max_condition: float | None = None) -> HessianFactor:
        """Factor symmetric matrices, shape ``(batch, num_unknowns, num_unknowns)``.

        Args:
            hessian: items that are not finite are treated as the identity, and count as not definite.
            max_condition: above 1; by default ``eps^(-1/2)``, where half of the digits of a solution are lost.

        >>> factor = HessianFactor.of(torch.tensor([[[4.0, 0.0], [0.0, 9.0]], [[1.0, 1.0], [1.0, 1.0]]]))
        >>> factor.condition, factor.is_damped
        (tensor([1., inf]), tensor([False,  True]))
        """
        finite = hessian.isfinite().flatten(1).all(dim=1)
        identity = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
        safe = torch.where(finite.view(-1, 1, 1), hessian, identity)
        diagonal = safe.diagonal(dim1=-2, dim2=-1).abs()
        scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
        scaled = scale.unsqueeze(-1) * (0.5 * (safe + safe.mT)) * scale.unsqueeze(-2)
        eigenvalues = torch.linalg.eigvalsh(scaled)
        smallest, largest = eigenvalues[:, 0], eigenvalues.abs().amax(dim=-1)
        eps = torch.finfo(hessian.dtype).eps
        floor = largest * (eps**0.5 if max_condition is None else 1 / max_condition)
        shift = (floor - smallest).clamp_min(0.0)
        lower, _ = torch.linalg.cholesky_ex(scaled + shift.view(-1, 1, 1) * identity)
        # Eigenvalues are known to about this.
        definite = finite & (smallest > hessian.shape[-1] * eps * largest)
        condition = torch.where(definite, largest / smallest, torch.inf)
        return HessianFactor(scale, lower, shift, condition)

    def solve(self, vector: Tensor) -> Tensor:
        """``S (S H S + shift I)^-1 S vector``."""
        scaled = (self.scale * vector).unsqueeze(-1)
        return self.scale * torch.cholesky_solve(scaled, self.lower).squeeze(-1)

    def shifted_by(self, vector: Tensor) -> Tensor:
        """What the shift adds to ``H vector``: ``shift S^-2 vector``."""
        return self.shift.unsqueeze(-1) * vector / self.scale.square()

    def take(self, index: Tensor) -> HessianFactor:
        """Factors of some items."""
        return HessianFactor(*(t.index_select(0, index) for t in (self.scale, self.lower, self.shift, self.condition)))
