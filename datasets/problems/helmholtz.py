"""Waves of one frequency in a random medium: speed of sound to field."""

import math
from collections.abc import Sequence

import torch

from neuralop_kit.datasets.description import Parameter
from neuralop_kit.datasets.problems.base import Problem, Samples
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.pde import Helmholtz, HuangSpeed, top_source

# Around which the speed of sound varies.
SPEED = 20.0


class HelmholtzWaves(Problem):
    """The field of a source on the top wall of a square whose speed of sound varies by two per cent.

        -Lap u - (1000/c)^2 u = 0 in (0, 1)^2,     du/dn = 1 where y = 1 and |x - 1/2| < 0.15, else 0

    Published on 101 x 101 nodes, where the discrete solution is 59 % away from that of the equation: data on another
    grid are those of another problem.

    >>> from neuralop_kit.datasets import PROBLEMS
    >>> samples = PROBLEMS["helmholtz-mgno"].sample([torch.Generator().manual_seed(0)], (101, 101))
    >>> samples.target.shape, samples.converged.item()
    (torch.Size([1, 1, 101, 101]), True)
    """

    name = "helmholtz-mgno"
    setting = "mgno"
    equation = (
        "-Lap u - (omega/c)^2 u = 0 in (0, 1)^2, du/dn = g on the top wall and 0 on the others; input c, target u"
    )
    source = (
        "de Hoop, Huang, Qian and Stuart (2022), as learned by MgNO (He, Liu and Xu, 2024); random numbers are our own"
    )
    domain = Domain.box((1.0, 1.0), boundary="neumann")
    input_names = ("speed",)
    target_names = ("field",)
    units = {"speed": "1", "field": "1"}  # noqa: RUF012 - read only, as a mapping
    parameters = {"omega": Parameter(1000.0, "1", "angular frequency")}  # noqa: RUF012

    def sample(self, generators: Sequence[torch.Generator], shape: Sequence[int]) -> Samples:
        """Draw speeds and solve for their fields."""
        speed = HuangSpeed.draw(len(generators), generator=generators)
        u, info = Helmholtz.mgno().solve_function(speed, (shape[0], shape[1]), flux=top_source)
        nodal = speed(self.domain.coordinates(shape, dtype=torch.float64))
        return Samples(input=nodal.unsqueeze(1), target=u, converged=info.converged)

    def difficulty(self, shape: Sequence[int]) -> dict[str, float]:
        """Waves along a side, and points for each."""
        waves = self.parameters["omega"].value / (2 * math.pi * SPEED)
        return {"waves": waves, "points_per_wave": (min(shape) - 1) / waves}
