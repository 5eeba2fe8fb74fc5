"""Distributions of noise with scale 1, drawn like a parameter from a generator of its device."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from neuralop_kit.optim.base import real_view, state_dtype
from neuralop_kit.optim.sharded import is_sharded, shard_like


class Noise(ABC):
    """A symmetric distribution with independent entries; leaves have no state."""

    @abstractmethod
    def sample(self, zeros: Tensor, generator: torch.Generator) -> Tensor:
        """Fill ``zeros``, a real floating tensor, with draws."""

    def sample_like(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of the shape, dtype and device of ``parameter``; both parts of a complex number are drawn.

        Of a DTensor every process draws the whole and keeps its part: noise does not depend on how it is sharded.
        """
        dtype = state_dtype(parameter)
        if is_sharded(parameter):
            wide = torch.zeros(parameter.shape, dtype=dtype, device=parameter.device)
        else:
            wide = torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
        self.sample(real_view(wide), generator)
        return shard_like(wide.to(parameter.dtype), parameter)


class Gaussian(Noise):
    """Standard normal: variance 1."""

    def sample(self, zeros: Tensor, generator: torch.Generator) -> Tensor:
        """Normal draws."""
        return zeros.normal_(generator=generator)


class Laplace(Noise):
    """Density ``exp(-|x|) / 2``: variance 2."""

    def sample(self, zeros: Tensor, generator: torch.Generator) -> Tensor:
        """An exponential draw with a random sign."""
        signs = torch.empty_like(zeros).bernoulli_(generator=generator).mul_(2).sub_(1)
        return zeros.exponential_(generator=generator).mul_(signs)


class Uniform(Noise):
    """Uniform on [-1, 1]: variance 1/3."""

    def sample(self, zeros: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform draws."""
        return zeros.uniform_(-1.0, 1.0, generator=generator)


class Rademacher(Noise):
    """Plus or minus 1 with equal probability: variance 1, and no entry varies in size."""

    def sample(self, zeros: Tensor, generator: torch.Generator) -> Tensor:
        """Random signs."""
        return zeros.bernoulli_(generator=generator).mul_(2).sub_(1)
