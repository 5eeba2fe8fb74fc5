"""Products of a weight with a batch, recorded: what goes in, and what the residual makes of what comes out.

A layer ``y = W x + b`` inside a residual meets its weight in the forward pass and again in every derivative that the
residual takes with respect to its points. Each time it is one product, of an input with ``W`` or of a cotangent with
``W^T``; per sample, the derivative of the residual with respect to ``W`` is the sum over all of them of the outer
products ``cotangent (x) input``. :class:`Recorder` writes those factors down in one backward pass.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from neuralop_kit.optim.gram.recorder import Recorder


@dataclass(frozen=True)
class Use:
    """One product: the parameters in it, inputs ``(batch, tokens, d_in)``, cotangents ``(batch, tokens, d_out)``."""

    weight_index: int | None
    bias_index: int | None
    inputs: Tensor
    cotangents: Tensor


class Kernel(ABC):
    """A linear map given by a weight, which is cut off from autograd: its derivatives are recorded instead.

    Args:
        recorder: where uses are written down.
        weight, bias: the parameters; None for no bias.
    """

    def __init__(self, recorder: "Recorder", weight: Tensor, bias: Tensor | None) -> None:
        self.recorder = recorder
        self.weight_index, self.bias_index = recorder.index(weight), recorder.index(bias)
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()

    @abstractmethod
    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``W x + b``."""

    @abstractmethod
    def adjoint(self, g: Tensor, shape: Sequence[int]) -> Tensor:
        """``W^T g``, in the shape of ``x``."""

    @abstractmethod
    def input_tokens(self, x: Tensor) -> Tensor:
        """The rows that W multiplies, ``(batch, tokens, d_in)``."""

    @abstractmethod
    def output_tokens(self, g: Tensor) -> Tensor:
        """``(batch, tokens, d_out)``."""

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output."""
        return _Product.apply(x, self.recorder.anchor, self, True)

    def record(self, x: Tensor, g: Tensor, with_bias: bool) -> None:
        """Write one product down."""
        inputs, cotangents = self.input_tokens(x.detach()), self.output_tokens(g.detach())
        # Nothing that leads back to the recorder: in a cycle the factors of a step would outlive it.
        bias_index = self.bias_index if with_bias else None
        self.recorder.uses.append(Use(self.weight_index, bias_index, inputs, cotangents))


class LinearKernel(Kernel):
    """``torch.nn.functional.linear``: every axis but the first and the last holds tokens."""

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x W^T + b``."""
        return F.linear(x, self.weight, bias)

    def adjoint(self, g: Tensor, shape: Sequence[int]) -> Tensor:
        """``g W``."""
        return g @ self.weight

    def input_tokens(self, x: Tensor) -> Tensor:
        """Middle axes joined."""
        return x.unsqueeze(1) if x.ndim == 2 else x.reshape(x.shape[0], -1, x.shape[-1])

    def output_tokens(self, g: Tensor) -> Tensor:
        """Middle axes joined."""
        return g.unsqueeze(1) if g.ndim == 2 else g.reshape(g.shape[0], -1, g.shape[-1])


class ConvKernel(Kernel):
    """A convolution without padding and groups in 1 to 3 dimensions; its tokens are the patches."""

    def __init__(
        self, recorder: "Recorder", weight: Tensor, bias: Tensor | None, stride: Sequence[int], dilation: Sequence[int]
    ) -> None:
        super().__init__(recorder, weight, bias)
        self.stride, self.dilation = tuple(stride), tuple(dilation)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution."""
        zeros = [0] * len(self.stride)
        return torch.convolution(x, self.weight, bias, self.stride, zeros, self.dilation, False, zeros, 1)

    def adjoint(self, g: Tensor, shape: Sequence[int]) -> Tensor:
        """The transposed convolution; what no patch reached gets zero."""
        zeros = [0] * len(self.stride)
        reach = zip(g.shape[2:], self.stride, self.dilation, self.weight.shape[2:], strict=True)
        rest = [n - ((m - 1) * s + d * (k - 1) + 1) for n, (m, s, d, k) in zip(shape[2:], reach, strict=True)]
        return torch.convolution(g, self.weight, None, self.stride, zeros, self.dilation, True, rest, 1)

    def input_tokens(self, x: Tensor) -> Tensor:
        """Patches, flattened like the weight."""
        kernel = self.weight.shape[2:]
        for axis, (k, s, d) in enumerate(zip(kernel, self.stride, self.dilation, strict=True)):
            x = x.unfold(2 + axis, d * (k - 1) + 1, s)[..., ::d]
        dims = len(kernel)
        order = (0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims))
        return x.permute(order).flatten(1, dims).flatten(2)

    def output_tokens(self, g: Tensor) -> Tensor:
        """One row per patch."""
        return g.flatten(2).transpose(1, 2)


class _Product(torch.autograd.Function):
    """``W x (+ b)``; backward records (x, g)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, kernel: Kernel, with_bias: bool) -> Tensor:
        ctx.save_for_backward(x, anchor)
        ctx.kernel, ctx.with_bias = kernel, with_bias
        return kernel.product(x, kernel.bias if with_bias else None)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (g,), (x, anchor) = grads, ctx.saved_tensors
        if ctx.kernel.recorder.is_recording:
            ctx.kernel.record(x, g, ctx.with_bias)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        # Only where derivatives of derivatives are to come must this product be recordable as well.
        linear = _Adjoint.apply if torch.is_grad_enabled() else _adjoint
        return linear(g, anchor, ctx.kernel, x.shape), None, None, None


def _adjoint(g: Tensor, anchor: Tensor, kernel: Kernel, shape: Sequence[int]) -> Tensor:
    return kernel.adjoint(g, shape)


class _Adjoint(torch.autograd.Function):
    """``W^T g``; backward records (h, g), as the derivative of <h, W^T g> is an outer product too."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, anchor: Tensor, kernel: Kernel, shape: Sequence[int]) -> Tensor:
        ctx.save_for_backward(g, anchor)
        ctx.kernel = kernel
        return kernel.adjoint(g, shape)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (h,), (g, anchor) = grads, ctx.saved_tensors
        if ctx.kernel.recorder.is_recording:
            ctx.kernel.record(h, g, False)
        dg = _Product.apply(h, anchor, ctx.kernel, False) if ctx.needs_input_grad[0] else None
        return dg, None, None, None
