"""How hard a problem in time is, in numbers that do not depend on its units: APEBench's coefficients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Difficulty:
    """Coefficients of a periodic problem ``u_t = sum_s a_s d^s u/dx^s + c u u_x``, with states of size ``amplitude``.

        gamma_s = a_s dt / L^s * N^s 2^(s-1) D,        delta_1 = c dt / L * amplitude * N D

    ``N`` points per axis, ``D`` dimensions, ``L`` the length: ``gamma_1`` is by how many cells the state moves in one
    step, ``gamma_2`` how far it diffuses. Equal numbers mean equally hard for a local network, whatever the units.

    Args:
        dt: time between two states.
        length: of an axis.
        linear: ``a_s`` by order ``s``.
        convection: ``c``.
        amplitude: largest absolute value of initial states.

    Source: Koehler, Niedermayr, Westermann and Thuerey (2024), APEBench, section 3 and appendix.

    >>> Difficulty(dt=0.025, length=1.0, linear={1: -1.0}).at((160,))
    {'gamma_1': -4.0}
    """

    dt: float
    length: float
    linear: Mapping[int, float] = field(default_factory=dict)
    convection: float = 0.0
    amplitude: float = 1.0

    def at(self, shape: Sequence[int]) -> dict[str, float]:
        """The coefficients on a grid with as many points along every axis as along the first."""
        n, dims = shape[0], len(shape)
        numbers = {
            f"gamma_{s}": a * self.dt / self.length**s * n**s * 2 ** (s - 1) * dims for s, a in self.linear.items()
        }
        if self.convection:
            numbers["delta_1"] = self.convection * self.dt / self.length * self.amplitude * n * dims
        return numbers
