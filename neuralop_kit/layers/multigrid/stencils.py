"""Convolutions and depthwise transfers in one to three dimensions, with the ghost values of each axis."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from neuralop_kit.layers.multigrid.extensions import Extension

Shape = tuple[int, ...]

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def convolve(
    u: Tensor, kernel: Tensor, extensions: Sequence[Extension], *, bias: Tensor | None = None, stride: int = 1
) -> Tensor:
    """Apply a stencil of 3 points per axis to a field that goes on beyond its walls by the given rules.

    Shapes: ``u`` is ``(batch, in, *space)``, ``kernel`` is ``(out, in, 3, ...)``, the result ``(batch, out, *space)``.
    """
    padding = []
    for dim, extension in enumerate(extensions, start=2):
        if not extension.is_zero:
            u = extension.extend(u, dim)
        padding.append(int(extension.is_zero))
    v = _CONVOLVE[len(padding)](u, kernel, bias, stride=stride, padding=padding)
    # One channel has every layout at once, and the convolution then chooses the slow one for its result.
    return channels_last(v) if u.shape[1] == 1 and v.shape[1] > 1 else v


def depthwise(u: Tensor, lines: Sequence[Tensor], *, stride: Shape) -> Tensor:
    """Convolve every channel with the product of one line per axis, on strided points, without padding."""
    kernel = _product(lines, u)
    return _CONVOLVE[len(lines)](u, kernel, stride=stride, groups=u.shape[1])


def depthwise_transposed(u: Tensor, lines: Sequence[Tensor], *, stride: Shape, crop: Shape) -> Tensor:
    """Adjoint of :func:`depthwise`, with ``crop`` points cut off at both ends of each axis."""
    kernel = _product(lines, u)
    return _TRANSPOSE[len(lines)](u, kernel, stride=stride, padding=crop, groups=u.shape[1])


def channels_last(u: Tensor) -> Tensor:
    """The same field with its channels adjacent in memory, for which the CPU's convolutions are 2 to 4 times faster."""
    return u.movedim(1, -1).contiguous().movedim(-1, 1)


def _product(lines: Sequence[Tensor], u: Tensor) -> Tensor:
    """Outer product, repeated for every channel: ``(channels, 1, *sizes)``."""
    kernel = lines[0]
    for line in lines[1:]:
        kernel = kernel.unsqueeze(-1) * line
    kernel = kernel.to(u.dtype)
    return kernel.expand(u.shape[1], 1, *kernel.shape)
