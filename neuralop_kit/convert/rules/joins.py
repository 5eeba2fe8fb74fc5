"""Where several tensors meet: sums, products, concatenations; tables of positions become functions here."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from neuralop_kit.convert.grid import Dim, Layout, Size, is_free, lines_of, num_points
from neuralop_kit.convert.registry import Call, Conversion, Refusal, plain, register_rule
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.sampling import refine_dim

ARITHMETIC = (
    "add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "maximum", "minimum", "where", "addcmul", "lerp",
    "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not", "and_", "or_", "subtract",
    "multiply", "divide", "true_divide", "fmod", "remainder", "atan2", "hypot", "copysign", "rsub",
    "iadd", "isub", "imul", "itruediv", "clamp", "clip", "clamp_min", "clamp_max",
)  # fmt: skip


class Aligned:
    """A function of several tensors, of which those on coarser refinements of a line are interpolated first."""

    takes_ratios = True

    def __init__(self, function: Callable[..., Any], held: Sequence[Layout], target: Layout, *, skip: int = -1) -> None:
        self.function, self.held, self.target, self.skip = function, tuple(held), target, skip

    def __call__(self, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Any:
        """Tensors are met in the order in which the rule saw them."""
        layouts = iter(self.held)
        args = tuple(self._aligned(value, layouts, ratios) for value in args)
        return self.function(*args, **{k: self._aligned(v, layouts, ratios) for k, v in kwargs.items()})

    def _aligned(self, value: Any, layouts: Any, ratios: Sequence[int]) -> Any:
        if isinstance(value, tuple | list):
            return [self._aligned(item, layouts, ratios) for item in value]
        if not isinstance(value, Tensor):
            return value
        layout = next(layouts)
        lead = len(self.target) - len(layout)
        for d, dim in enumerate(layout):
            wanted = self.target[lead + d]
            if num_points(dim) > 1 and is_free(wanted) and not is_free(dim) and lead + d != self.skip:
                value = refine_dim(value, d, wanted, ratios)
        return value


def unify(dims: Sequence[Dim]) -> Dim:
    """The one dimension that several, broadcast against each other, stand for."""
    wide = [dim for dim in dims if num_points(dim) > 1] or list(dims)
    spatial = [dim for dim in wide if lines_of(dim)]
    if not spatial:
        batch = [dim for dim in wide if any(isinstance(a, Size) and a.is_batch for a in dim)]
        return (batch or wide)[0]
    best = next((dim for dim in spatial if is_free(dim)), spatial[0])
    for dim in spatial:
        if not _same_points(dim, best):
            raise Refusal("it joins fields whose points lie differently; resample one of them first")
    return best


def _same_points(a: Dim, b: Dim) -> bool:
    lines, others = lines_of(a), lines_of(b)
    return len(lines) == len(others) and all(p.same_points(q) for p, q in zip(lines, others, strict=True))


def broadcast(layouts: Sequence[Layout]) -> Layout:
    """Layout of an elementwise function."""
    rank = max(map(len, layouts))
    padded = [(((Size(1),),) * (rank - len(layout)) + layout) for layout in layouts]
    return tuple(unify([layout[d] for layout in padded]) for d in range(rank))


def needs_alignment(layouts: Sequence[Layout], target: Layout) -> bool:
    """Whether a tensor is at the reference resolution where the result is not."""
    return any(
        is_free(wanted) and not is_free(dim) and num_points(dim) > 1
        for layout in layouts
        for dim, wanted in zip(layout, target[len(target) - len(layout) :], strict=True)
    )


def shift_note(layouts: Sequence[Layout]) -> str:
    """Says where a network joins fields whose points are a fraction of a spacing apart; the operator keeps that."""
    for column in zip(*layouts, strict=False):
        lines = [line for dim in column for line in lines_of(dim)]
        shifts = {abs(float(line.first(1) - lines[0].first(1))) for line in lines if line.axis == lines[0].axis}
        if max(shifts, default=0.0) > 0:
            return f", fields {max(shifts):g} spacings apart as in the network"
    return ""


@register_rule(*functions(*ARITHMETIC))
def arithmetic(call: Call) -> Conversion:
    """Values of several functions at the same points."""
    edges = call.edges
    if not edges:
        return Conversion(None, "numbers")
    layouts = [edge.layout for edge in edges]
    if len(layouts) == 1:
        return Conversion(layouts[0], "pointwise")
    target = broadcast(layouts)
    note = shift_note([layout for layout in layouts if len(layout) == len(target)])
    if not needs_alignment(layouts, target):
        return Conversion(target, "join", limit=f"pointwise{note}")
    return Conversion(target, "join", target=Aligned(call.target, layouts, target), limit=f"interpolation{note}")


@register_rule(*functions("cat", "concat", "concatenate"))
def concatenate(call: Call) -> Conversion:
    """Channels side by side."""
    edges = call.edges
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0)) % len(edges[0].layout)
    if any(is_free(edge.layout[dim]) for edge in edges):
        raise Refusal("it appends points to the points of a grid; take latent='fixed' or append channels")
    layouts = [edge.layout for edge in edges]
    target = list(broadcast([tuple((Size(1),) if d == dim else x for d, x in enumerate(a)) for a in layouts]))
    target[dim] = (Size(call.output.shape[dim]),)
    return _joined(call, layouts, tuple(target), dim, "concatenation")


@register_rule(*functions("stack"))
def stack(call: Call) -> Conversion:
    """A new dimension."""
    layouts = [edge.layout for edge in call.edges]
    dim = call.argument(1, "dim", 0) % (len(layouts[0]) + 1)
    target = broadcast(layouts)
    if needs_alignment(layouts, target):
        raise Refusal("it stacks fields of different resolutions; concatenate them")
    return Conversion((*target[:dim], (Size(len(layouts)),), *target[dim:]), "stack")


def _joined(call: Call, layouts: Sequence[Layout], target: Layout, dim: int, rule: str) -> Conversion:
    note = shift_note(layouts)
    if not needs_alignment(layouts, target):
        return Conversion(target, rule, limit=f"pointwise{note}")
    return Conversion(
        target, rule, target=Aligned(call.target, layouts, target, skip=dim), limit=f"interpolation{note}"
    )


@register_rule(*functions("linspace", "arange", "zeros", "ones", "full", "zeros_like", "ones_like", "meshgrid", "eye",
                          "tensor", "new_zeros", "new_ones", "rand", "randn"))  # fmt: skip
def table(call: Call) -> Conversion:
    """A table made at the reference resolution; where it meets a field, it is interpolated."""
    name = call.target.__name__
    if name.startswith("rand"):
        raise Refusal("random numbers at every point have no limit; draw them outside of the network")
    if name.endswith("_like"):
        return Conversion(call.field.layout, "constant")
    return Conversion(plain(call.output), "table")
