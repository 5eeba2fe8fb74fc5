"""What acts at every point by itself: right at every resolution as it is."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from neuralop_kit.convert.grid import Layout, Line, as_line, is_free
from neuralop_kit.convert.registry import Call, Conversion, Refusal, refuse_points_as_channels, register_rule
from neuralop_kit.convert.rules.attention import softmax_along
from neuralop_kit.convert.rules.names import functions
from neuralop_kit.convert.rules.shapes import with_sizes
from neuralop_kit.layers.interpolation import Trigonometric

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
    nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.Tanhshrink,
)  # fmt: skip
ACTIVATION_NAMES = (
    "relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "sigmoid",
    "tanh", "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "softsign", "tanhshrink", "sin", "cos", "erf",
)  # fmt: skip
FUNCTION_NAMES = (
    "abs", "neg", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal", "sign", "pos", "expm1", "log1p",
    "contiguous", "clone", "detach", "to", "float", "double", "half", "type_as", "nan_to_num", "isnan", "sinh", "cosh",
)  # fmt: skip


class AliasFree:
    """An activation on a grid twice as fine: its harmonics are cut off instead of being aliased.

        v = Down(sigma(Up(u))),      both by Fourier series on periodic axes

    Source: convolutional neural operators, Raonic et al. (2023), section 3.
    """

    def __init__(self, function: Callable[..., Tensor], lines: Sequence[tuple[int, Line]]) -> None:
        self.function, self.lines = function, tuple(lines)

    def __call__(self, u: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Up along each axis, the function, down again."""
        sizes = [u.shape[dim] for dim, _ in self.lines]
        for (dim, line), n in zip(self.lines, sizes, strict=True):
            u = _resampled(u, dim, line, 2 * n)
        v = self.function(u, *args, **kwargs)
        for (dim, line), n in zip(self.lines, sizes, strict=True):
            v = _resampled(v, dim, line, n)
        return v


def _resampled(u: Tensor, dim: int, line: Line, num_points: int) -> Tensor:
    rows = u.movedim(dim, 1)
    return Trigonometric()(rows.flatten(2), line.as_axis(), num_points).unflatten(2, rows.shape[2:]).movedim(1, dim)


def _alias_free_lines(layout: Layout) -> list[tuple[int, Line]]:
    lines = [(dim, as_line(atoms)) for dim, atoms in enumerate(layout) if is_free(atoms)]
    return [(dim, line) for dim, line in lines if line is not None and line.wraps]


@register_rule(*ACTIVATIONS, *functions(*ACTIVATION_NAMES))
def activation(call: Call) -> Conversion:
    """Values through a function; in the alias-free version on a finer grid."""
    layout = call.field.layout
    if isinstance(call.target, nn.PReLU) and call.target.num_parameters > 1:
        refuse_points_as_channels(call.field)
    lines = _alias_free_lines(layout) if call.settings.alias_free else []
    # PReLU and its like have parameters; they stay as they are.
    if not lines or (isinstance(call.target, nn.Module) and list(call.target.parameters())):
        return Conversion(layout, "activation")
    function = call.target.forward if isinstance(call.target, nn.Module) else call.target
    return Conversion(layout, "alias-free activation", target=AliasFree(function, lines), limit="spectral", exact=False)


@register_rule(nn.Identity, *functions(*FUNCTION_NAMES))
def pointwise(call: Call) -> Conversion:
    """Values through a function."""
    return Conversion(call.field.layout, "pointwise")


@register_rule(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, *functions("dropout"))
def dropout(call: Call) -> Conversion:
    """Nothing in evaluation; while training, channels may be dropped, single points become noise without a limit."""
    return Conversion(call.field.layout, "dropout", limit="pointwise (in evaluation)")


@register_rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm(call: Call) -> Conversion:
    """A factor and a shift per channel in evaluation."""
    if not call.target.track_running_stats:
        raise Refusal("batch statistics in evaluation make items depend on each other; track running statistics")
    refuse_points_as_channels(call.field)
    return Conversion(call.field.layout, "batch norm", limit="pointwise (in evaluation)")


@register_rule(nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.GLU)
def channel_function(call: Call) -> Conversion:
    """A function of the channels at each point, or a softmax over points."""
    layout = call.field.layout
    dim = -3 if isinstance(call.target, nn.Softmax2d) else call.target.dim
    if isinstance(call.target, nn.Softmax) and dim is not None:
        return softmax_along(call, dim)
    if dim is None or is_free(layout[dim]):
        raise Refusal("it acts along the points of the grid; use softmax followed by a matrix product")
    if isinstance(call.target, nn.GLU):
        return Conversion(with_sizes(layout, call.output.shape), "gate")
    return Conversion(layout, "softmax over channels")
