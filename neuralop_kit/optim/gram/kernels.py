"""Products of a weight with a batch, recorded: what goes in, and what the residual makes of what comes out.

A layer ``y = W x + b`` inside a residual meets its weight in the forward pass and again in every derivative that the
residual takes with respect to its points. Each time it is one product, of an input with ``W`` or of a cotangent with
``W^T``; per sample, the derivative of the residual with respect to ``W`` is the sum over all of them of the outer
products ``cotangent (x) input``. :class:`Recorder` writes those factors down in one backward pass.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuralop_kit.optim.gram.factors import FactorPiece, OuterPiece
from neuralop_kit.optim.gram.pieces import row_parts

if TYPE_CHECKING:
    from neuralop_kit.optim.gram.recorder import Recorder


# Builds a piece from its first column, its first row, inputs and cotangents.
PieceType = Callable[[int, int, Tensor, Tensor], FactorPiece]


@dataclass(frozen=True)
class Use:
    """One product: inputs ``(batch, tokens, ...)`` and cotangents ``(batch, tokens, ...)``.

    Args:
        weight_index, bias_index: the parameters in it.
        inputs, cotangents: the factors.
        piece: what they make of J.
        is_layer: whether the first axis must be that of a batch; of other products it is a guess, or holds each sample
            several times.
    """

    weight_index: int
    bias_index: int | None
    inputs: Tensor
    cotangents: Tensor
    piece: PieceType = OuterPiece
    is_layer: bool = True

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.cotangents.shape[0]

    @property
    def factors(self) -> tuple[Tensor, ...]:
        """What is proportional to the cotangents of the rows, taken together."""
        return (self.inputs, self.cotangents) if self.inputs.is_floating_point() else (self.cotangents,)

    def folded(self, period: int) -> "Use":
        """With one sample for all of those that are so many apart, and their tokens."""
        repeats = self.size // period
        inputs, cotangents = (
            factor.unflatten(0, (repeats, period)).transpose(0, 1).flatten(1, 2)
            for factor in (self.inputs, self.cotangents)
        )
        return replace(self, inputs=inputs, cotangents=cotangents)


@dataclass(frozen=True)
class Gradient:
    """Gradients per sample of one parameter, ``(batch, ...)``.

    Args:
        index: which parameter.
        values: the gradients.
        is_layer: see :class:`Use`.
    """

    index: int
    values: Tensor
    is_layer: bool = True

    @property
    def size(self) -> int:
        """See :class:`Use`."""
        return self.values.shape[0]

    @property
    def factors(self) -> tuple[Tensor, ...]:
        """See :class:`Use`."""
        return (self.values,)


class Kernel(ABC):
    """A linear map given by a weight, which is cut off from autograd: its derivatives are recorded instead.

    Args:
        recorder: where uses are written down.
        weight, bias: the parameters; None for no bias.
    """

    piece: PieceType = OuterPiece
    is_layer = True

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

    def widths(self) -> tuple[int, int]:
        """Numbers of a token that goes in, and of one that comes out."""
        d_out = self.weight.shape[0]
        return self.weight.numel() // d_out, d_out

    def record(self, x: Tensor, g: Tensor, with_bias: bool) -> None:
        """Write one product down: as factors, or as a gradient per sample where that is smaller; neither may fit."""
        x, g = x.detach(), g.detach()
        index, bias_index = self.weight_index, self.bias_index if with_bias else None
        if bias_index in self.recorder.left_out:
            # Its columns come from elsewhere, whole.
            bias_index = None
        d_in, d_out = self.widths()
        num_tokens = g.numel() // (g.shape[0] * d_out)
        row_numbers = num_tokens * (d_in + d_out)
        is_smaller = self.is_layer and num_tokens > 1 and d_in * d_out < row_numbers
        num_bytes = g.shape[0] * (d_in * d_out if is_smaller else row_numbers) * g.element_size()
        if index is not None and self.recorder.reserve(index, num_bytes, joined=not is_smaller):
            # Nothing that leads back to the recorder: in a cycle the factors of a step would outlive it.
            if not is_smaller:
                factors = self.input_tokens(x), self.output_tokens(g)
                self.recorder.uses.append(Use(index, bias_index, *factors, self.piece, self.is_layer))
                return
            self.recorder.uses.append(Gradient(index, self._gradients(x, g, row_numbers)))
        if bias_index is not None:
            self.recorder.uses.append(Gradient(bias_index, self.output_tokens(g).sum(dim=1)))

    def _gradients(self, x: Tensor, g: Tensor, row_numbers: int) -> Tensor:
        """Factors multiplied out, some samples at a time."""
        parts = row_parts(len(g), row_numbers * g.element_size())
        products = [self.output_tokens(g[part]).mT @ self.input_tokens(x[part]) for part in parts]
        return products[0] if len(products) == 1 else torch.cat(products)


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
