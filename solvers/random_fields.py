"""Gaussian random fields on boxes: the random functions from which most problems start."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.randomness import Generators, standard_normal
from neuralop_kit.solvers.sphere import SphereDomain
from neuralop_kit.solvers.trigonometric import TrigonometricBasis, trigonometric_basis

# Factor on the field. The sampler published with the FNO paper in 2020 gave real and imaginary parts variance 1 each,
# its successor of 2021 gives 1/2 each: only the latter has the covariance that is written down.
AMPLITUDES = {"kl": 1.0, "fno2020": math.sqrt(2.0)}


class GaussianRandomField:
    """Gaussian random functions with a Matern-type covariance, given by its eigenvalues.

        g = sum_m  sqrt(lambda_m) xi_m phi_m(x),     lambda_m = sigma^2 (|k_m|^2 + tau^2)^(-alpha),   xi_m ~ N(0, 1)

    ``phi_m`` are the orthonormal eigenfunctions of the Laplacian on the box with wavenumbers ``k_m``: Fourier modes
    along periodic axes, cosines along Neumann axes, sines along Dirichlet axes. The covariance operator is
    ``sigma^2 (-Lap + tau^2)^(-alpha)``. Samples have about ``alpha - d/2`` derivatives, correlation length ``1/tau``.

    **The same function at any resolution.** The numbers ``xi_m`` are drawn in blocks of fixed sizes, ordered by growing
    wavenumber, in float64 on the device of the generator. Equal seeds give equal ``xi_m`` whatever the shape, the dtype
    or the device of the result; a finer grid adds finer modes. The price is up to twice the random numbers.

    **Bandwidth.** By default a grid gets the modes which it holds, those with more than two points per wavelength: no
    aliasing, and a coarse field is the fine one without its high modes. With ``bandwidth`` the function is one and the
    same everywhere and the grid only samples it, exactly, also where it is too coarse to resolve it (values at common
    points agree, but such a coarse field is aliased, as any point sample is).

    Args:
        domain: a box with any number of axes, any boundary and nodes per axis.
        alpha: smoothness, positive; up to ``d/2`` the variance grows without limit as the grid is refined.
        tau: inverse length scale, >= 0, in 1/length.
        sigma: amplitude; by default ``tau^(alpha - d/2)``, which makes the variance of order 1 (dimensionless).
        zero_mean: leave out the constant mode, so that every sample has mean zero. No effect beside a Dirichlet axis.
        boundary: ``"neumann"`` or ``"dirichlet"``, for all axes or one per axis, where the eigenfunctions should
            satisfy another condition than the domain's: a permeability does not vanish where the pressure does.
        bandwidth: largest wavenumber kept per axis, in cycles per length (periodic) or half cycles (walls).
        amplitude: ``"kl"``, the formula above; or ``"fno2020"``, sqrt(2) times that, as in the first FNO data sets.

    Raises:
        ArgumentError: a number is out of range, or the amplitude is unknown.
        DomainError: the domain is a sphere, or ``boundary`` does not go with it.

    Good values: Navier-Stokes vorticity ``alpha=2.5, tau=7`` (std 0.185); Burgers ``alpha=2, tau=5, sigma=25`` (0.594);
    Darcy ``alpha=2, tau=3`` on a Neumann box (0.292 in the space average).
    Source: Lindgren, Rue and Lindstrom (2011); Li et al. (2021), section 5 and its released samplers.

    >>> field = GaussianRandomField(Domain.periodic((1.0, 1.0)), alpha=2.5, tau=7.0)
    >>> field.sample(4, (64, 64), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4, 1, 64, 64])
    """

    def __init__(
        self,
        domain: Domain,
        *,
        alpha: float,
        tau: float,
        sigma: float | None = None,
        zero_mean: bool = True,
        boundary: str | Sequence[str] | None = None,
        bandwidth: int | Sequence[int] | None = None,
        amplitude: str = "kl",
    ) -> None:
        if isinstance(domain, SphereDomain):
            raise DomainError(f"expected a box, got {domain!r}; fields on the sphere need spherical harmonics")
        if not (math.isfinite(alpha) and alpha > 0 and math.isfinite(tau) and tau >= 0):
            raise ArgumentError(f"expected alpha > 0 and tau >= 0, got alpha={alpha}, tau={tau}; correct them")
        if amplitude not in AMPLITUDES:
            raise ArgumentError(f"expected an amplitude among {list(AMPLITUDES)}, got {amplitude!r}; take one of these")
        self.domain = domain
        self._bases = _bases(domain, boundary)
        if tau == 0 and not zero_mean and all(basis.has_constant for basis in self._bases):
            raise ArgumentError("expected tau > 0 with zero_mean=False, got 0; the constant mode would be infinite")
        if sigma is None and tau == 0:
            raise ArgumentError("expected sigma with tau=0, got None; the default tau^(alpha - d/2) needs tau > 0")
        if sigma is not None and not math.isfinite(sigma):
            raise ArgumentError(f"expected a finite sigma, got {sigma}; it multiplies the field")
        self.alpha = float(alpha)
        self.tau = float(tau)
        self.sigma = float(tau ** (alpha - domain.num_dims / 2) if sigma is None else sigma)
        self.zero_mean = zero_mean
        self.bandwidth = _per_axis(bandwidth, domain.num_dims)
        self.amplitude = amplitude

    def sample(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Independent samples, shape ``(batch, 1, *shape)``.

        Args:
            batch: number of samples.
            shape: points per axis.
            generator: one for all samples, or a sequence with one per sample: then sample ``i`` depends on the seed of
                its own generator only, not on its neighbours nor on ``batch``, as parallel generation needs.
            dtype: of the result, by default torch's default.
            device: of the result, by default the generator's.

        >>> field = GaussianRandomField(Domain.box((1.0,), boundary="neumann"), alpha=2.0, tau=3.0)
        >>> seeds = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
        >>> pair = field.sample(2, (17,), generator=seeds)
        >>> alone = field.sample(1, (33,), generator=torch.Generator().manual_seed(6))
        >>> pair.shape, alone.shape
        (torch.Size([2, 1, 17]), torch.Size([1, 1, 33]))
        """
        self.domain.check_shape(shape)
        dtype = dtype or torch.get_default_dtype()
        numbers = self._numbers(batch, self.num_modes(shape), generator)
        device = numbers.device if device is None else device
        field = numbers.to(device) * self.eigenvalues(shape, device=device).sqrt()
        # FFTs do not exist in half precision everywhere.
        field = field.to(torch.promote_types(dtype, torch.float32))
        for i, (basis, n) in enumerate(zip(self._bases, shape, strict=True)):
            field = basis.evaluate(field, n, dim=1 + i)
        return field.unsqueeze(1).to(dtype).contiguous()

    def num_modes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Number of eigenfunctions per axis used on a grid, at least one."""
        self.domain.check_shape(shape)
        return tuple(
            max(1, basis.num_modes(basis.max_cycles(n) if limit is None else limit))
            for basis, n, limit in zip(self._bases, shape, self.bandwidth, strict=True)
        )

    def eigenvalues(self, shape: Sequence[int], *, device: Device = None) -> Tensor:
        """``lambda_m`` of the modes used on a grid, amplitude included, float64, shape :meth:`num_modes`."""
        squared = torch.zeros((), dtype=torch.float64, device=device)
        for basis, count in zip(self._bases, self.num_modes(shape), strict=True):
            squared = squared.unsqueeze(-1) + basis.wavenumbers(count, device=device) ** 2
        values = (AMPLITUDES[self.amplitude] * self.sigma) ** 2 * (squared + self.tau**2) ** -self.alpha
        return torch.where(squared == 0, 0.0, values) if self.zero_mean else values

    def variance(self, shape: Sequence[int]) -> Tensor:
        """Pointwise variance ``sum_m lambda_m phi_m(x)^2``, float64, shape ``shape``; constant on periodic boxes."""
        values = self.eigenvalues(shape)
        for i, (basis, n) in enumerate(zip(self._bases, shape, strict=True)):
            values = basis.evaluate_squares(values, n, dim=i)
        return values

    def average_variance(self, shape: Sequence[int]) -> float:
        """Variance averaged over the box, ``sum_m lambda_m / measure``.

        >>> field = GaussianRandomField(Domain.periodic((1.0, 1.0)), alpha=2.5, tau=7.0)
        >>> round(field.average_variance((256, 256)) ** 0.5, 4)
        0.1852
        """
        return self.eigenvalues(shape).sum().item() / self.domain.measure

    def _numbers(self, batch: int, num_modes: tuple[int, ...], generator: Generators) -> Tensor:
        """``xi`` of shape ``(batch, *num_modes)``, float64, on the device of the generator."""
        blocks = list(self._blocks(num_modes))
        draws = [standard_normal(batch, [side.stop - side.start for side in block], generator) for block in blocks]
        numbers = draws[0].new_empty(batch, *num_modes)
        for block, drawn in zip(blocks, draws, strict=True):
            # The outermost blocks reach beyond the modes that are used.
            target = numbers[(slice(None), *block)]
            target.copy_(drawn[tuple(slice(0, n) for n in target.shape)])
        return numbers

    def _blocks(self, num_modes: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
        """Disjoint boxes of mode numbers that cover all; neither their sizes nor their order depend on ``num_modes``.

        Cubes (in wavenumbers) grow by a quarter; the modes that a cube adds to the one before are one slab per axis.
        """
        shortest = min(self.domain.lengths)
        ratios = [length / shortest for length in self.domain.lengths]
        inner, size = [0] * len(ratios), 8
        while any(have < want for have, want in zip(inner, num_modes, strict=True)):
            outer = [math.ceil(size * ratio) for ratio in ratios]
            for i in range(len(ratios)):
                yield tuple(
                    slice(inner[j] if j == i else 0, outer[j] if j >= i else inner[j]) for j in range(len(ratios))
                )
            inner, size = outer, size + max(8, size // 4)


def _bases(domain: Domain, boundary: str | Sequence[str] | None) -> list[TrigonometricBasis]:
    """The eigenfunctions of each axis."""
    names = [boundary] * domain.num_dims if boundary is None or isinstance(boundary, str) else list(boundary)
    if len(names) != domain.num_dims:
        raise ArgumentError(f"expected one boundary or one per axis ({domain.num_dims}), got {boundary}; correct it")
    return [trigonometric_basis(axis, name) for axis, name in zip(domain.axes, names, strict=True)]


def _per_axis(bandwidth: int | Sequence[int] | None, count: int) -> list[int | None]:
    """One limit per axis."""
    limits: list[int | None] = [bandwidth] * count if bandwidth is None or isinstance(bandwidth, int) else [*bandwidth]
    if len(limits) != count or any(limit is not None and limit < 1 for limit in limits):
        raise ArgumentError(f"expected bandwidth >= 1, one or one per axis ({count}), got {bandwidth}; correct it")
    return limits
