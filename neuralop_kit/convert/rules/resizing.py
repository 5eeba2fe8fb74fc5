"""Upsampling: between the points of a fine grid, interpolation tends to the function itself."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from neuralop_kit.convert.grid import Line
from neuralop_kit.convert.registry import Call, Conversion, Refusal, line_at, register_rule
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.rules.pooling import Held


class Interpolated:
    """Values at the points of another line, by cubics; at the reference resolution the upsampling that it was.

    ``nearest`` and ``bilinear`` are ways to read a function between points. On finer grids both come closer to the
    function itself, which is what this returns, at the places where the network has its points.
    """

    def __init__(self, original: Any, lines: Sequence[tuple[Line, Line]]) -> None:
        self.original, self.lines = original, tuple(lines)

    def __call__(self, u: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``(batch, channel, *space)``."""
        lead = u.ndim - len(self.lines)
        ratios = [source.ratio(n) for (source, _), n in zip(self.lines, u.shape[lead:], strict=True)]
        if all(ratio == 1 for ratio in ratios):
            return self.original(u, *args, **kwargs)
        for axis, ((source, target), ratio) in enumerate(zip(self.lines, ratios, strict=True)):
            u = read_between(u, lead + axis, source, target, ratio)
        return u


def read_between(u: Tensor, dim: int, source: Line, target: Line, ratio: int) -> Tensor:
    """Values at the points of ``target``, through the four nearest ones of ``source``."""
    n = u.shape[dim]
    # All of this is known from sizes; in float64, since places are compared with whole numbers.
    begin = ratio * float((target.start - source.start) / source.spacing)
    step = float(target.spacing / source.spacing)
    count = target.refined(target.out_ratio(ratio))
    places = begin + float(source.offset) * (step - 1) + step * torch.arange(count, dtype=torch.float64)
    if not source.wraps:
        # Beyond its interval a function keeps its last value, as upsampling does; a cubic would grow without a bound.
        offset = float(source.offset)
        places = places.clamp(-offset, n - 1 + offset)
    floors = places.floor()
    t = (places - floors).to(u)
    first = floors.to(u.device, torch.int64) - 1
    if not source.wraps:
        # Beyond an end and next to it the cubic is that of the last four points.
        inside = first.clamp(0, max(n - 4, 0))
        t, first = t + (first - inside), inside
    weights = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    column = [-1 if d == dim else 1 for d in range(u.ndim)]
    total = torch.zeros((), dtype=u.dtype, device=u.device)
    for tap, weight in enumerate(weights):
        index = (first + tap) % n if source.wraps else (first + tap).clamp(max=n - 1)
        total = total + u.index_select(dim, index) * weight.reshape(column)
    return total


@register_rule(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, *functions("interpolate", "upsample"))
def upsample(call: Call) -> Conversion:
    """The function on a line with another spacing."""
    field = call.field
    if isinstance(call.target, nn.Module):
        corners, mode = bool(call.target.align_corners), call.target.mode
    else:
        corners, mode = bool(call.argument(4, "align_corners", False)), call.argument(3, "mode", "nearest")
    lines = []
    for dim in range(2, len(field.layout)):
        source, count = line_at(field, dim), call.output.shape[dim]
        if corners:
            spacing = source.spacing * Fraction(source.num_points - 1, max(count - 1, 1))
            first = source.first(1)
        else:
            spacing = source.spacing * Fraction(source.num_points, count)
            first = source.first(1) + (spacing - source.spacing) / 2
        lines.append((source, source.moved(first=first, spacing=spacing, num_points=count)))
    layout = (*field.layout[:2], *((target,) for _, target in lines))
    if not field.is_free:
        return Conversion(layout, f"resizing, {mode}", limit="fixed latent grid")
    if any(target.num_points < source.num_points for source, target in lines):
        if call.settings.fixed_latent:
            held = tuple(
                (target.moved(first=target.first(1), spacing=target.spacing, num_points=target.num_points, held=True),)
                for _, target in lines
            )
            kernel = call.settings.kernel
            return Conversion(
                (*field.layout[:2], *held), f"resizing, {mode}", target=Held(call.target, field.layout, kernel),
                limit=f"order {kernel.order}",
            )  # fmt: skip
        if mode not in ("bilinear", "bicubic", "linear", "trilinear", "nearest", "nearest-exact"):
            raise Refusal(f"resizing by {mode!r} averages over points; use a pooling layer")
    return Conversion(layout, f"resizing, {mode}", target=Interpolated(call.target, lines), limit="order 4 to identity")
