"""Differences on a staggered grid between no-slip walls: velocities on faces, everything else in cells.

Velocities across x are ``(batch, n_x + 1, n_y)``, those across y ``(batch, n_x, n_y + 1)``, zero on the walls. What is
said here for the first holds for the second with the axes exchanged.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from neuralop_kit.solvers.pde.limiters import Limiter

Spacing = tuple[float, ...]


def transport(across: Tensor, along: Tensor, spacing: Spacing) -> Tensor:
    """``(u u)_x + (u v)_y`` of the velocity across x, at its inner faces ``(batch, n_x - 1, n_y)``.

    In the divergence form of Harlow and Welch, which conserves kinetic energy where the divergence is zero.
    """
    h_x, h_y = spacing
    centre = (across[:, 1:] + across[:, :-1]) / 2
    # Nothing passes through the walls; at the corners in between both velocities are means of two.
    at_corners = (across[:, 1:-1, 1:] + across[:, 1:-1, :-1]) / 2 * (along[:, 1:, 1:-1] + along[:, :-1, 1:-1]) / 2
    return torch.diff(centre**2, dim=1) / h_x + torch.diff(pad(at_corners, (1, 1)), dim=2) / h_y


def diffusion(across: Tensor, spacing: Spacing) -> Tensor:
    """``Lap u`` of the velocity across x, at its inner faces; mirrored with the other sign behind walls along it."""
    h_x, h_y = spacing
    inner = across[:, 1:-1]
    mirrored = torch.cat([-inner[:, :, :1], inner, -inner[:, :, -1:]], dim=2)
    return torch.diff(across, n=2, dim=1) / h_x**2 + torch.diff(mirrored, n=2, dim=2) / h_y**2


def smoke_change(smoke: Tensor, velocities: tuple[Tensor, Tensor], spacing: Spacing, limiter: Limiter) -> Tensor:
    """``-div(s v)`` in the cells, from the values at faces on the side from which the flow comes."""
    total = torch.zeros_like(smoke)
    for dim, velocity, h in zip((1, 2), velocities, spacing, strict=True):
        n = smoke.shape[dim]
        jumps = torch.diff(smoke, dim=dim)
        flat = torch.zeros_like(smoke.narrow(dim, 0, 1))
        slope = limiter(torch.cat([flat, jumps], dim=dim), torch.cat([jumps, flat], dim=dim))
        upper, lower = (smoke + slope / 2).narrow(dim, 0, n - 1), (smoke - slope / 2).narrow(dim, 1, n - 1)
        inner = velocity.narrow(dim, 1, n - 1)
        flux = inner.clamp_min(0) * upper + inner.clamp_max(0) * lower
        walls = (0, 0, 1, 1) if dim == 1 else (1, 1)
        total = total - torch.diff(pad(flux, walls), dim=dim) / h
    return total


def projected(velocities: tuple[Tensor, Tensor], spacing: Spacing) -> Tensor:
    """The velocity without its gradient part, right and upper faces of each cell ``(batch, 2, n_x, n_y)``.

    ``v - grad phi`` with ``Lap phi = div v`` and no flux through walls, solved exactly: cosines diagonalise the
    discrete Laplacian, with eigenvalues ``-(2/h sin(pi k / 2 n))^2``.
    """
    (across, along), (h_x, h_y) = velocities, spacing
    rest = torch.diff(across, dim=1) / h_x + torch.diff(along, dim=2) / h_y
    (c_x, a_x), (c_y, a_y) = (_cosines(n, h, rest) for n, h in zip(rest.shape[1:], spacing, strict=True))
    eigenvalues = a_x[:, None] + a_y
    # The mean of the divergence is zero, and that of phi does not matter.
    eigenvalues[0, 0] = -math.inf
    phi = c_x.mT @ ((c_x @ rest @ c_y.mT) / eigenvalues) @ c_y
    v_x = across[:, 1:-1] - torch.diff(phi, dim=1) / h_x
    v_y = along[:, :, 1:-1] - torch.diff(phi, dim=2) / h_y
    return torch.stack([pad(v_x, (0, 0, 0, 1)), pad(v_y, (0, 1))], dim=1)


def _cosines(n: int, h: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal cosines at cell centres, one per row, and the eigenvalues of the second difference."""
    k = torch.arange(n, dtype=torch.float64, device=like.device)
    table = torch.cos(math.pi / n * k[:, None] * (k + 0.5)) * math.sqrt(2 / n)
    table[0] = 1 / math.sqrt(n)
    return table.to(like.dtype), (-((2 / h * torch.sin(math.pi / (2 * n) * k)) ** 2)).to(like.dtype)
