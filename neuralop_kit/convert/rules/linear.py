"""Matrices: over channels at every point, or over the points themselves."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from neuralop_kit.convert.grid import Layout, Size, is_free, lines_of
from neuralop_kit.convert.kernels import Kernel
from neuralop_kit.convert.registry import Call, Conversion, Refusal, adopt, register_rule
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.sampling import reference_of


class PointLinear(nn.Module):
    """A matrix over the points, or over points and channels, with the kernel between its columns.

        v_j = b_j + sum_i W_ji m_i,      m_i = integral phi(x/h0 - i) u(x) dx / h0

    which is ``integral K_j(x) u(x) dx`` with ``K_j`` the interpolant of row ``j``. The output has reference size; where
    it meets a field it is interpolated.
    """

    takes_ratios = True
    weight: Tensor
    bias: Tensor | None
    layout: Layout
    kernel: Kernel

    def forward(self, u: Tensor, *, ratios: Sequence[int]) -> Tensor:
        """The last dimension is the one that the matrix multiplies."""
        last = (*((Size(n),) for n in u.shape[:-1]), self.layout[-1])
        return functional.linear(reference_of(u, last, ratios, self.kernel), self.weight, self.bias)


@register_rule(nn.Linear)
def linear(call: Call) -> Conversion:
    """By what the last dimension is."""
    module: Any = call.target
    layout = call.field.layout
    target = (*layout[:-1], (Size(module.out_features),))
    if not lines_of(layout[-1]):
        return Conversion(target, "linear over channels")
    if not is_free(layout[-1]):
        return Conversion(target, "linear over points", limit="fixed latent grid")
    kernel = call.settings.kernel
    converted = adopt(module, PointLinear, layout=layout, kernel=kernel)
    return Conversion(target, f"linear over points, {kernel.name}", target=converted, limit=f"order {kernel.order}")


@register_rule(nn.Bilinear, *functions("bilinear"))
def bilinear(call: Call) -> Conversion:
    """At a point only."""
    first, second = (edge.layout for edge in call.edges[:2])
    if lines_of(first[-1]) or lines_of(second[-1]):
        raise Refusal("a bilinear form over points has no rule; use attention")
    return Conversion((*first[:-1], (Size(call.output.shape[-1]),)), "bilinear over channels")


@register_rule(*functions("linear"))
def functional_linear(call: Call) -> Conversion:
    """Over channels only: a matrix over points would have to be known by name."""
    layout = call.field.layout
    if lines_of(layout[-1]):
        raise Refusal("a functional linear over points has no module that owns its matrix; use nn.Linear")
    return Conversion((*layout[:-1], (Size(call.output.shape[-1]),)), "linear over channels")


@register_rule(nn.Embedding, *functions("embedding"))
def embedding(call: Call) -> Conversion:
    """A table of vectors, indexed by something that is no space."""
    if call.field.is_free:
        raise Refusal("an embedding of indices at every point is no function of the field; embed coordinates")
    return Conversion((*call.field.layout, (Size(call.output.shape[-1]),)), "table")
