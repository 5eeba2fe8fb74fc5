"""Norms over space: means become integrals. Norms over channels are functions at a point."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralop_kit.convert.grid import Dim, Line, is_free, lines_of, num_points, sizes_at
from neuralop_kit.convert.registry import Call, Conversion, Refusal, adopt, refuse_points_as_channels, register_rule
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.sampling import measure_of, refine_dim


class FieldNorm(nn.Module):
    """Group, instance or layer norm with the weights of the points in its means.

        v = a (u - m) / sqrt(s + epsilon) + b,      m = sum_i w_i u_i / sum_i w_i,   s likewise

    At the reference resolution it is torch's function, to the last bit.
    """

    takes_ratios = True
    dims: tuple[Dim, ...]
    num_groups: int
    eps: float
    weight: Tensor | None
    bias: Tensor | None
    trapezoid: bool
    original: Callable[[Any, Tensor], Tensor]

    def forward(self, u: Tensor, *, ratios: Sequence[int]) -> Tensor:
        """``(batch, channel, *space)``."""
        if not self.trapezoid and list(u.shape[2:]) == [num_points(dim) for dim in self.dims]:
            return self.original(self, u)
        grouped = u.unflatten(1, (self.num_groups, -1))
        centred = grouped - self._mean(grouped, ratios)
        normalised = (centred * (self._mean(centred.square(), ratios) + self.eps).rsqrt()).flatten(1, 2)
        for name in ("weight", "bias"):
            values = getattr(self, name, None)
            if values is not None:
                values = self._spread(values, ratios)
                normalised = normalised * values if name == "weight" else normalised + values
        return normalised

    def _mean(self, u: Tensor, ratios: Sequence[int]) -> Tensor:
        """Over the channels of a group and over space."""
        mean = u.mean(dim=2, keepdim=True)
        for d, dim in enumerate(self.dims):
            weights = measure_of(dim, sizes_at(dim, ratios), u, trapezoid=self.trapezoid)
            if weights is None:
                mean = mean.mean(dim=3 + d, keepdim=True)
            else:
                shaped = (weights / weights.sum()).reshape([-1 if i == 3 + d else 1 for i in range(u.ndim)])
                mean = (mean * shaped).sum(dim=3 + d, keepdim=True)
        return mean

    def _spread(self, values: Tensor, ratios: Sequence[int]) -> Tensor:
        """A number per channel for every point, or a table over the points between its entries."""
        if values.ndim == 1:
            return values.reshape(-1, *[1] * len(self.dims))
        for d, dim in enumerate(self.dims):
            values = refine_dim(values, 1 + d, dim, ratios)
        return values


def _group_norm(norm: Any, u: Tensor) -> Tensor:
    return functional.group_norm(u, norm.num_groups, norm.weight, norm.bias, norm.eps)


def _instance_norm(norm: Any, u: Tensor) -> Tensor:
    return functional.instance_norm(u, weight=norm.weight, bias=norm.bias, eps=norm.eps)


def _layer_norm(norm: Any, u: Tensor) -> Tensor:
    return functional.layer_norm(u, u.shape[1:], norm.weight, norm.bias, norm.eps)


@register_rule(nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def space_norm(call: Call) -> Conversion:
    """Statistics over space, per group or channel."""
    module: Any = call.target
    layout = call.field.layout
    if isinstance(module, nn.GroupNorm) or module.affine or module.track_running_stats:
        refuse_points_as_channels(call.field)
    if getattr(module, "track_running_stats", False):
        return Conversion(layout, "norm by running statistics", limit="pointwise (in evaluation)")
    groups = getattr(module, "num_groups", None) or call.output.shape[1]
    return _weighted(call, layout[2:], groups)


def _weighted(call: Call, dims: Sequence[Dim], groups: int) -> Conversion:
    """The original where all points weigh the same, sums with weights elsewhere."""
    module: Any = call.target
    rule = f"{type(module).__name__} over the domain"
    lines = [line for dim in dims for line in lines_of(dim)]
    table = module.weight is not None and module.weight.ndim > 1 and any(map(is_free, dims))
    if not table and not any(_is_uneven(line) for line in lines):
        return Conversion(call.field.layout, rule, limit="order 2, spectral on periodic axes")
    trapezoid = call.settings.trapezoid and any(map(_is_uneven, lines))
    converted = adopt(
        module,
        FieldNorm,
        dims=tuple(dims),
        num_groups=groups,
        trapezoid=trapezoid,
        original=_group_norm if isinstance(module, nn.GroupNorm) else _instance_norm,
    )
    return Conversion(call.field.layout, rule, target=converted, limit="order 2", exact=not trapezoid)


def _is_uneven(line: Line) -> bool:
    return line.nodes.end_weights(line.num_points) != (1.0, 1.0)


@register_rule(nn.LayerNorm, nn.RMSNorm)
def layer_norm(call: Call) -> Conversion:
    """Over the channels at a point, or over channels and the whole domain."""
    module: Any = call.target
    layout, count = call.field.layout, len(module.normalized_shape)
    if not any(lines_of(dim) for dim in layout[-count:]):
        return Conversion(layout, "norm over channels")
    if not any(is_free(dim) for dim in layout[-count:]):
        return Conversion(layout, "norm over channels and space", limit="fixed latent grid")
    if count != len(layout) - 1 or isinstance(module, nn.RMSNorm) or lines_of(layout[1]):
        raise Refusal("it normalises over points but not over all of space; use GroupNorm(1, channels)")
    converted = adopt(
        module, FieldNorm, dims=tuple(layout[2:]), num_groups=1, original=_layer_norm,
        trapezoid=call.settings.trapezoid and any(_is_uneven(line) for dim in layout for line in lines_of(dim)),
    )  # fmt: skip
    return Conversion(
        layout, "LayerNorm over the domain", target=converted, limit="order 2", exact=not converted.trapezoid
    )


@register_rule(*functions("layer_norm", "normalize"))
def functional_norm(call: Call) -> Conversion:
    """Over channels only."""
    layout = call.field.layout
    if call.target is torch.nn.functional.layer_norm:
        dims = list(range(-len(call.argument(1, "normalized_shape")), 0))
    else:
        dim = call.argument(2, "dim", 1)
        dims = list(dim) if isinstance(dim, tuple | list) else [dim]
    if any(is_free(layout[dim]) for dim in dims):
        raise Refusal("it normalises over points; use nn.GroupNorm, which becomes a norm over the domain")
    return Conversion(layout, "norm over channels")
