"""Functions of torch by name, wherever they live: ``torch.add``, ``Tensor.add``, ``operator.add``."""

import operator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_HOMES: tuple[Any, ...] = (torch, functional, Tensor, operator, torch.special)


def functions(*names: str) -> list[Any]:
    """Every function of one of these names, without duplicates; ``add`` finds ``__add__`` and ``__radd__`` as well."""
    found: dict[Any, None] = {}
    for name in names:
        for spelled in (name, f"__{name.strip('_')}__", f"__r{name.strip('_')}__"):
            for home in _HOMES:
                function = getattr(home, spelled, None)
                # Unhashable or plain values of the same name are no functions.
                if callable(function) and not isinstance(function, type):
                    found[function] = None
    return list(found)
