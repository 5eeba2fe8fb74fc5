"""The medium and the source of de Hoop, Huang, Qian and Stuart's Helmholtz problem, which MgNO learns."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralop_kit.solvers.randomness import Generators, standard_normal

NUM_MODES = 100
CUTOFF = 16


def modes() -> list[tuple[int, int]]:
    """The first hundred pairs ``(i, j)`` by growing ``i^2 + j^2``, without (0, 0).

    >>> modes()[:4], modes()[-1]
    ([(0, 1), (1, 0), (1, 1), (0, 2)], (4, 10))
    """
    pairs = [(i, j) for i in range(CUTOFF) for j in range(CUTOFF) if (i, j) != (0, 0)]
    return sorted(pairs, key=lambda pair: pair[0] ** 2 + pair[1] ** 2)[:NUM_MODES]


@dataclass(frozen=True)
class HuangSpeed:
    """Random speeds of sound on the unit square, as functions.

        c = 20 + tanh(a),   a = sum_ij theta_ij (pi^2 (i^2 + j^2) + 9)^-1 phi_ij,   theta_ij ~ N(0, 1)

    ``phi_ij = s_i s_j cos(pi i x) cos(pi j y)`` with ``s_0 = 1`` and ``s_k = sqrt 2``.

    Args:
        theta: ``(batch, 100)``, float64, in the order of :func:`modes`.

    Source: de Hoop et al. (2022), arXiv 2203.13181, section 4.2.

    >>> speed = HuangSpeed(torch.zeros(2, 100, dtype=torch.float64))
    >>> speed(torch.rand(2, 5, 5, dtype=torch.float64)).unique()
    tensor([20.], dtype=torch.float64)
    """

    theta: Tensor

    @classmethod
    def draw(cls, batch: int, *, generator: Generators = None) -> "HuangSpeed":
        """Random speeds: ``theta`` standard normal."""
        return cls(standard_normal(batch, (NUM_MODES,), generator))

    def __call__(self, coordinates: Tensor) -> Tensor:
        """Speeds ``(batch, *points)`` at coordinates ``(2, *points)``."""
        pairs = torch.tensor(modes(), device=self.theta.device)
        amplitude = 1 / (math.pi**2 * (pairs**2).sum(dim=1) + 9)
        amplitude = amplitude * torch.where(pairs == 0, 1.0, math.sqrt(2.0)).prod(dim=1)
        table = self.theta.new_zeros(len(self.theta), CUTOFF, CUTOFF)
        table[:, pairs[:, 0], pairs[:, 1]] = self.theta * amplitude
        points = coordinates.flatten(1)
        numbers = torch.arange(CUTOFF, dtype=points.dtype, device=points.device)[:, None]
        along_x, along_y = (torch.cos(math.pi * numbers * line) for line in points)
        series = ((table @ along_y) * along_x).sum(dim=1)
        return 20 + torch.tanh(series).unflatten(-1, coordinates.shape[1:])


def top_source(coordinates: Tensor, normal: Tensor) -> Tensor:
    """Flux 1 through the top wall where ``|x - 1/2| <= 0.14``, falling to 0 at 0.15; on 101 nodes, nodes 36 to 64."""
    profile = ((0.15 - (coordinates[0] - 0.5).abs()) * 100).clamp(0, 1)
    return profile * (normal[1] > 0)
