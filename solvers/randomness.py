"""Random numbers for a batch: one generator for all samples, or one generator for each."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None


def standard_normal(batch: int, size: Sequence[int], generator: Generators) -> Tensor:
    """Normal numbers, shape ``(batch, *size)``, float64, on the device of the generator.

    Args:
        batch: number of samples.
        size: of one sample.
        generator: one for all, or one per sample, so that sample ``i`` depends on its own seed only; by default
            torch's global one. Float64 whatever the result will be: its stream differs from that of float32.

    Raises:
        ArgumentError: ``batch`` is not positive, or differs from the number of generators.
    """
    return _draw(torch.randn, batch, size, generator)


def uniform(batch: int, size: Sequence[int], generator: Generators) -> Tensor:
    """Numbers uniform in [0, 1); otherwise as :func:`standard_normal`."""
    return _draw(torch.rand, batch, size, generator)


def _draw(law: Callable[..., Tensor], batch: int, size: Sequence[int], generator: Generators) -> Tensor:
    """Numbers of one law."""
    if generator is not None and not isinstance(generator, torch.Generator):
        if len(generator) != batch:
            raise ArgumentError(
                f"expected one generator, or one per sample ({batch}), got {len(generator)}; make the counts equal"
            )
        return torch.cat([_draw(law, 1, size, own) for own in generator])
    if batch < 1:
        raise ArgumentError(f"expected batch >= 1, got {batch}; ask for at least one sample")
    place = torch.device("cpu") if generator is None else generator.device
    return law(batch, *size, dtype=torch.float64, device=place, generator=generator)


def global_states(device: torch.device) -> list[Tensor]:
    """States of torch's own generators, which tell whether a function drew from them; under a microsecond on a CPU."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states
