"""A piece without a rule, at the reference resolution, between two changes of the grid."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from neuralop_kit.convert.grid import Layout, Line, is_free, sizes_at
from neuralop_kit.convert.registry import adopt
from neuralop_kit.convert.sampling import move


class Sandwich:
    """Interpolates the inputs of a function to the reference points; what follows interpolates its output."""

    takes_ratios = True

    def __init__(self, original: Callable[..., Any], layouts: Sequence[Layout]) -> None:
        self.original, self.layouts = original, tuple(layouts)

    def __call__(self, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Any:
        """As the original."""
        args, kwargs = at_reference((args, kwargs), iter(self.layouts), ratios)
        return self.original(*args, **kwargs)


class SandwichModule(nn.Module):
    """The same for a module, put in front of its class: parameters and children stay where they are."""

    takes_ratios = True
    layouts: tuple[Layout, ...]

    def forward(self, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Any:
        """As the original."""
        args, kwargs = at_reference((args, kwargs), iter(self.layouts), ratios)
        return super().forward(*args, **kwargs)


def sandwich(target: Any, layouts: Sequence[Layout]) -> Callable[..., Any]:
    """A function or module that always runs at the reference resolution."""
    if not isinstance(target, nn.Module):
        return Sandwich(target, layouts)
    cls = type("Sandwich", (SandwichModule, type(target)), {})
    return adopt(target, cls, layouts=tuple(layouts))


def at_reference(value: Any, layouts: Iterator[Layout], ratios: Sequence[int]) -> Any:
    """Every tensor of a structure on the reference points of its layout."""
    if isinstance(value, dict):
        return {key: at_reference(item, layouts, ratios) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(at_reference(item, layouts, ratios) for item in value)
    return _moved(value, next(layouts), ratios) if isinstance(value, Tensor) else value


def _moved(x: Tensor, layout: Layout, ratios: Sequence[int]) -> Tensor:
    for dim, atoms in reversed(list(enumerate(layout))):
        if not is_free(atoms):
            continue
        parts = x.unflatten(dim, sizes_at(atoms, ratios))
        for offset, atom in enumerate(atoms):
            if isinstance(atom, Line):
                parts = move(parts, dim + offset, atom, atom.num_points)
        x = parts.flatten(dim, dim + len(atoms) - 1)
    return x
