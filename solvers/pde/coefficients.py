"""Random permeabilities: distributions of positive coefficients, defined on functions, not on cells."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.nodes import Device
from neuralop_kit.solvers.random_fields import GaussianRandomField
from neuralop_kit.solvers.randomness import Generators


class CoefficientDistribution(ABC):
    """Random positive functions on a domain; equal seeds give the same function on every grid."""

    domain: Domain

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
        """Independent samples, shape ``(batch, 1, *shape)``; arguments as in :meth:`GaussianRandomField.sample`."""


class TwoPhase(CoefficientDistribution):
    """Two materials, separated by a level set of a random field.

        a = high  where g >= threshold,      a = low  elsewhere

    Args:
        field: ``g``; its amplitude does not matter at threshold 0.
        high, low: values, positive.
        threshold: level, in units of the field.

    Good values: :meth:`fno` and :meth:`rough`.

    >>> domain = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
    >>> a = TwoPhase.fno(domain).sample(2, (32, 32), generator=torch.Generator().manual_seed(0))
    >>> sorted(a.unique().tolist())
    [3.0, 12.0]
    """

    def __init__(
        self, field: GaussianRandomField, *, high: float = 12.0, low: float = 3.0, threshold: float = 0.0
    ) -> None:
        if not (high > 0 and low > 0):
            raise ArgumentError(f"expected positive values, got high={high} and low={low}; correct them")
        self.field = field
        self.domain = field.domain
        self.high, self.low, self.threshold = float(high), float(low), float(threshold)

    @classmethod
    def fno(cls, domain: Domain) -> "TwoPhase":
        """The Darcy coefficient of the FNO paper: {12, 3}, g ~ N(0, (-Lap + 9)^-2) with no flux at walls, mean zero.

        The paper and its data have 12 and 3; the script released beside them prints 12 and 4.
        Source: Li et al. (2021), appendix A.3.
        """
        return cls(GaussianRandomField(domain, alpha=2.0, tau=3.0, boundary="neumann"))

    @classmethod
    def rough(cls, domain: Domain, *, tau: float = 5.0) -> "TwoPhase":
        """The rough Darcy coefficient used for MgNO and HANO: {12, 2}, g ~ N(0, (-Lap + tau^2)^-2).

        The file name of the published set says ``tau = 5``, the text of HANO ``tau^2 = 20``.
        Source: He, Liu and Xu (2024), MgNO, section 5; Liu, Xu, Cao and Zhang (2024), HANO.
        """
        return cls(GaussianRandomField(domain, alpha=2.0, tau=tau, boundary="neumann"), high=12.0, low=2.0)

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
        # The level set is found in double precision, so that all dtypes see the same interface.
        g = self.field.sample(batch, shape, generator=generator, dtype=torch.float64, device=device)
        return torch.where(g >= self.threshold, self.high, self.low).to(dtype or torch.get_default_dtype())


class LogNormal(CoefficientDistribution):
    """``a = median * exp(g)``: permeabilities that vary smoothly over orders of magnitude.

    Args:
        field: ``g``; its standard deviation 1 means a typical factor of e, 2.3 an order of magnitude.
        median: of ``a`` where the field has mean zero, positive.

    >>> domain = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
    >>> field = GaussianRandomField(domain, alpha=2.0, tau=3.0, sigma=10.0, boundary="neumann")
    >>> (LogNormal(field).sample(2, (32, 32)) > 0).all().item()
    True
    """

    def __init__(self, field: GaussianRandomField, *, median: float = 1.0) -> None:
        if not median > 0:
            raise ArgumentError(f"expected a positive median, got {median}; correct it")
        self.field = field
        self.domain = field.domain
        self.median = float(median)

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
        g = self.field.sample(batch, shape, generator=generator, dtype=torch.float64, device=device)
        return (self.median * g.exp()).to(dtype or torch.get_default_dtype())
