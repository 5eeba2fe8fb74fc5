"""Kernels of the layers that are recorded: what they multiply, as tokens."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralop_kit.optim.gram.factors import BlockPiece, IndexPiece
from neuralop_kit.optim.gram.kernels import Kernel, Use

if TYPE_CHECKING:
    from neuralop_kit.optim.gram.recorder import Recorder


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


class EmbeddingKernel(Kernel):
    """``torch.nn.functional.embedding``: the product with a vector that is one at the index and zero elsewhere.

    Args:
        recorder, weight: see :class:`Kernel`.
        padding_index: of a row that gets no gradient.
    """

    def __init__(self, recorder: "Recorder", weight: Tensor, padding_index: int | None) -> None:
        super().__init__(recorder, weight, None)
        self.padding_index = padding_index
        self.piece = functools.partial(IndexPiece, num_indices=len(weight))
        self.is_layer = False

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Rows of the table."""
        return F.embedding(x, self.weight)

    def adjoint(self, g: Tensor, shape: Sequence[int]) -> Tensor:
        """Indices have no derivative."""
        raise NotImplementedError

    def widths(self) -> tuple[int, int]:
        """An index goes in."""
        return 1, self.weight.shape[1]

    def input_tokens(self, x: Tensor) -> Tensor:
        """Indices."""
        return x.reshape(len(x), -1)

    def output_tokens(self, g: Tensor) -> Tensor:
        """Middle axes joined."""
        return g.reshape(len(g), -1, g.shape[-1])

    def record(self, x: Tensor, g: Tensor, with_bias: bool) -> None:
        """See :class:`Kernel`."""
        if self.padding_index is not None:
            g = g.masked_fill((x == self.padding_index).unsqueeze(-1), 0.0)
        super().record(x, g, with_bias)


class BlockKernel(Kernel):
    """``torch.bmm(x, W)`` with a weight of one matrix per mode, of degrees or wavenumbers.

    What stands for samples is the second axis of ``x (modes, samples, d_in)``; spectral layers have each sample there
    several times.
    """

    piece = BlockPiece
    is_layer = False

    def __init__(self, recorder: "Recorder", weight: Tensor) -> None:
        super().__init__(recorder, weight, None)
        self.weight_index = recorder.view_index(weight)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``x_k W_k``."""
        return torch.bmm(x, self.weight)

    def adjoint(self, g: Tensor, shape: Sequence[int]) -> Tensor:
        """``g_k W_k^T``."""
        return torch.bmm(g, self.weight.mT)

    def input_tokens(self, x: Tensor) -> Tensor:
        """``(samples, 1, modes, d)``; the faster axis of the weight is that of what comes out."""
        return x.transpose(0, 1).unsqueeze(1)

    def output_tokens(self, g: Tensor) -> Tensor:
        """See :meth:`input_tokens`."""
        return g.transpose(0, 1).unsqueeze(1)

    def record(self, x: Tensor, g: Tensor, with_bias: bool) -> None:
        """See :class:`Kernel`."""
        x, g = x.detach(), g.detach()
        size = (x.numel() + g.numel()) * g.element_size()
        if self.weight_index is not None and self.recorder.reserve(self.weight_index, size, joined=True):
            use = Use(self.weight_index, None, self.input_tokens(g), self.input_tokens(x), BlockPiece, is_layer=False)
            self.recorder.uses.append(use)
