"""Descent from values of the loss alone, for solvers that cannot be differentiated."""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from neuralop_kit.optim.noise import Gaussian, Noise, Rademacher
from neuralop_kit.optim.zeroth_order import LossFunction, ZerothOrder
from neuralop_kit.solvers.errors import ArgumentError


class SPSA(ZerothOrder):
    """Simultaneous perturbation: two losses per direction, whatever the number of weights.

        g = 1/n sum_i (L(theta + c z_i) - L(theta - c z_i)) / (2 c) * z_i

    Unbiased up to ``O(c^2)``; on a quadratic exactly, with ``E |g - grad|^2 = (P - 1)/n |grad|^2`` for P weights and
    random signs, ``(P + 1)/n`` for Gaussian directions.

    Args:
        params, lr, num_samples, exact, weight_decay, generator: see :class:`ZerothOrder`.
        radius: c > 0; small against the scale on which the loss bends, large against its rounding.
        noise: by default random signs; ``Gaussian()`` with ``exact=False`` is MeZO.

    Also called weight perturbation. :class:`NodePerturbation` puts the noise on the outputs of layers instead.
    Good values: radius 1e-3 in float32, 1e-4 in float64; lr about P times smaller than for gradient descent.
    Source: Spall (1992); seed replay: Malladi et al. (2023), "Fine-tuning language models with just forward passes".

    >>> weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    >>> optimizer = SPSA([weight], lr=0.1)
    >>> losses = [optimizer.step(lambda: weight.square().sum()) for _ in range(50)]
    >>> bool(losses[-1] < 0.1)
    True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        *,
        radius: float = 1e-3,
        num_samples: int = 1,
        noise: Noise | None = None,
        exact: bool = True,
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        self.radius = check_radius(radius)
        super().__init__(
            params, lr, num_samples=num_samples, noise=noise or Rademacher(), exact=exact, weight_decay=weight_decay,
            generator=generator,
        )  # fmt: skip

    def probe(self, function: LossFunction, seeds: list[int]) -> tuple[Tensor, list[Tensor]]:
        """Central differences."""
        pairs = [torch.stack(self.values_along(function, seed, [self.radius, -self.radius])) for seed in seeds]
        slopes = [(pair[0] - pair[1]) / (2 * self.radius * len(seeds)) for pair in pairs]
        return torch.stack(pairs).mean(), slopes


# The name of the same rule in the literature on learning in brains, beside node perturbation.
WeightPerturbation = SPSA


class EvolutionStrategy(ZerothOrder):
    """Antithetic evolution strategy: moves towards perturbations that did well, by rank.

        g = 1/(2 n c) sum_i (F(theta + c z_i) - F(theta - c z_i)) z_i,    F = rank of the loss in [-1/2, 1/2]

    Ranks make it indifferent to the scale of the loss and to outliers, so ``g`` is a direction, not an estimate of the
    gradient; with ``ranked=False`` F is the loss, and ``g`` is unbiased for the gradient of the loss averaged over the
    perturbations.

    Args:
        params, lr, num_samples, exact, weight_decay, generator: see :class:`ZerothOrder`; ``num_samples`` counts pairs.
        radius: c > 0; here a scale on which to smooth, often 0.01 to 0.1.
        ranked: by rank or by value.

    Good values: 16 to 256 pairs.
    Source: Salimans et al. (2017), "Evolution strategies as a scalable alternative", with its rank shaping.

    >>> weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    >>> optimizer = EvolutionStrategy([weight], lr=0.01, num_samples=8)
    >>> losses = [optimizer.step(lambda: weight.square().sum()) for _ in range(50)]
    >>> bool(losses[-1] < 0.1)
    True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        *,
        radius: float = 0.05,
        num_samples: int = 16,
        ranked: bool = True,
        exact: bool = True,
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        self.radius, self.ranked = check_radius(radius), ranked
        super().__init__(
            params, lr, num_samples=num_samples, noise=Gaussian(), exact=exact, weight_decay=weight_decay,
            generator=generator,
        )  # fmt: skip

    def probe(self, function: LossFunction, seeds: list[int]) -> tuple[Tensor, list[Tensor]]:
        """Shaped central differences."""
        pairs = torch.stack(
            [torch.stack(self.values_along(function, seed, [self.radius, -self.radius])) for seed in seeds]
        )
        shaped = centred_ranks(pairs) if self.ranked else pairs
        slopes = (shaped[:, 0] - shaped[:, 1]) / (2 * self.radius * len(seeds))
        # A loss that is not finite has a rank, but no meaning.
        return pairs.mean(), list(slopes.unbind())


def centred_ranks(values: Tensor) -> Tensor:
    """Ranks of all entries, evenly on [-1/2, 1/2]; equal values share the mean of their ranks.

    >>> centred_ranks(torch.tensor([[3.0, 1.0], [1.0, 7.0]]))
    tensor([[ 0.1667, -0.3333],
            [-0.3333,  0.5000]])
    """
    flat = values.flatten()
    below = (flat.unsqueeze(0) < flat.unsqueeze(1)).sum(dim=1)
    equal = (flat.unsqueeze(0) == flat.unsqueeze(1)).sum(dim=1)
    ranks = below + (equal - 1) / 2
    return (ranks / max(len(flat) - 1, 1) - 0.5).view(values.shape).to(values.dtype)


def check_radius(radius: float) -> float:
    """``radius``, or an :class:`ArgumentError`."""
    if not 0.0 < radius < float("inf"):
        raise ArgumentError(f"expected radius > 0, got {radius}; 1e-3 is usual")
    return radius
