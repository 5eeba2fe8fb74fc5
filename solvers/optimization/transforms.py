"""Iterations under transforms of ``torch.func``."""

from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError
from neuralop_kit.solvers.transforms import hides_samples


def refuse_vmap(*tensors: Tensor) -> None:
    """Iterations end by values, which a tensor has not got whose samples are hidden; other transforms are welcome."""
    if any(map(hides_samples, tensors)):
        raise ArgumentError(
            "expected tensors whose values can be read, got samples of torch.func.vmap; the solver takes a batch "
            "itself, each item with its own iterations: join the mapped axis with it, as in layer(x.flatten(0, 1))"
        )
