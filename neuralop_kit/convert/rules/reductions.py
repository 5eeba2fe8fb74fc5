"""Sums and means over points become integrals; the largest value stays what it is."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from neuralop_kit.convert.grid import Dim, Layout, Size, is_free, lines_of, sizes_at
from neuralop_kit.convert.registry import Call, Conversion, Refusal, register_rule
from neuralop_kit.convert.rules.joins import arithmetic
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.rules.shapes import with_sizes
from neuralop_kit.convert.sampling import measure_of


class Integral:
    """A sum or mean in which every point has its weight.

    sum_i w_i u_i,      or that divided by sum_i w_i
    """

    takes_ratios = True

    def __init__(self, layout: Layout, dims: Sequence[int], *, keepdim: bool, mean: bool, trapezoid: bool) -> None:
        self.layout, self.dims, self.keepdim, self.mean = layout, tuple(dims), keepdim, mean
        self.trapezoid = trapezoid

    def __call__(self, u: Tensor, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Tensor:
        """Arguments of the original call are ignored: they name the dimensions."""
        for d in self.dims:
            weights = measure_of(self.layout[d], sizes_at(self.layout[d], ratios), u, trapezoid=self.trapezoid)
            if weights is not None:
                u = u * weights.reshape([-1 if i == d else 1 for i in range(u.ndim)])
            elif not self.mean:
                u = u * scale_of(self.layout[d], ratios)
        total = u.sum(dim=self.dims, keepdim=self.keepdim)
        if not self.mean:
            return total
        counts = 1
        for d in self.dims:
            dim = self.layout[d]
            uneven = measure_of(dim, sizes_at(dim, ratios), u, trapezoid=self.trapezoid) is not None
            counts *= _product(atom.num_points for atom in dim) if uneven else u.shape[d]
        return total / counts


def scale_of(dim: Dim, ratios: Sequence[int]) -> float:
    """What a point of an even grid stands for, in reference points."""
    return _product(a.num_points for a in dim if not _is_measure(a)) / _product(
        n for a, n in zip(dim, sizes_at(dim, ratios), strict=True) if not _is_measure(a)
    )


def _is_measure(atom: Any) -> bool:
    return getattr(atom, "is_measure", False)


def _product(numbers: Any) -> int:
    product = 1
    for n in numbers:
        product *= n
    return product


def reduced_dims(call: Call, position: int = 1) -> tuple[list[int], bool]:
    """Which dimensions a reduction removes, and whether it keeps them with size one."""
    rank = len(call.field.layout)
    dim = call.argument(position, "dim")
    dims = list(range(rank)) if dim is None else list(dim) if isinstance(dim, tuple | list) else [dim]
    return [d % rank for d in dims], bool(call.argument(position + 1, "keepdim", False))


def without(layout: Layout, dims: Sequence[int], *, keepdim: bool) -> Layout:
    """The layout after a reduction."""
    return tuple((Size(1),) if d in dims else dim for d, dim in enumerate(layout) if keepdim or d not in dims)


@register_rule(*functions("mean", "sum"))
def integral(call: Call) -> Conversion:
    """Weights where points were counted."""
    layout = call.field.layout
    dims, keepdim = reduced_dims(call)
    target = without(layout, dims, keepdim=keepdim)
    if not any(lines_of(layout[d]) for d in dims):
        return Conversion(target, "sum over channels")
    name, trapezoid = call.target.__name__, call.settings.trapezoid
    uneven = any(
        line.nodes.end_weights(line.num_points) != (1.0, 1.0) for d in dims for line in lines_of(layout[d])
    )  # fmt: skip
    free = any(is_free(layout[d]) for d in dims)
    if not free or (name == "mean" and not uneven):
        return Conversion(target, "integral", limit="order 2, spectral on periodic axes")
    changed = trapezoid and uneven
    integrate = Integral(layout, dims, keepdim=keepdim, mean=name == "mean", trapezoid=trapezoid)
    exact = AtReference(call.target, integrate, layout, dims) if not changed else integrate
    return Conversion(target, "integral", target=exact, limit="order 2", exact=not changed)


class AtReference:
    """The original function at the reference resolution, to the last bit, and an integral elsewhere."""

    takes_ratios = True

    def __init__(
        self, original: Callable[..., Any], integral: Callable[..., Any], layout: Layout, dims: Sequence[int]
    ) -> None:
        self.original, self.integral = original, integral
        self.axes = {line.axis for d in dims for line in lines_of(layout[d]) if not line.held}

    def __call__(self, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Any:
        """As the original."""
        if all(ratios[axis] == 1 for axis in self.axes):
            return self.original(*args, **kwargs)
        return self.integral(*args, ratios=ratios, **kwargs)


@register_rule(*functions("amax", "amin"))
def extremum(call: Call) -> Conversion:
    """Largest and smallest values: over more points a better bound of the same number."""
    dims, keepdim = reduced_dims(call)
    layout = without(call.field.layout, dims, keepdim=keepdim)
    return Conversion(layout, "extremum", limit="order 2 inside, 1 at walls")


@register_rule(*functions("var", "std", "norm", "prod", "cumsum", "median", "argmax", "argmin", "sort", "topk", "max",
                          "min", "any", "all", "logsumexp"))  # fmt: skip
def other_reduction(call: Call) -> Conversion:
    """Over channels only."""
    edges = call.edges
    if len(edges) > 1:
        return arithmetic(call)
    name = call.target.__name__
    dims, keepdim = reduced_dims(call, position=2 if name in ("norm", "topk") else 1)
    if any(lines_of(call.field.layout[d]) for d in dims):
        raise Refusal(f"{name} over points is no integral that a rule knows; use mean, sum or amax")
    layout = without(call.field.layout, dims, keepdim=keepdim)
    if name in ("cumsum", "sort", "topk"):
        first = call.output if isinstance(call.output, Tensor) else call.output[0]
        layout = with_sizes(call.field.layout, first.shape)
    if isinstance(call.output, Tensor):
        return Conversion(layout, "function of the channels")
    return Conversion(tuple(layout for _ in call.output), "function of the channels")
