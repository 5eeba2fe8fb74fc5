"""Matrix products: a contraction over points is an integral."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from neuralop_kit.convert.grid import Dim, Layout, Size, is_free, lines_of, num_points, sizes_at
from neuralop_kit.convert.registry import Call, Conversion, Refusal, register_rule
from neuralop_kit.convert.rules.joins import broadcast, unify
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.rules.reductions import scale_of
from neuralop_kit.convert.sampling import measure_of, refine_dim


class Contraction:
    """A product that sums over points, with their weights in the first factor.

        sum_i a_i w_i b_i

    A factor that is a measure already, such as attention after its softmax, has the weights in it. A factor of
    reference size, such as a table, is interpolated.
    """

    takes_ratios = True

    def __init__(
        self, original: Callable[..., Tensor], layouts: Sequence[Layout], wanted: Sequence[Layout],
        summed: Sequence[int], *, trapezoid: bool,
    ) -> None:  # fmt: skip
        self.original, self.layouts, self.wanted = original, tuple(layouts), tuple(wanted)
        self.summed, self.trapezoid = tuple(summed), trapezoid

    def __call__(self, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Tensor:
        """Two tensors; for einsum an equation comes first."""
        lead = [a for a in args if not isinstance(a, Tensor)]
        factors = [self._refined(a, i, ratios) for i, a in enumerate(a for a in args if isinstance(a, Tensor))]
        for d in self.summed:
            factors[0] = self._weighted(factors[0], d, ratios)
        return self.original(*lead, *factors, **kwargs)

    def _refined(self, x: Tensor, which: int, ratios: Sequence[int]) -> Tensor:
        for d, (dim, wanted) in enumerate(zip(self.layouts[which], self.wanted[which], strict=True)):
            if is_free(wanted) and not is_free(dim) and num_points(dim) > 1:
                x = refine_dim(x, d, wanted, ratios)
        return x

    def _weighted(self, x: Tensor, d: int, ratios: Sequence[int]) -> Tensor:
        dim = self.wanted[0][d]
        weights = measure_of(dim, sizes_at(dim, ratios), x, trapezoid=self.trapezoid)
        if weights is None:
            scale = scale_of(dim, ratios)
            return x if scale == 1 else x * scale
        return x * weights.reshape([-1 if i == d else 1 for i in range(x.ndim)])


@register_rule(*functions("matmul", "bmm", "mm", "baddbmm"))
def matrix_product(call: Call) -> Conversion:
    """``(..., i, k) (..., k, j)``."""
    edges = call.edges
    if len(edges) != 2 or min(len(edge.layout) for edge in edges) < 2:
        raise Refusal("a product with a vector or of three tensors has no rule; write it with two matrices")
    first, second = edges[0].layout, edges[1].layout
    batch = broadcast([first[:-2], second[:-2]]) if len(first) > 2 or len(second) > 2 else ()
    summed = unify([_not_measure(first[-1]), _not_measure(second[-2])])
    wanted = [
        (*batch[len(batch) - len(first) + 2 :], first[-2], _like(summed, first[-1])),
        (*batch[len(batch) - len(second) + 2 :], _like(summed, second[-2]), second[-1]),
    ]
    measure = any(line.is_measure for dim in (first[-1], second[-2]) for line in lines_of(dim))
    weights = [len(first) - 1] if lines_of(summed) and not measure else []
    return _contracted(call, (*batch, first[-2], second[-1]), wanted, weights)


@register_rule(*functions("einsum"))
def einsum(call: Call) -> Conversion:
    """By the letters of the equation."""
    edges = call.edges
    equation = call.args[0].replace(" ", "")
    if "." in equation or "->" not in equation or len(edges) != 2 or not isinstance(call.args[1], Tensor | object):
        raise Refusal("an einsum of two tensors with an explicit result and no ellipsis has a rule, others have none")
    if isinstance(call.args[1], tuple | list):
        raise Refusal("pass the tensors of an einsum one by one")
    inputs, result = equation.split("->")
    names = inputs.split(",")
    dims: dict[str, list[Dim]] = {}
    for letters, edge in zip(names, edges, strict=True):
        for letter, dim in zip(letters, edge.layout, strict=True):
            dims.setdefault(letter, []).append(dim)
    joined = {letter: unify([_not_measure(dim) for dim in options]) for letter, options in dims.items()}
    wanted = [
        tuple(_like(joined[letter], dim) for letter, dim in zip(letters, edge.layout, strict=True))
        for letters, edge in zip(names, edges, strict=True)
    ]
    weights = []
    for letter, options in dims.items():
        if letter in result or not lines_of(joined[letter]):
            continue
        if letter not in names[0]:
            raise Refusal("it sums the second tensor over points by itself; use sum, then multiply")
        if not any(line.is_measure for dim in options for line in lines_of(dim)):
            weights.append(names[0].index(letter))
    return _contracted(call, tuple(joined[letter] for letter in result), wanted, weights)


def _not_measure(dim: Dim) -> Dim:
    from dataclasses import replace

    return tuple(atom if isinstance(atom, Size) else replace(atom, is_measure=False) for atom in dim)


def _like(joined: Dim, own: Dim) -> Dim:
    """The joined dimension, unless this factor is broadcast along it."""
    return own if num_points(own) == 1 else joined


def _contracted(call: Call, target: Layout, wanted: Sequence[Layout], summed: Sequence[int]) -> Conversion:
    layouts = [edge.layout for edge in call.edges]
    refined = any(
        is_free(w) and not is_free(own) and num_points(own) > 1
        for layout, want in zip(layouts, wanted, strict=True) for own, w in zip(layout, want, strict=True)
    )  # fmt: skip
    free = [d for d in summed if is_free(wanted[0][d])]
    if not refined and not free:
        return Conversion(target, "product over channels")
    product = Contraction(call.target, layouts, wanted, free, trapezoid=False)
    return Conversion(target, "integral of a product" if free else "product", target=product, limit="order 2")
