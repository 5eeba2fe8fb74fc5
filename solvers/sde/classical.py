"""Stochastic methods of low order and fixed steps: Euler-Maruyama, Milstein, Heun."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from neuralop_kit.solvers.sde.method import Coefficient, Noise, StochasticMethod, TrialStep


@dataclass(frozen=True)
class EulerMaruyama(StochasticMethod):
    """One evaluation of each coefficient: ``y + h f + W g``, in the sense of Ito.

    Strong order 1/2 (1 where the diffusion does not depend on the state), weak order 1.
    Source: Maruyama (1955); Kloeden and Platen (1992), eq. 10.2.4.
    """

    strong_order: ClassVar[float] = 0.5
    weak_order: ClassVar[float] = 1.0

    def step(
        self, drift: Coefficient, diffusion: Coefficient, t: Tensor, y: Tensor, h: Tensor, noise: Noise
    ) -> TrialStep:
        """One step."""
        return TrialStep(y + h * drift(t, y) + noise.value * diffusion(t, y))


@dataclass(frozen=True)
class Milstein(StochasticMethod):
    """Euler-Maruyama and the first correction, ``g g' (W^2 - h) / 2``, in the sense of Ito.

    The derivative is a difference along the diffusion itself: no derivative of ``g`` is asked for. Each component of
    the diffusion may depend on its own component of the state only; for others the order is that of Euler-Maruyama.

    Strong order 1, weak order 1.
    Source: Milstein (1974); Kloeden and Platen (1992), eq. 11.1.3.
    """

    strong_order: ClassVar[float] = 1.0
    weak_order: ClassVar[float] = 1.0

    def step(
        self, drift: Coefficient, diffusion: Coefficient, t: Tensor, y: Tensor, h: Tensor, noise: Noise
    ) -> TrialStep:
        """One step."""
        f, g = drift(t, y), diffusion(t, y)
        root = h.sqrt()
        change = diffusion(t, y + h * f + root * g) - g
        return TrialStep(y + h * f + noise.value * g + change * (noise.value**2 - h) / (2 * root))


@dataclass(frozen=True)
class HeunStratonovich(StochasticMethod):
    """The trapezoidal rule for drift and diffusion with an Euler step as predictor, in the sense of Stratonovich.

    Converges to the solution of the equation read with midpoint integrals: the Ito equation with drift
    ``f + g g' / 2``. Strong order 1 for diagonal noise, weak order 1; order 2 where the diffusion vanishes.
    Source: Kloeden and Platen (1992), eq. 12.1.9 and exercise 12.1.
    """

    calculus: ClassVar[str] = "stratonovich"
    strong_order: ClassVar[float] = 1.0
    weak_order: ClassVar[float] = 1.0
    num_stages: ClassVar[int] = 2

    def step(
        self, drift: Coefficient, diffusion: Coefficient, t: Tensor, y: Tensor, h: Tensor, noise: Noise
    ) -> TrialStep:
        """One step."""
        f, g = drift(t, y), diffusion(t, y)
        ahead, later = y + h * f + noise.value * g, t + h
        f, g = f + drift(later, ahead), g + diffusion(later, ahead)
        return TrialStep(y + h / 2 * f + noise.value / 2 * g)
