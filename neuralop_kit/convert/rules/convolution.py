"""Convolutions and their transposes: trained taps at fixed distances, a cardinal function between them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from neuralop_kit.convert.grid import Line, Margin, Size, iterate_lines
from neuralop_kit.convert.kernels import Cubic, Dilated, Hat, Kernel, Spectral
from neuralop_kit.convert.registry import (
    Call,
    Conversion,
    Refusal,
    adopt,
    line_at,
    refuse_points_as_channels,
    register_rule,
)
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.sampling import Window, natural_ends, wall_of
from neuralop_kit.convert.smoothing import MODES, Extension, extend

_CONVOLVE: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED: dict[int, Any] = {
    1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d,
}  # fmt: skip


class FieldConv(nn.Module):
    """A trained convolution on any refinement of its grid.

        v(x) = b + sum_j w_j (phi * u)(x + j h0)

    with the smoothing ``phi`` of a :class:`Kernel`, axis by axis, and the taps at their trained distances; at the
    reference resolution bit for bit the convolution that it was. Cost per point: ``k^d + O(d r)``.
    """

    weight: Tensor
    bias: Tensor | None
    kernel: Kernel
    windows: tuple[Window, ...]
    pads: tuple[tuple[int, int], ...]
    mode: str
    groups: int

    def forward(self, u: Tensor) -> Tensor:
        """``(batch, in_channels, *space)`` on any refinement of the lines."""
        ratios = [window.source.ratio(n) for window, n in zip(self.windows, u.shape[2:], strict=True)]
        if all(ratio == 1 for ratio in ratios):
            return self._trained(u)
        readings = [window.read(ratio) for window, ratio in zip(self.windows, ratios, strict=True)]
        for axis, (window, reading, ratio) in enumerate(zip(self.windows, readings, ratios, strict=True)):
            before, after = reading.overhang(u.shape[2 + axis], window.taps)
            u = self.kernel.smooth(
                u, 2 + axis, window.source, ratio=ratio, shift=reading.shift, before=before, after=after,
                ends=self._ends(axis, ratio),
            )  # fmt: skip
        return self._convolve(u, [reading.step for reading in readings], [reading.gap for reading in readings])

    def _trained(self, u: Tensor) -> Tensor:
        """As torch does it."""
        stride = [window.stride for window in self.windows]
        dilation = [window.dilation for window in self.windows]
        if self.mode == "zeros" and all(left == right for left, right in self.pads):
            pads = [left for left, _ in self.pads]
            return _CONVOLVE[len(pads)](u, self.weight, self.bias, stride, pads, dilation, self.groups)
        around = [n for pair in reversed(self.pads) for n in pair]
        padded = functional.pad(u, around, mode="constant" if self.mode == "zeros" else self.mode)
        return self._convolve(padded, stride, dilation)

    def _convolve(self, u: Tensor, stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
        return _CONVOLVE[len(stride)](u, self.weight, self.bias, list(stride), 0, list(dilation), self.groups)

    def _ends(self, axis: int, ratio: int) -> Extension:
        line = self.windows[axis].source
        if self.pads[axis] == (0, 0):
            return natural_ends(line, self.kernel)
        ramp = ratio if line.nodes.name == "vertex" else 1
        return Extension(self.mode, ramp=ramp, wall=wall_of(line, self.kernel))

    def extra_repr(self) -> str:
        """Shown by ``print(operator)``."""
        taps = "x".join(str(window.taps) for window in self.windows)
        return f"{self.weight.shape[1] * self.groups}, {self.weight.shape[0]}, taps={taps}, kernel={self.kernel}"


class FieldConvTranspose(nn.Module):
    """A trained transposed convolution on any refinement of its grid.

    Its taps lie at the spacing of the output, ``h0/s``, and that is how wide ``phi`` is; each input point counts
    ``1/r`` per axis. The points between those that the taps reach have to get something, so
    :class:`Hat` takes the place of :class:`Dilated` and :class:`Spectral` here.
    """

    weight: Tensor
    bias: Tensor | None
    kernel: Kernel
    windows: tuple[Window, ...]
    pads: tuple[int, ...]
    output_pads: tuple[int, ...]
    strides: tuple[int, ...]
    slopes: tuple[int, ...]
    constants: tuple[int, ...]
    groups: int

    def forward(self, u: Tensor) -> Tensor:
        """``(batch, in_channels, *space)`` on any refinement of the lines."""
        num_dims = len(self.windows)
        ratios = [window.source.ratio(n) for window, n in zip(self.windows, u.shape[2:], strict=True)]
        dilation = [window.dilation for window in self.windows]
        if all(ratio == 1 for ratio in ratios):
            arguments = (self.strides, self.pads, self.output_pads, self.groups, dilation)
            return _TRANSPOSED[num_dims](u, self.weight, self.bias, *arguments)
        extra = []
        for axis, (window, ratio) in enumerate(zip(self.windows, ratios, strict=True)):
            # Inputs beyond the ends reach the output through the taps and the width of the kernel.
            reach = ratio * (window.dilation * (window.taps - 1) + 4)
            extra.append(math.ceil(reach / self.strides[axis]) + 1)
            u = extend(u, 2 + axis, extra[axis], extra[axis], self._ends(axis, ratio))
        gaps = [ratio * window.dilation for window, ratio in zip(self.windows, ratios, strict=True)]
        v = _TRANSPOSED[num_dims](u, self.weight, None, self.strides, 0, 0, self.groups, gaps)
        for axis, (window, ratio) in enumerate(zip(self.windows, ratios, strict=True)):
            v = self._smooth(v, 2 + axis, window, ratio, extra[axis] * self.strides[axis])
        return v if self.bias is None else v + self.bias.reshape(-1, *[1] * num_dims)

    def _smooth(self, v: Tensor, dim: int, window: Window, ratio: int, lead: int) -> Tensor:
        target = window.target
        # Twice the index of the first output in the untrimmed product, as in Window.
        twice = self.slopes[dim - 2] * ratio + self.constants[dim - 2] + 2 * lead
        first, count = twice // 2, target.refined(ratio)
        return self.kernel.smooth(
            v, dim, target, ratio=ratio, shift=(twice % 2) / 2, before=-first, after=first + count - v.shape[dim],
            ends=Extension("zeros"),
        )  # fmt: skip

    def _ends(self, axis: int, ratio: int) -> Extension:
        window = self.windows[axis]
        if window.dilation * (window.taps - 1) < self.strides[axis]:
            return natural_ends(window.source, self.kernel)
        ramp = ratio if window.source.nodes.name == "vertex" else 1
        return Extension("zeros", ramp=ramp, wall=wall_of(window.source, self.kernel))


def limit_of(kernel: Kernel, lines: Sequence[Line], mode: str, *, padded: bool) -> str:
    """What the report says about the order."""
    off_wall = any(line.nodes.name in ("cell", "interior") for line in lines)
    if kernel == Dilated() and padded and off_wall and mode in ("reflect", "replicate"):
        return "order 1: the mirror moves with the last point"
    if kernel == Dilated():
        return kernel.order
    if padded and mode == "zeros" and any(line.nodes.name == "left" for line in lines):
        return "order 1: zeros jump at the seam of a periodic axis"
    return f"order {kernel.order}"


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(call: Call) -> Conversion:
    """Any stride, dilation, groups and padding."""
    module: Any = call.target
    num_dims = module.weight.ndim - 2
    field, kernel = call.field, call.settings.kernel
    _expect_dims(call, num_dims)
    if _acts_at_points(module) and not any(line.margin for line in iterate_lines(field.layout)):
        # Whatever its dimensions are: one axis each, flattened points, or none behind a mean over space.
        layout = (field.layout[0], (Size(module.out_channels),), *field.layout[2:])
        return Conversion(layout, "pointwise convolution")
    lines = [line_at(field, 2 + axis) for axis in range(num_dims)]
    mode, pads = _padding(module, lines)
    windows = []
    for axis, line in enumerate(lines):
        _check_ends(line, mode, pads[axis], kernel)
        hold = call.settings.fixed_latent and module.stride[axis] > 1
        windows.append(
            Window.strided(
                replace(line, margin=None), module.kernel_size[axis], dilation=module.dilation[axis],
                stride=module.stride[axis], left=pads[axis][0], count=call.output.shape[2 + axis], hold=hold,
            )
        )  # fmt: skip
    layout = (field.layout[0], (Size(module.out_channels),), *((window.target,) for window in windows))
    if all(line.held for line in lines) and not any(line.margin for line in lines):
        return Conversion(layout, "convolution", limit="fixed latent grid")
    converted = adopt(module, FieldConv, windows=tuple(windows), kernel=kernel, pads=tuple(pads), mode=mode)
    limit = limit_of(kernel, lines, mode, padded=any(any(pair) for pair in pads))
    return Conversion(layout, f"convolution, {kernel.name}", target=converted, limit=limit)


def _acts_at_points(module: Any) -> bool:
    padded = not isinstance(module.padding, str) and any(module.padding)
    return all(n == 1 for n in (*module.kernel_size, *module.stride)) and not padded


def _expect_dims(call: Call, num_dims: int) -> None:
    field = call.field
    if len(field.layout) != num_dims + 2:
        raise Refusal(f"it expects {num_dims} space dimensions, and its input is {field.shape} without a batch")
    refuse_points_as_channels(field)


def _padding(module: Any, lines: Sequence[Line]) -> tuple[str, list[tuple[int, int]]]:
    """Mode, and points on both sides of each axis; a padding layer before counts in."""
    mode = module.padding_mode
    if isinstance(module.padding, str):
        totals = [d * (k - 1) if module.padding == "same" else 0
                  for d, k in zip(module.dilation, module.kernel_size, strict=True)]  # fmt: skip
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        pads = [(p, p) for p in module.padding]
    margins = [line.margin for line in lines]
    if not any(margins):
        return mode, pads
    modes = {margin.mode for margin in margins if margin} | ({mode} if any(any(p) for p in pads) else set())
    if len(modes) > 1:
        raise Refusal(f"its input is padded by {sorted(modes)} one after the other; use one mode")
    both = [
        (left + margin.left, right + margin.right) if margin else (left, right)
        for (left, right), margin in zip(pads, margins, strict=True)
    ]
    return modes.pop(), both


def _check_ends(line: Line, mode: str, pads: tuple[int, int], kernel: Kernel) -> None:
    exclusive = line.nodes.name in ("left", "cell")
    if mode == "circular" and any(pads) and not exclusive:
        raise Refusal("circular padding needs an axis whose far end is not a node; declare the axis periodic")
    if kernel == Spectral() and not line.held and not (line.wraps and (mode == "circular" or not any(pads))):
        raise Refusal("the spectral kernel needs periodic axes and circular padding; take kernel=Hat() or Cubic()")


@register_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(call: Call) -> Conversion:
    """Any stride, dilation, groups and padding."""
    module: Any = call.target
    num_dims = module.weight.ndim - 2
    field = call.field
    kernel = Cubic() if call.settings.kernel == Cubic() else Hat()
    _expect_dims(call, num_dims)
    windows = []
    for axis in range(num_dims):
        line = line_at(field, 2 + axis)
        if line.margin:
            raise Refusal("padding is followed by a transposed convolution; pad afterwards")
        taps, dilation, stride = module.kernel_size[axis], module.dilation[axis], module.stride[axis]
        spacing = line.spacing / stride
        first = line.first(1) + spacing * (module.padding[axis] - Fraction(dilation * (taps - 1), 2))
        target = line.moved(first=first, spacing=spacing, num_points=call.output.shape[2 + axis])
        windows.append(Window(line, target, taps, dilation))
    layout = (field.layout[0], (Size(module.out_channels),), *((window.target,) for window in windows))
    if all(window.source.held for window in windows):
        return Conversion(layout, "transposed convolution", limit="fixed latent grid")
    converted = adopt(
        module, FieldConvTranspose, windows=tuple(windows), kernel=kernel,
        pads=tuple(module.padding), output_pads=tuple(module.output_padding), strides=tuple(module.stride),
        slopes=tuple(
            int(2 * (w.target.start - w.source.start) / w.target.spacing) + w.dilation * (w.taps - 1) for w in windows
        ),
        constants=tuple(int(2 * w.source.offset * (1 - s)) for w, s in zip(windows, module.stride, strict=True)),
    )  # fmt: skip
    overlaps = any(w.dilation * (w.taps - 1) >= s for w, s in zip(windows, module.stride, strict=True))
    limit = limit_of(kernel, [w.source for w in windows], "zeros", padded=overlaps)
    return Conversion(layout, f"transposed convolution, {kernel.name}", target=converted, limit=limit)


@register_rule(*functions("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"))
def functional_convolution(call: Call) -> Conversion:
    """Weights that are no parameters of a layer have no name to keep."""
    raise Refusal("a functional convolution has no module that owns its weights; use nn.Conv")


@register_rule(nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d,
               nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d, nn.ZeroPad1d,
               nn.ZeroPad2d, nn.ZeroPad3d, *functions("pad"))  # fmt: skip
def padding(call: Call) -> Conversion:
    """Carried out by the convolution that follows."""
    around: Any
    if isinstance(call.target, nn.Module):
        name = type(call.target).__name__.lower()
        mode = next(m for m in (*MODES, "reflection", "replication", "zero") if name.startswith(m.rstrip("s")[:7]))
        mode = {"reflection": "reflect", "replication": "replicate", "zero": "zeros"}.get(mode, mode)
        around = call.target.padding
    else:
        mode = call.argument(2, "mode", "constant")
        around = call.argument(1, "pad")
        if mode == "constant":
            if call.argument(3, "value", 0) not in (0, None):
                raise Refusal("padding by a constant other than zero; pad by zeros")
            mode = "zeros"
    layout = list(call.field.layout)
    for index in range(len(around) // 2):
        left, right = around[2 * index], around[2 * index + 1]
        if min(left, right) < 0:
            raise Refusal("it cuts points off, which at another resolution are others; take unpadded convolutions")
        dim = len(layout) - 1 - index
        if left or right:
            layout[dim] = (replace(line_at(call.field, dim), margin=Margin(left, right, mode)),)
    return Conversion(tuple(layout), f"padding, {mode}", target=Postponed(), limit="done by the convolution after it")


class Postponed:
    """Leaves the field as it is."""

    def __call__(self, u: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The field."""
        return u
