"""Darcy flow through random media: permeability to pressure."""

from collections.abc import Mapping, Sequence

import torch

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.problems.base import Problem, Samples
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.pde import Darcy, LogNormal, TwoPhase
from neuralop_kit.solvers.random_fields import GaussianRandomField

UNIT_SQUARE = Domain.box((1.0, 1.0), boundary="dirichlet", nodes="cell")


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
        forcing: ``f``.

    >>> from neuralop_kit.datasets import PROBLEMS
    >>> samples = PROBLEMS["darcy"].sample([torch.Generator().manual_seed(0)], (32, 32))
    >>> samples.target.shape, samples.converged.item()
    (torch.Size([1, 1, 32, 32]), True)
    """

    equation = "-div(a grad u) = f in (0, 1)^2, u = 0 on the boundary; input a, target u"
    domain = UNIT_SQUARE
    input_names = ("permeability",)
    target_names = ("pressure",)
    units = {"permeability": "1", "pressure": "1"}  # noqa: RUF012 - read only, as a mapping

    def __init__(
        self,
        name: str,
        coefficient: TwoPhase | LogNormal,
        *,
        parameters: Mapping[str, Parameter],
        source: str,
        forcing: float = 1.0,
    ) -> None:
        self.name = name
        self.coefficient = coefficient
        self.forcing = forcing
        self.source = source
        self.parameters = {"forcing": Parameter(forcing, "1", "right-hand side f"), **parameters}
        self._solver = Darcy(self.domain)

    def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
        """Draw permeabilities and solve for their pressures, in float64."""
        a = self.coefficient.sample(len(generators), shape, generator=generators, dtype=torch.float64)
        u, info = self._solver.solve(a, self.forcing)
        return Samples(input=a, target=u, converged=info.converged)


def two_phase(name: str, coefficient: TwoPhase, *, source: str) -> DarcyFlow:
    """Two materials, divided by the zero level of a Gaussian field without flux at the walls."""
    parameters = {
        "high": Parameter(coefficient.high, "1", "permeability where the random field is not negative"),
        "low": Parameter(coefficient.low, "1", "permeability where the random field is negative"),
        **_field_parameters(coefficient.field),
    }
    return DarcyFlow(name, coefficient, parameters=parameters, source=source)


def log_normal(name: str, coefficient: LogNormal, *, source: str) -> DarcyFlow:
    """Permeabilities that vary smoothly, the exponential of a Gaussian field without flux at the walls."""
    parameters = {
        "median": Parameter(coefficient.median, "1", "median of the permeability"),
        **_field_parameters(coefficient.field),
    }
    return DarcyFlow(name, coefficient, parameters=parameters, source=source)


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
)
DARCY_ROUGH = two_phase(
    "darcy-rough",
    TwoPhase.rough(UNIT_SQUARE),
    source="He, Liu and Xu (2024), MgNO, section 5: a in {12, 2}, shorter correlation than in the FNO paper",
)
DARCY_LOGNORMAL = log_normal(
    "darcy-lognormal",
    LogNormal(GaussianRandomField(UNIT_SQUARE, alpha=2.0, tau=3.0, sigma=10.0, boundary="neumann")),
    source="smooth permeabilities with a standard deviation of about one in log a; our own setting",
)
