"""Permeabilities with a formula: random checkerboards, multiscale trigonometric products, level sets of bumps."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.pde.coefficients import CoefficientDistribution
from neuralop_kit.solvers.randomness import Generators, uniform

# Per axis, for the mean of bumps.
MEAN_POINTS = 64


class RandomCheckerboard(CoefficientDistribution):
    """Equal tiles, each of one of two materials by the throw of a coin: high contrast with corners.

    Where four tiles meet crosswise the flux is singular, and no scheme on a uniform grid keeps its order.

    Args:
        domain: a box.
        tiles: number of tiles per axis.
        high, low: values, positive.
        probability: of the high value, in [0, 1].

    >>> domain = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
    >>> RandomCheckerboard(domain, tiles=(4, 4), high=100.0).sample(2, (32, 32)).shape
    torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self,
        domain: Domain,
        *,
        tiles: Sequence[int] = (8, 8),
        high: float = 1000.0,
        low: float = 1.0,
        probability: float = 0.5,
    ) -> None:
        if len(tiles) != domain.num_dims or min(tiles) < 1:
            raise ArgumentError(f"expected at least one tile along each of {domain.num_dims} axes, got {tuple(tiles)}")
        if not (high > 0 and low > 0 and 0 <= probability <= 1):
            raise ArgumentError(
                f"expected positive values and a probability in [0, 1], got {high}, {low}, {probability}; correct them"
            )
        self.domain = domain
        self.tiles = tuple(tiles)
        self.high, self.low, self.probability = float(high), float(low), float(probability)

    def sample(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Independent samples, shape ``(batch, 1, *shape)``; a point on the joint of two tiles belongs to the upper."""
        self.domain.check_shape(shape)
        coins = uniform(batch, self.tiles, generator)
        coins = coins if device is None else coins.to(device)
        for dim, (axis, count, n) in enumerate(zip(self.domain.axes, self.tiles, shape, strict=True)):
            position = axis.placement.positions(axis.length, n, device=coins.device) * (count / axis.length)
            coins = coins.index_select(1 + dim, position.long().clamp_max(count - 1))
        values = torch.where(coins < self.probability, self.high, self.low)
        return values.unsqueeze(1).to(dtype or torch.get_default_dtype())


class MultiscaleTrigonometric(CoefficientDistribution):
    """Oscillations on six scales at once, without separation between them; contrast up to 3^(2 num_scales).

        a(x) = prod_(k=1..num_scales)  (1 + 1/2 cos(c_k pi (x1 + x2))) (1 + 1/2 sin(c_k pi (x2 - 3 x1))),
        c_k uniform in [2^(k-1), 1.5 * 2^(k-1)]

    The finest wave has wavenumber ``1.5 * 2^(num_scales - 1) * sqrt(10) pi``: with six scales a side of length 2 needs
    more than 256 points to be resolved, and coarser grids sample it.

    Args:
        domain: a box with two axes.
        num_scales: at least 1.

    Good values: ``Domain.box((2.0, 2.0), origin=(-1.0, -1.0), nodes="vertex")``, f = 1.
    Source: Owhadi (2017), SIAM Review 59; as used by Liu, Xu, Cao and Zhang (2024), HANO, and for MgNO.

    >>> domain = Domain.box((2.0, 2.0), origin=(-1.0, -1.0), boundary="dirichlet", nodes="cell")
    >>> (MultiscaleTrigonometric(domain).sample(2, (64, 64)) > 0).all().item()
    True
    """

    def __init__(self, domain: Domain, *, num_scales: int = 6) -> None:
        if domain.num_dims != 2:
            raise DomainError(f"expected a box with two axes, got {domain!r}; the formula has x1 and x2")
        if num_scales < 1:
            raise ArgumentError(f"expected num_scales >= 1, got {num_scales}; the published data have 6")
        self.domain = domain
        self.num_scales = num_scales

    def sample(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Independent samples, shape ``(batch, 1, *shape)``."""
        draws = uniform(batch, (self.num_scales,), generator)
        draws = draws if device is None else draws.to(device)
        x, y = self.domain.coordinates(shape, dtype=torch.float64, device=draws.device)
        scale = 2.0 ** torch.arange(self.num_scales, dtype=torch.float64, device=draws.device)
        a = torch.ones(batch, 1, *shape, dtype=torch.float64, device=draws.device)
        for c in (math.pi * scale * (1 + draws / 2)).unbind(dim=1):
            frequency = c.view(-1, 1, 1, 1)
            a *= (1 + torch.cos(frequency * (x + y)) / 2) * (1 + torch.sin(frequency * (y - 3 * x)) / 2)
        return a.to(dtype or torch.get_default_dtype())


class GaussianBumps(CoefficientDistribution):
    """Two materials, divided by a level set of a few Gaussian bumps: PDEBench's permeability, without its batch.

        g(x) = sum_(k=1..num_bumps)  exp(-|x - c_k|^2 / w_k),     a = high  where g >= mean g,  low  elsewhere,
        c_k uniform in the domain, w_k uniform in (0, 1/2)

    PDEBench takes the mean over all samples that were generated together; here it is that of the sample.

    Args:
        domain: a box; lengths of about 1.
        num_bumps: at least 1.
        high, low: values, positive.

    Source: Takamoto et al. (2022), PDEBench, Darcy flow; widths as in its generator.

    >>> a = GaussianBumps(Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")).sample(2, (32, 32))
    >>> a.unique()
    tensor([0.1000, 1.0000])
    """

    def __init__(self, domain: Domain, *, num_bumps: int = 5, high: float = 1.0, low: float = 0.1) -> None:
        if num_bumps < 1 or not (high > 0 and low > 0):
            raise ArgumentError(
                f"expected num_bumps >= 1 and positive values, got {num_bumps}, {high}, {low}; correct them"
            )
        self.domain = domain
        self.num_bumps = num_bumps
        self.high, self.low = float(high), float(low)

    def sample(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Independent samples, shape ``(batch, 1, *shape)``."""
        draws = uniform(batch, (self.num_bumps, self.domain.num_dims + 1), generator)
        draws = draws if device is None else draws.to(device)
        # The mean on a grid of its own, so that the interface does not depend on the resolution.
        reference = self.domain.refine((MEAN_POINTS,) * self.domain.num_dims)
        weights = self.domain.weights(reference, device=draws.device).to(draws.dtype)
        mean = (weights * self._heights(draws, reference)).flatten(1).sum(dim=1) / weights.sum()
        above = self._heights(draws, shape) >= mean.view(-1, *[1] * self.domain.num_dims)
        high, low = (torch.tensor(value, dtype=torch.float64, device=draws.device) for value in (self.high, self.low))
        return torch.where(above, high, low).unsqueeze(1).to(dtype or torch.get_default_dtype())

    def _heights(self, draws: Tensor, shape: Sequence[int]) -> Tensor:
        """``g``, ``(batch, *shape)``: a product over axes."""
        letters = "xyzw"[: self.domain.num_dims]
        factors = []
        for i, (axis, n) in enumerate(zip(self.domain.axes, shape, strict=True)):
            centre = axis.start + axis.length * draws[..., i, None]
            x = self.domain.axis_coordinates(i, n, device=draws.device)
            factors.append(torch.exp(-((x - centre) ** 2) / (0.5 * draws[..., -1:])))
        return torch.einsum(",".join(f"bk{letter}" for letter in letters) + f"->b{letters}", *factors)
