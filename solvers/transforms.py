"""What transforms of ``torch.func`` hide from solvers that look at values."""

import torch
from torch import Tensor


def hides_samples(x: Tensor) -> bool:
    """Whether values are hidden that ``torch.func.vmap`` maps over.

    Not so within ``jacrev`` and ``jacfwd``, which map over derivatives only.
    """
    return torch.func.debug_unwrap(x, recurse=True).ndim != x.ndim
