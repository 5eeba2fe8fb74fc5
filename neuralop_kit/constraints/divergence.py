"""DivergenceFree: the incompressible part of a velocity field."""

import torch
from torch import Tensor, nn

from neuralop_kit.constraints.fields import check_field, of_no_item
from neuralop_kit.constraints.precision import in_single_at_least
from neuralop_kit.layers.checks import with_an_item
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DomainError
from neuralop_kit.solvers.pde.spectral_grid import SpectralGrid
from neuralop_kit.solvers.status import SolveInfo, Status


class DivergenceFree(nn.Module):
    """The nearest velocity without sources: the projection of Helmholtz and Leray, on a torus.

        v = u - grad phi,      Laplace phi = div u;      for every mode  v_k = u_k - k (k . u_k) / |k|^2

    Its spectral divergence is zero to rounding, the mean velocity stays, solenoidal fields are left alone, the energy
    never grows. Two or three dimensions, any resolution. On even axes the highest mode has no derivative on the grid
    and is left alone too. Derivatives of any order.

    Args:
        domain: periodic along every axis, with two or three of them.

    Shape: velocity ``(batch, num_dims, *space)`` to a velocity and a :class:`SolveInfo` whose ``residual_norm`` is
    ``||div v|| / ||grad v||``.

    Raises:
        DomainError: the domain has walls, or one axis.

    Source: Leray (1934); Canuto et al. (2007), Spectral Methods, section 3.3.

    >>> layer = DivergenceFree(Domain.periodic((1.0, 1.0)))
    >>> v, info = layer(torch.randn(2, 2, 16, 16, dtype=torch.float64))
    >>> info.residual_norm.max().item() < 1e-14
    True
    """

    def __init__(self, domain: Domain) -> None:
        super().__init__()
        if not domain.is_periodic or domain.num_dims not in (2, 3):
            raise DomainError(f"expected a periodic domain of two or three dimensions, got {domain}; use a torus")
        self.domain = domain

    @in_single_at_least
    def forward(self, u: Tensor) -> tuple[Tensor, SolveInfo]:
        """The solenoidal part, and what is left of the divergence."""
        check_field(u, self.domain, channels=self.domain.num_dims)
        if len(u) == 0:
            return of_no_item(*self.forward(with_an_item(u)))
        grid = SpectralGrid(self.domain, u.shape[2:], dtype=u.dtype, device=u.device)
        symbols = [grid.first_derivative_symbol(axis) for axis in range(self.domain.num_dims)]
        # The symbol of div grad, not of the Laplacian: they differ in the highest mode of even axes.
        squared = sum((k**2 for k in symbols), torch.zeros((), dtype=u.dtype, device=u.device))
        inverse = torch.where(squared > 0, 1 / torch.where(squared > 0, squared, 1.0), 0.0)
        modes = grid.to_modes(u)
        source = inverse * _dot(symbols, modes)
        v = grid.to_space(torch.stack([modes[:, i] - k * source for i, k in enumerate(symbols)], dim=1))
        return v, self._report(v, grid, symbols)

    @torch.no_grad()
    def _report(self, v: Tensor, grid: SpectralGrid, symbols: list[Tensor]) -> SolveInfo:
        modes = grid.to_modes(v)
        divergence = _dot(symbols, modes).abs().flatten(1).norm(dim=1)
        gradient = torch.stack([(k * modes).abs().flatten(1).norm(dim=1) for k in symbols]).norm(dim=0)
        residual = divergence / torch.where(gradient > 0, gradient, 1.0)
        status = torch.where(residual.isfinite(), Status.CONVERGED, Status.INVALID_INPUT)
        return SolveInfo(status, torch.zeros_like(status), residual)


def _dot(symbols: list[Tensor], modes: Tensor) -> Tensor:
    """``k . u_k``."""
    products = [k * modes[:, i] for i, k in enumerate(symbols)]
    return torch.stack(products).sum(dim=0)
