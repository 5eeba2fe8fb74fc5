"""Initial states that are sums of a few waves: PDEBench's and APEBench's. Functions, drawn from a few numbers each."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.randomness import Generators, standard_normal, uniform

# Of PDEBench: highest wavenumber, chance of an absolute value and of a window, width of the window's edges.
MAX_WAVENUMBER, CHANCE, EDGE = 4, 0.1, 0.01


class InitialWaves(ABC):
    """A distribution of periodic functions of one variable, ``(batch, 1, num_points)``."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    @abstractmethod
    def sample(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Independent samples, the same functions at any resolution."""


class DocumentedWaves(InitialWaves):
    """PDEBench's initial states as its paper describes them: two waves, sometimes folded, sometimes windowed.

        u = A_1 sin(2 pi n_1 x/L + phi_1) + A_2 sin(2 pi n_2 x/L + phi_2)

    ``n`` uniform in 1..4, ``A`` in (0, 1), ``phi`` in (0, 2 pi). One in ten becomes +-|u| and one in ten is multiplied
    by a smooth window from ``U(0.1, 0.45)`` to ``U(0.55, 0.9)``.

    Args:
        domain: periodic, one dimension.
        chance: of each of the two changes.

    Source: Takamoto et al. (2022), PDEBench, eq. 8.

    >>> DocumentedWaves(Domain.periodic((1.0,))).sample(2, (64,)).shape
    torch.Size([2, 1, 64])
    """

    def __init__(self, domain: Domain, *, chance: float = CHANCE) -> None:
        super().__init__(domain)
        self.chance = chance

    def sample(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Independent samples."""
        draws = uniform(batch, (11,), generator)
        wavenumbers = 1 + (MAX_WAVENUMBER * draws[:, 0:2]).floor()
        (length,) = self.domain.lengths
        u, x = _waves(self.domain, shape, wavenumbers, draws[:, 2:4], draws[:, 4:6], period=length)
        u = _folded(u, draws[:, 6], draws[:, 7], self.chance)
        left, right = 0.1 + 0.35 * draws[:, 9:10], 0.55 + 0.35 * draws[:, 10:11]
        return _finished(_windowed(u, x, left, right, draws[:, 8] < self.chance), dtype, device)


class PublishedWaves(InitialWaves):
    """PDEBench's initial states as they are in its files, which differ from the paper.

    Four slots with wavenumbers 1..4; two draws with repetition choose among them. A slot that was drawn twice has its
    wavenumber doubled (a quarter of all samples); one that was not drawn keeps its amplitude and phase with wavenumber
    0 and adds the constant ``A sin(phi)``, so that means have a standard deviation of 0.61. The window's edges share
    their random number with the decision to have one: its width is always 0.45. The period is one cell too short, so
    that the function is periodic only up to ``O(h)``, and depends on the grid as much.

    Args:
        domain: periodic, one dimension, cell centres.

    Source: PDEBench's generator at its revision of 2025, read and described, not copied.

    >>> PublishedWaves(Domain.periodic((1.0,), nodes="cell")).sample(2, (64,)).shape
    torch.Size([2, 1, 64])
    """

    def sample(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Independent samples."""
        draws = uniform(batch, (13,), generator)
        slots = torch.arange(1, MAX_WAVENUMBER + 1, dtype=draws.dtype, device=draws.device)
        chosen = 1 + (MAX_WAVENUMBER * draws[:, 0:2]).floor()
        wavenumbers = slots * (chosen.unsqueeze(-1) == slots).sum(dim=1)
        (length,), (spacing,) = self.domain.lengths, self.domain.spacing(shape)
        u, x = _waves(self.domain, shape, wavenumbers, draws[:, 2:6], draws[:, 6:10], period=length - spacing)
        u = _folded(u, draws[:, 10], draws[:, 11], CHANCE)
        shared = draws[:, 12:13]
        return _finished(
            _windowed(u, x, 0.1 + 0.35 * shared, 0.55 + 0.35 * shared, shared[:, 0] < CHANCE), dtype, device
        )


class TruncatedFourier(InitialWaves):
    """APEBench's: a few Fourier modes with normal coefficients, mean zero, largest value one; any dimension.

    Args:
        domain: periodic.
        cutoff: highest wavenumber per axis.

    The largest value is that of a fine grid of its own, so that the function does not depend on the resolution.
    Source: Koehler, Niedermayr, Westermann and Thuerey (2024), APEBench, appendix on initial conditions.

    >>> u = TruncatedFourier(Domain.periodic((1.0, 1.0))).sample(2, (32, 32))
    >>> u.shape, bool((u.mean(dim=(1, 2, 3)).abs() < 1e-6).all())
    (torch.Size([2, 1, 32, 32]), True)
    """

    def __init__(self, domain: Domain, *, cutoff: int = 5) -> None:
        super().__init__(domain)
        self.cutoff = cutoff

    def sample(
        self,
        batch: int,
        shape: Sequence[int],
        *,
        generator: Generators = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
    ) -> Tensor:
        """Independent samples."""
        size = (2 * self.cutoff + 1,) * self.domain.num_dims
        numbers = standard_normal(batch, (*size, 2), generator)
        coefficients = torch.view_as_complex(numbers)
        coefficients.view(batch, -1)[:, math.prod(size) // 2] = 0  # the mean
        reference = self._evaluate(coefficients, (16 * self.cutoff,) * self.domain.num_dims)
        u = self._evaluate(coefficients, shape)
        return _finished(u / reference.flatten(1).abs().amax(dim=1).view(-1, *[1] * len(shape)), dtype, device)

    def _evaluate(self, coefficients: Tensor, shape: Sequence[int]) -> Tensor:
        """Real part of the series."""
        wave = torch.arange(-self.cutoff, self.cutoff + 1, dtype=torch.float64, device=coefficients.device)
        u = coefficients
        for i, (axis, n) in enumerate(zip(self.domain.axes, shape, strict=True)):
            x = self.domain.axis_coordinates(i, n, device=u.device) - axis.start
            basis = torch.exp(2j * math.pi / axis.length * wave[:, None] * x)
            u = torch.tensordot(u, basis, dims=([1], [0]))
        return u.real


def _waves(
    domain: Domain, shape: Sequence[int], wavenumbers: Tensor, amplitudes: Tensor, phases: Tensor, *, period: float
) -> tuple[Tensor, Tensor]:
    """Sum of sines ``(batch, num_points)``, and the distance of the points from the start in units of the length."""
    (axis,) = domain.axes
    x = domain.axis_coordinates(0, shape[0], device=wavenumbers.device) - axis.start
    angle = 2 * math.pi * (wavenumbers.unsqueeze(-1) * (x / period) + phases.unsqueeze(-1))
    return (amplitudes.unsqueeze(-1) * torch.sin(angle)).sum(dim=1), x / axis.length


def _folded(u: Tensor, decision: Tensor, sign: Tensor, chance: float) -> Tensor:
    """Some of them ``+|u|`` or ``-|u|``."""
    folded = torch.where(sign < 0.5, -1.0, 1.0).unsqueeze(-1) * u.abs()
    return torch.where((decision < chance).unsqueeze(-1), folded, u)


def _windowed(u: Tensor, x: Tensor, left: Tensor, right: Tensor, decision: Tensor) -> Tensor:
    """Some of them only between two edges."""
    window = 0.5 * (torch.tanh((x - left) / EDGE) - torch.tanh((x - right) / EDGE))
    return torch.where(decision.unsqueeze(-1), window * u, u)


def _finished(u: Tensor, dtype: torch.dtype | None, device: Device) -> Tensor:
    place = u.device if device is None else device
    return u.unsqueeze(1).to(device=place, dtype=dtype or torch.get_default_dtype())
