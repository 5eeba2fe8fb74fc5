"""Softmax over points: an integral over an integral, by weights inside of the exponential."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from neuralop_kit.convert.grid import Dim, Layout, Line, Size, is_free, lines_of, sizes_at
from neuralop_kit.convert.registry import Call, Conversion, Refusal, adopt, register_rule
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.sampling import measure_of


def log_weights(dim: Dim, ratios: Sequence[int], like: Tensor, *, trapezoid: bool) -> Tensor | None:
    """To be added to the logits of a softmax; ``None`` where all points weigh the same, for then they cancel."""
    if not trapezoid and all(ratios[line.axis] == 1 or line.held for line in lines_of(dim)):
        return None
    weights = measure_of(dim, sizes_at(dim, ratios), like, trapezoid=trapezoid)
    return None if weights is None else weights.log()


class FieldAttention(nn.MultiheadAttention):
    """Multi-head attention over the points of a field.

        v(x) = integral e^{q(x).k(y)/sqrt(d)} v(y) dy / integral e^{q(x).k(y)/sqrt(d)} dy

    by adding the logarithm of each key's weight to its logits.
    """

    takes_ratios = True
    keys: Dim
    trapezoid: bool

    def forward(  # type: ignore[override]
        self, query: Tensor, key: Tensor, value: Tensor, *, ratios: Sequence[int], need_weights: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Shapes as in torch; ``(batch, points, channels)`` with ``batch_first``."""
        bias = log_weights(self.keys, ratios, query, trapezoid=self.trapezoid)
        sequence = 1 if self.batch_first else 0
        mask = None if bias is None else bias.expand(query.shape[sequence], -1)
        return super().forward(query, key, value, attn_mask=mask, need_weights=False)


@register_rule(nn.MultiheadAttention)
def multihead_attention(call: Call) -> Conversion:
    """Self and cross attention without masks."""
    module: Any = call.target
    query, key, _ = (call.argument(i, name) for i, name in enumerate(("query", "key", "value")))
    for name in ("key_padding_mask", "attn_mask"):
        if call.argument({"key_padding_mask": 3, "attn_mask": 5}[name], name) is not None and key.is_free:
            raise Refusal(f"{name} names points by index; give a bias as a table that is added to the logits")
    keys = key.layout[1 if module.batch_first else 0]
    if key.is_free and (module.bias_k is not None or module.add_zero_attn):
        raise Refusal("it appends keys to those of the points, whose number grows; leave add_bias_kv and add_zero_attn")
    layout = (query.layout, None)
    if not key.is_free or not any(map(_is_uneven, lines_of(keys))):
        return Conversion(layout, "attention over points", limit="order 2, spectral on periodic axes")
    if call.kwargs.get("need_weights", True) and len(call.args) < 5 and isinstance(call.output[1], Tensor):
        layout = (query.layout, None)
    trapezoid = call.settings.trapezoid
    converted = adopt(module, FieldAttention, keys=keys, trapezoid=trapezoid)
    return Conversion(layout, "attention over points", target=converted, limit="order 2", exact=not trapezoid)


def _is_uneven(line: Line) -> bool:
    return line.nodes.end_weights(line.num_points) != (1.0, 1.0)


class FieldSoftmax:
    """Softmax along points with the logarithm of their weights added; the result is a measure."""

    takes_ratios = True

    def __init__(self, original: Any, layout: Layout, dim: int, *, trapezoid: bool) -> None:
        self.original, self.layout, self.dim, self.trapezoid = original, layout, dim, trapezoid

    def __call__(self, u: Tensor, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Tensor:
        """As the original."""
        bias = log_weights(self.layout[self.dim], ratios, u, trapezoid=self.trapezoid)
        if bias is not None:
            u = u + bias.reshape([-1 if d == self.dim else 1 for d in range(u.ndim)])
        return self.original(u, *args, **kwargs)


@register_rule(*functions("softmax"))
def softmax(call: Call) -> Conversion:
    """Over channels, or over points."""
    return softmax_along(call, call.argument(1, "dim", -1))


def softmax_along(call: Call, dim: int) -> Conversion:
    """The same for a module or function along a dimension."""
    layout = call.field.layout
    dim = dim % len(layout)
    lines = lines_of(layout[dim])
    if not lines:
        return Conversion(layout, "softmax over channels")
    shares = tuple(replace(a, is_measure=True) if isinstance(a, Line) else a for a in layout[dim])
    target = (*layout[:dim], shares, *layout[dim + 1 :])
    if not is_free(layout[dim]) or not any(map(_is_uneven, lines)):
        return Conversion(target, "softmax over points", limit="order 2, spectral on periodic axes")
    trapezoid = call.settings.trapezoid
    weighted = FieldSoftmax(call.target, layout, dim, trapezoid=trapezoid)
    return Conversion(target, "softmax over points", target=weighted, limit="order 2", exact=not trapezoid)


class FieldDotProduct:
    """``scaled_dot_product_attention`` with the logarithm of the keys' weights as its mask."""

    takes_ratios = True

    def __init__(self, keys: Dim, *, trapezoid: bool) -> None:
        self.keys, self.trapezoid = keys, trapezoid

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Tensor:
        """As torch's, without a mask of its own."""
        bias = log_weights(self.keys, ratios, q, trapezoid=self.trapezoid)
        mask = None if bias is None else bias.expand(q.shape[-2], -1)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=kwargs.get("scale"))


@register_rule(functional.scaled_dot_product_attention)
def dot_product_attention(call: Call) -> Conversion:
    """Without a mask, or with all points held."""
    query, key, value = (call.argument(i, name) for i, name in enumerate(("query", "key", "value")))
    target = (*query.layout[:-1], (Size(value.shape[-1]),))
    keys = key.layout[-2]
    mask = call.argument(3, "attn_mask")
    if (mask is not None or call.argument(5, "is_causal", False)) and is_free(keys):
        raise Refusal("a mask names points by index; add a bias table to the logits and use softmax")
    if not is_free(keys) or not any(map(_is_uneven, lines_of(keys))):
        return Conversion(target, "attention over points", limit="order 2, spectral on periodic axes")
    trapezoid = call.settings.trapezoid
    return Conversion(
        target, "attention over points", target=FieldDotProduct(keys, trapezoid=trapezoid), limit="order 2",
        exact=not trapezoid,
    )  # fmt: skip


class EncoderLayer(nn.Module):
    """A transformer encoder layer around a converted attention; the rest acts at every point."""

    takes_ratios = True
    norm_first: bool
    self_attn: FieldAttention

    def forward(self, u: Tensor, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Tensor:
        """``(batch, points, channels)``."""
        layer: Any = self
        if self.norm_first:
            u = u + self._attend(layer.norm1(u), ratios)
            return u + self._mix(layer.norm2(u))
        u = layer.norm1(u + self._attend(u, ratios))
        return layer.norm2(u + self._mix(u))

    def _attend(self, u: Tensor, ratios: Sequence[int]) -> Tensor:
        layer: Any = self
        return layer.dropout1(self.self_attn(u, u, u, ratios=ratios)[0])

    def _mix(self, u: Tensor) -> Tensor:
        layer: Any = self
        return layer.dropout2(layer.linear2(layer.dropout(layer.activation(layer.linear1(u)))))


@register_rule(nn.TransformerEncoderLayer)
def encoder_layer(call: Call) -> Conversion:
    """Attention, and a network at every point."""
    module: Any = call.target
    layout = call.field.layout
    keys = layout[1 if module.self_attn.batch_first else 0]
    if not is_free(keys):
        return Conversion(layout, "transformer layer", limit="fixed latent grid")
    converted = adopt(module, EncoderLayer)
    trapezoid = call.settings.trapezoid and any(map(_is_uneven, lines_of(keys)))
    converted._modules["self_attn"] = adopt(module.self_attn, FieldAttention, keys=keys, trapezoid=trapezoid)
    return Conversion(layout, "transformer layer", target=converted, limit="order 2", exact=not trapezoid)


@register_rule(nn.TransformerEncoder)
def encoder(call: Call) -> Conversion:
    """Its layers one after the other."""
    module: Any = call.target
    exact = True
    layers = adopt(module.layers, nn.ModuleList)
    for name, layer in module.layers._modules.items():
        conversion = encoder_layer(replace(call, target=layer))
        exact = exact and conversion.exact
        layers._modules[name] = conversion.target if isinstance(conversion.target, nn.Module) else layer
    converted = adopt(module, Encoder)
    converted._modules["layers"] = layers
    return Conversion(call.field.layout, "transformer", target=converted, limit="order 2", exact=exact)


class Encoder(nn.Module):
    """Transformer layers one after the other."""

    takes_ratios = True

    def forward(self, u: Tensor, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Tensor:
        """``(batch, points, channels)``."""
        module: Any = self
        for layer in module.layers:
            u = layer(u, ratios=ratios) if getattr(layer, "takes_ratios", False) else layer(u)
        return u if module.norm is None else module.norm(u)
