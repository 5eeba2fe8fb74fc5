"""What transforms of ``torch.func`` hide from solvers that look at values."""

import torch
from torch import Tensor

from neuralop_kit.solvers.errors import ArgumentError


def refuse_vmap(*tensors: Tensor) -> None:
    """Iterations end by values, which a tensor has not got whose samples ``torch.func.vmap`` hides.

    Other transforms are welcome; ``jacrev`` and ``jacfwd`` hide samples of derivatives only.
    """
    if any(torch.func.debug_unwrap(x, recurse=True).ndim != x.ndim for x in tensors):
        raise ArgumentError(
            "expected tensors whose values can be read, got samples of torch.func.vmap; the solver takes a batch "
            "itself, each item with its own iterations: join the mapped axis with it, as in layer(x.flatten(0, 1))"
        )
