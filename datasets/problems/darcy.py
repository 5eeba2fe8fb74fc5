"""Darcy flow through random media: permeability to pressure."""

import math
from collections.abc import Mapping, Sequence

import torch

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.problems.base import Problem, Samples
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.pde import (
    CoefficientDistribution,
    Darcy,
    GaussianBumps,
    LogNormal,
    MultiscaleTrigonometric,
    TwoPhase,
)
from neuralop_kit.solvers.random_fields import GaussianRandomField

UNIT_SQUARE = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")
CENTRED_SQUARE = Domain.box((2.0, 2.0), boundary="dirichlet", nodes="cell", origin=(-1.0, -1.0))


class DarcyFlow(Problem):
    """Pressure in a porous medium under a constant source, as a function of the permeability.

        -div(a grad u) = f   in (0, 1)^2,     u = 0 on the boundary

    Input ``a``, target ``u``, both at cell centres; finite volumes with harmonic means, solved in float64. Everything
    is dimensionless.

    Args:
        name: in the registry.
        coefficient: distribution of ``a``.
        parameters: of that distribution.
        source: whose settings these are.
        setting: their name.
        forcing: ``f``.
        domain: a square.
        contrast: largest over smallest permeability, where it does not follow from parameters ``high`` and ``low``.

    >>> from neuralop_kit.datasets import PROBLEMS
    >>> samples = PROBLEMS["darcy"].sample([torch.Generator().manual_seed(0)], (32, 32))
    >>> samples.target.shape, samples.converged.item()
    (torch.Size([1, 1, 32, 32]), True)
    """

    input_names = ("permeability",)
    target_names = ("pressure",)
    units = {"permeability": "1", "pressure": "1"}  # noqa: RUF012 - read only, as a mapping

    def __init__(
        self,
        name: str,
        coefficient: CoefficientDistribution,
        *,
        parameters: Mapping[str, Parameter],
        source: str,
        setting: str = "",
        forcing: float = 1.0,
        domain: Domain = UNIT_SQUARE,
        contrast: float | None = None,
    ) -> None:
        (start, stop) = domain.axes[0].start, domain.axes[0].stop
        self.domain = domain
        self.equation = f"-div(a grad u) = f in ({start:g}, {stop:g})^2, u = 0 on the boundary; input a, target u"
        self.name = name
        self.setting = setting
        self.coefficient = coefficient
        self.forcing = forcing
        self.source = source
        self.parameters = {"forcing": Parameter(forcing, "1", "right-hand side f"), **parameters}
        self.contrast = contrast
        self._solver = Darcy(self.domain)

    def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
        """Draw permeabilities and solve for their pressures, in float64."""
        a = self.coefficient.sample(len(generators), shape, generator=generators, dtype=torch.float64)
        u, info = self._solver.solve(a, self.forcing)
        return Samples(input=a, target=u, converged=info.converged)

    def difficulty(self, shape: Sequence[int]) -> dict[str, float]:
        """How much more permeable some places are than others."""
        values = [self.parameters[name].value for name in ("high", "low") if name in self.parameters]
        contrast = max(values) / min(values) if values else self.contrast
        return {} if contrast is None else {"contrast": contrast}


def two_phase(name: str, coefficient: TwoPhase, *, source: str, setting: str) -> DarcyFlow:
    """Two materials, divided by the zero level of a Gaussian field without flux at the walls."""
    parameters = {
        "high": Parameter(coefficient.high, "1", "permeability where the random field is not negative"),
        "low": Parameter(coefficient.low, "1", "permeability where the random field is negative"),
        **_field_parameters(coefficient.field),
    }
    return DarcyFlow(name, coefficient, parameters=parameters, source=source, setting=setting)


def pdebench(beta: float) -> DarcyFlow:
    """PDEBench's: a linear problem, so that the five sets differ by a factor only."""
    coefficient = GaussianBumps(UNIT_SQUARE)
    return DarcyFlow(
        f"darcy-pdebench-{beta:g}",
        coefficient,
        parameters={
            "high": Parameter(coefficient.high, "1", "permeability where the bumps are above their mean"),
            "low": Parameter(coefficient.low, "1", "permeability elsewhere"),
        },
        source="Takamoto et al. (2022), PDEBench, Darcy flow. Steady, whereas the files hold states at t = 1.75 of a "
        "march from a random one, far from steady for small beta; walls at the walls, not half a cell outside",
        setting="pdebench",
        forcing=beta,
    )


def log_normal(name: str, coefficient: LogNormal, *, source: str) -> DarcyFlow:
    """Permeabilities that vary smoothly, the exponential of a Gaussian field without flux at the walls."""
    parameters = {
        "median": Parameter(coefficient.median, "1", "median of the permeability"),
        **_field_parameters(coefficient.field),
    }
    # From two standard deviations below the median to two above it.
    spread = 4 * coefficient.field.average_variance((64, 64)) ** 0.5
    return DarcyFlow(name, coefficient, parameters=parameters, source=source, contrast=math.exp(spread))


def _field_parameters(field: GaussianRandomField) -> dict[str, Parameter]:
    return {
        "alpha": Parameter(field.alpha, "1", "covariance sigma^2 (-Lap + tau^2)^-alpha: smoothness"),
        "tau": Parameter(field.tau, "1", "inverse correlation length"),
        "sigma": Parameter(field.sigma, "1", "amplitude of the random field"),
    }


DARCY = two_phase(
    "darcy",
    TwoPhase.fno(UNIT_SQUARE),
    source="Li et al. (2021), Fourier neural operator, section 5.2: a in {12, 3}. Differs from the published files in "
    "the scheme (harmonic means at cell faces, no spline interpolation) and in that u belongs to the cell centres",
    setting="fno",
)
DARCY_ROUGH = two_phase(
    "darcy-rough",
    TwoPhase.rough(UNIT_SQUARE),
    source="He, Liu and Xu (2024), MgNO, section 5: a in {12, 2}, shorter correlation than in the FNO paper",
    setting="mgno",
)
DARCY_LOGNORMAL = log_normal(
    "darcy-lognormal",
    LogNormal(GaussianRandomField(UNIT_SQUARE, alpha=2.0, tau=3.0, sigma=10.0, boundary="neumann")),
    source="smooth permeabilities with a standard deviation of about one in log a; our own setting",
)
DARCY_MULTISCALE = DarcyFlow(
    "darcy-multiscale",
    MultiscaleTrigonometric(CENTRED_SQUARE),
    parameters={"num_scales": Parameter(6, "1", "scales of the oscillations, each half as long as the one before")},
    source="He, Liu and Xu (2024), MgNO, multiscale trigonometric coefficients on (-1, 1)^2; finite volumes instead of "
    "finite elements. Below 512 points per axis the finest scale is not resolved",
    setting="mgno",
    domain=CENTRED_SQUARE,
    # Each of twelve factors lies between 1/2 and 3/2.
    contrast=3.0**12,
)
DARCY_PDEBENCH = tuple(map(pdebench, (0.01, 0.1, 1.0, 10.0, 100.0)))
