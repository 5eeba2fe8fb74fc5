"""Pooling: averages over a box, the largest value in a closed window, and whatever becomes one number."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from neuralop_kit.convert.grid import Layout, is_free
from neuralop_kit.convert.kernels import Kernel, box_weights
from neuralop_kit.convert.registry import Call, Conversion, Refusal, line_at, register_rule
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.sampling import Reading, Window, natural_ends, reference_of
from neuralop_kit.convert.smoothing import Extension, extend, weigh


class BoxAverage:
    """Averages over boxes of a fixed size; at the reference resolution the pooling that it was.

        v(x) = integral_{B(x)} u dy / |B(x)|

    The part of a box that lies beyond a wall does not count, or counts as zero if the pooling padded.
    """

    def __init__(self, original: Any, windows: Sequence[Window], *, zeros: bool) -> None:
        self.original, self.windows, self.zeros = original, tuple(windows), zeros

    def __call__(self, u: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``(batch, channel, *space)``."""
        lead = u.ndim - len(self.windows)
        ratios = [w.source.ratio(n) for w, n in zip(self.windows, u.shape[lead:], strict=True)]
        if all(ratio == 1 for ratio in ratios):
            return self.original(u, *args, **kwargs)
        for axis, (window, ratio) in enumerate(zip(self.windows, ratios, strict=True)):
            u = self._along(u, lead + axis, window, ratio)
        return u

    def _along(self, u: Tensor, dim: int, window: Window, ratio: int) -> Tensor:
        line, reading = window.source, Window(window.source, window.target).read(ratio)
        before, after = reading.overhang(u.shape[dim], 1)
        shift, ends = reading.shift, Extension("zeros") if self.zeros or not line.wraps else natural_ends(line)
        on_walls = line.nodes.name in ("vertex", "interior") and u.shape[dim] > 1 and not self.zeros
        if on_walls:
            # By the cells between points: a wall is the end of one. The first begins at point 0, or at the wall before.
            lead = int(line.nodes.name == "interior")
            u = _means_between(extend(u, dim, lead, lead, natural_ends(line)), dim)
            before, after, shift = before - lead, after - lead + 1, shift - 0.5
        weights, lowest = box_weights(window.taps * ratio, shift)

        def average(x: Tensor) -> Tensor:
            return weigh(x, dim, weights, lowest=lowest, before=before, after=after, ends=ends, step=reading.step)

        if line.wraps or self.zeros:
            return average(u)
        # Beyond a wall there is nothing: a box is as long as its part inside.
        return average(u) / average(u.new_ones([n if d == dim else 1 for d, n in enumerate(u.shape)]))


def _means_between(u: Tensor, dim: int) -> Tensor:
    """Means of the cells between neighbours."""
    n = u.shape[dim] - 1
    return (u.narrow(dim, 0, n) + u.narrow(dim, 1, n)) / 2


class ClosedMaximum:
    """Largest value in closed windows of a fixed size; at the reference resolution the pooling that it was.

    v(x) = max { u(y) : |y_a - x_a| <= (k_a - 1) h0 / 2 }
    """

    def __init__(self, original: Any, windows: Sequence[Window]) -> None:
        self.original, self.windows = original, tuple(windows)

    def __call__(self, u: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``(batch, channel, *space)``."""
        lead = u.ndim - len(self.windows)
        ratios = [w.source.ratio(n) for w, n in zip(self.windows, u.shape[lead:], strict=True)]
        if all(ratio == 1 for ratio in ratios):
            return self.original(u, *args, **kwargs)
        for axis, (window, ratio) in enumerate(zip(self.windows, ratios, strict=True)):
            u = self._along(u, lead + axis, window, window.read(ratio), ratio)
        return u

    def _along(self, u: Tensor, dim: int, window: Window, reading: Reading, ratio: int) -> Tensor:
        # Where the window begins between two points, it holds one fewer.
        between = int(reading.shift > 0)
        first, width = reading.first + between, ratio * window.dilation * (window.taps - 1) + 1 - between
        last = first + reading.step * (reading.count - 1) + width - 1
        padded = extend(u, dim, -first, last - (u.shape[dim] - 1), natural_ends(window.source))
        rows = padded.movedim(dim, -1)
        pooled = functional.max_pool1d(rows.flatten(1, -2), width, reading.step)
        return pooled.unflatten(1, rows.shape[1:-1]).movedim(-1, dim)


class Held:
    """A function at the reference resolution: averages against the kernel around the reference points go in."""

    takes_ratios = True

    def __init__(self, original: Any, layout: Layout, kernel: Kernel) -> None:
        self.original, self.layout, self.kernel = original, layout, kernel

    def __call__(self, u: Tensor, *args: Any, ratios: Sequence[int], **kwargs: Any) -> Any:
        """The first argument is the field."""
        return self.original(reference_of(u, self.layout, ratios, self.kernel), *args, **kwargs)


def _tuple(value: Any, count: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),) * count


def _options(call: Call, names: Sequence[str]) -> dict[str, Any]:
    """Arguments of a pooling, whether they are in a module or in the call."""
    if isinstance(call.target, nn.Module):
        return {name: getattr(call.target, name, None) for name in names}
    return {name: call.argument(1 + i, name) for i, name in enumerate(names)}


def _windows(call: Call, options: dict[str, Any], num_dims: int) -> list[Window]:
    field = call.field
    size = _tuple(options["kernel_size"], num_dims)
    stride = _tuple(options["stride"] or size, num_dims)
    padding = _tuple(options.get("padding") or 0, num_dims)
    dilation = _tuple(options.get("dilation") or 1, num_dims)
    lead = len(field.layout) - num_dims
    return [
        Window.strided(
            line_at(field, lead + a), size[a], dilation=dilation[a], stride=stride[a], left=padding[a],
            count=call.output.shape[lead + a], hold=call.settings.fixed_latent and stride[a] > 1,
        )
        for a in range(num_dims)
    ]  # fmt: skip


def _pooled(call: Call, windows: Sequence[Window], rule: str, target: Any, limit: str) -> Conversion:
    lead = len(call.field.layout) - len(windows)
    layout = (*call.field.layout[:lead], *((window.target,) for window in windows))
    if not call.field.is_free:
        return Conversion(layout, rule, limit="fixed latent grid")
    return Conversion(layout, rule, target=target, limit=limit)


def _num_dims(call: Call) -> int:
    name = type(call.target).__name__ if isinstance(call.target, nn.Module) else call.target.__name__
    return int(next(letter for letter in name if letter in "123"))


@register_rule(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, *functions("avg_pool1d", "avg_pool2d", "avg_pool3d"))
def average_pool(call: Call) -> Conversion:
    """The mean over a box."""
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    options = _options(call, names)
    if options["ceil_mode"] or options["divisor_override"]:
        raise Refusal("ceil_mode and divisor_override count points, not lengths; leave them out")
    num_dims = _num_dims(call)
    windows = _windows(call, options, num_dims)
    padded = any(_tuple(options["padding"] or 0, num_dims))
    zeros = padded and options["count_include_pad"] is not False
    limit = "order 1: zeros jump at the wall" if zeros else "order 2"
    return _pooled(call, windows, "average pooling", BoxAverage(call.target, windows, zeros=zeros), limit)


@register_rule(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, *functions("max_pool1d", "max_pool2d", "max_pool3d"))
def max_pool(call: Call) -> Conversion:
    """The largest value in a closed window."""
    options = _options(call, ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"))
    if options["return_indices"]:
        raise Refusal("indices of points hold for one resolution only; pool without return_indices")
    windows = _windows(call, options, _num_dims(call))
    return _pooled(call, windows, "max pooling", ClosedMaximum(call.target, windows), "order 1 to 2")


@register_rule(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
               *functions("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"))  # fmt: skip
def adaptive_average_pool(call: Call) -> Conversion:
    """The mean over equal parts of the domain, whose number is fixed."""
    return _adaptive(call, "adaptive average pooling")


@register_rule(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
               *functions("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"))  # fmt: skip
def adaptive_max_pool(call: Call) -> Conversion:
    """The largest value in equal parts of the domain, whose number is fixed."""
    return _adaptive(call, "adaptive max pooling")


def _adaptive(call: Call, rule: str) -> Conversion:
    num_dims, field = _num_dims(call), call.field
    if not isinstance(call.output, Tensor):
        raise Refusal("indices of points hold for one resolution only; pool without return_indices")
    lead = len(field.layout) - num_dims
    windows = []
    for dim in range(lead, len(field.layout)):
        line, count = line_at(field, dim), call.output.shape[dim]
        size, rest = divmod(line.num_points, count)
        if rest:
            return _held(call, lead, rule)
        windows.append(Window.strided(line, size, dilation=1, stride=size, left=0, count=count, hold=True))
    target = (
        ClosedMaximum(call.target, windows) if "max" in rule else BoxAverage(call.target, windows, zeros=False)
    )  # fmt: skip
    return _pooled(call, windows, rule, target, "order 1 to 2" if "max" in rule else "order 2")


def _held(call: Call, lead: int, rule: str) -> Conversion:
    """Parts of unequal size: at the reference resolution."""
    layout = list(call.field.layout)
    for dim in range(lead, len(layout)):
        line, count = line_at(call.field, dim), call.output.shape[dim]
        spacing = Fraction(line.num_points, count) * line.spacing
        first = line.first(1) + (spacing - line.spacing) / 2
        layout[dim] = (line.moved(first=first, spacing=spacing, num_points=count, held=True),)
    if not any(is_free(dim) for dim in call.field.layout):
        return Conversion(tuple(layout), rule, limit="fixed latent grid")
    kernel = call.settings.kernel
    return Conversion(
        tuple(layout), rule, target=Held(call.target, call.field.layout, kernel), limit=f"order {kernel.order}"
    )
