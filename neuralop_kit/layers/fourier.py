"""Truncated Fourier transforms, one axis at a time: only the kept modes are ever computed.

Every axis is a linear map between point values and kept coefficients. Two leaves do the same thing, :class:`DenseDFT`
with one matrix product on contiguous memory and :class:`FastDFT` with an FFT and a cut; :func:`plan` takes the cheaper
one on each axis. Complex numbers are pairs of reals throughout, so that each product is one real matrix product.

The layout makes the output of one axis the input of the next without a copy:

    point values    (batch, parts * num_points, rest)     parts = 1 real field, or 2 = its real, then its imaginary part
    coefficients    (batch, num_modes * 2, rest)          real and imaginary part of each mode side by side

where ``batch`` collects everything before the axis and ``rest`` the points of the axes after it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.layers.constants import constant

# Cost of an axis per real number on it; the unit is one kept mode of a dense product, that is two multiply-adds.
# Measured in float32 on Zen 5 cores with MKL, where the unit is 0.04 ns on one core and 0.02 ns on two. There a dense
# product reaches 80 % of the arithmetic peak, while an FFT mostly moves memory: packing complex numbers, transposing
# an axis to the front, cutting, and all of it back.
COST_PER_OCTAVE = 1.2  # of an FFT, which takes log2(num_points) of them
COST_PER_PASS = 5.0
PASSES_OF_FFT = 1.5
PASSES_OF_COMPLEX = 4.0
PASSES_OF_TRANSPOSE = 4.0


@dataclass(frozen=True)
class Line:
    """The points of one periodic axis and the wavenumbers kept on it.

    Args:
        num_points: points of the grid.
        highest: largest wavenumber kept, at most ``num_points // 2``.
        offset: position of the first point in spacings, 0 or 1/2.
        one_sided: whether the field is real, so that ``k >= 0`` says it all; otherwise ``-highest <= k <= highest``.
    """

    num_points: int
    highest: int
    offset: float
    one_sided: bool

    @property
    def parts(self) -> int:
        """Real numbers per point value."""
        return 1 if self.one_sided else 2

    @property
    def num_modes(self) -> int:
        """Complex coefficients kept."""
        return self.highest + 1 if self.one_sided else 2 * self.highest + 1

    @property
    def wavenumbers(self) -> NDArray[np.int64]:
        """Kept wavenumbers in rising order."""
        return np.arange(0 if self.one_sided else -self.highest, self.highest + 1)

    def analysis(self) -> NDArray[np.complex128]:
        """Matrix to the coefficients of the trigonometric interpolant, ``(num_modes, num_points)``.

        The Nyquist mode of an even grid is shared equally by both its signs.
        """
        share = np.where(2 * np.abs(self.wavenumbers) == self.num_points, 0.5, 1.0) / self.num_points
        return share[:, None] * self._waves().conj()

    def synthesis(self) -> NDArray[np.complex128]:
        """Matrix to the point values, ``(num_points, num_modes)``."""
        return self._waves().T

    def _waves(self) -> NDArray[np.complex128]:
        # Reducing k * (j + offset) modulo N in integers keeps the angle, hence the wave, accurate to the last digit.
        steps = np.multiply.outer(self.wavenumbers, 2 * np.arange(self.num_points) + round(2 * self.offset))
        return np.exp(1j * np.pi * (steps % (2 * self.num_points)) / self.num_points)


class AxisTransform(ABC):
    """The two directions along one axis; layouts as at the top of this file."""

    def __init__(self, line: Line) -> None:
        self.line = line

    @abstractmethod
    def to_modes(self, values: Tensor) -> Tensor:
        """Kept coefficients of point values."""

    @abstractmethod
    def to_points(self, modes: Tensor) -> Tensor:
        """Point values of the sum of the kept modes; on a one-sided line, of this sum plus its complex conjugate."""

    def constant(self, name: str, like: Tensor) -> Tensor:
        """A matrix or factor of this line, by the name of its rule, in the dtype and on the device of ``like``."""
        return _CONSTANTS[name](self.line, like.dtype, like.device)


class DenseDFT(AxisTransform):
    """One product with a small matrix: best when few modes are kept."""

    def to_modes(self, values: Tensor) -> Tensor:
        """``A u``."""
        return left_multiply(self.constant("analysis_matrix", values), values)

    def to_points(self, modes: Tensor) -> Tensor:
        """``S c``."""
        return left_multiply(self.constant("synthesis_matrix", modes), modes)


class FastDFT(AxisTransform):
    """FFT along the axis, then a cut: best when many modes are kept on a long axis."""

    def to_modes(self, values: Tensor) -> Tensor:
        """Transform, cut, share out the Nyquist mode."""
        n, highest = self.line.num_points, self.line.highest
        if self.line.one_sided:
            modes = torch.fft.rfft(values, dim=1, norm="forward")[:, : highest + 1]
        else:
            modes = torch.fft.fft(torch.complex(values[:, :n], values[:, n:]), dim=1, norm="forward")
            modes = torch.cat((modes[:, n - highest :], modes[:, : highest + 1]), dim=1)
        factor = torch.view_as_complex(self.constant("analysis_factor", values))
        return torch.view_as_real(modes * factor[:, None]).transpose(2, 3).flatten(1, 2)

    def to_points(self, modes: Tensor) -> Tensor:
        """Put every mode where the inverse transform looks for it, fill up with zeros, transform."""
        n, highest = self.line.num_points, self.line.highest
        factor = torch.view_as_complex(self.constant("synthesis_factor", modes))
        spectrum = torch.view_as_complex(modes.unflatten(1, (-1, 2)).transpose(2, 3).contiguous()) * factor[:, None]
        if self.line.one_sided:
            return torch.fft.irfft(spectrum, n=n, dim=1, norm="forward")
        negative, positive = spectrum[:, :highest], spectrum[:, highest:]
        if 2 * highest == n:
            # Both signs of the Nyquist mode are the same wave on this grid.
            positive = torch.cat((positive[:, :-1], positive[:, -1:] + negative[:, :1]), dim=1)
            negative = negative[:, 1:]
        gap = spectrum.new_zeros((spectrum.shape[0], n - positive.shape[1] - negative.shape[1], spectrum.shape[2]))
        values = torch.fft.ifft(torch.cat((positive, gap, negative), dim=1), dim=1, norm="forward")
        return torch.cat((values.real, values.imag), dim=1)


def axis_transform(line: Line, rest: int, like: Tensor) -> AxisTransform:
    """The cheaper of the two, but the FFT wherever matrix products are rounded."""
    return DenseDFT(line) if dense_is_cheaper(line, rest) and not products_are_rounded(like) else FastDFT(line)


def dense_is_cheaper(line: Line, rest: int) -> bool:
    """Compare operations and bytes; ``rest`` points lie between neighbours of the axis in memory.

    >>> dense_is_cheaper(Line(64, 8, 0.0, one_sided=True), rest=64)
    True
    >>> dense_is_cheaper(Line(1024, 256, 0.0, one_sided=True), rest=1)
    False
    """
    passes = PASSES_OF_FFT + PASSES_OF_COMPLEX * (not line.one_sided) + PASSES_OF_TRANSPOSE * (rest > 1)
    return line.num_modes <= COST_PER_OCTAVE * math.log2(line.num_points) + COST_PER_PASS * passes


def plan(shape: Sequence[int], highest: Sequence[int], offsets: Sequence[float], like: Tensor) -> list[AxisTransform]:
    """One transform per axis of a real field on a grid of ``shape``, whose modes ``|k_a| <= highest_a`` are kept."""
    transforms = []
    for axis, (num_points, limit, offset) in enumerate(zip(shape, highest, offsets, strict=True)):
        line = Line(num_points, limit, offset, one_sided=axis == 0)
        transforms.append(axis_transform(line, math.prod(shape[axis + 1 :]), like))
    return transforms


def to_modes(u: Tensor, transforms: Sequence[AxisTransform]) -> Tensor:
    """Kept coefficients of a real field ``(batch, channel, *space)``: ``(batch, channel, num_modes, 2)``.

    The first line must be one-sided and the others two-sided; modes are in lexicographic order of their wavenumbers.
    """
    batch, channels = u.shape[:2]
    x = u
    for index, transform in enumerate(transforms):
        rest = math.prod(u.shape[3 + index :])
        x = transform.to_modes(x.reshape(-1, transform.line.parts * transform.line.num_points, rest))
    return x.reshape(batch, channels, -1, 2)


def to_points(modes: Tensor, transforms: Sequence[AxisTransform]) -> Tensor:
    """Real field of the kept modes plus their complex conjugates; shapes as in :func:`to_modes`."""
    batch, channels = modes.shape[:2]
    shape = [transform.line.num_points for transform in transforms]
    x = modes
    for index, transform in reversed(list(enumerate(transforms))):
        x = transform.to_points(x.reshape(-1, 2 * transform.line.num_modes, math.prod(shape[index + 1 :])))
    return x.reshape(batch, channels, *shape)


def analysis_matrix(line: Line) -> NDArray[np.float64]:
    """Real form of :meth:`Line.analysis`, ``(2 num_modes, parts num_points)``."""
    blocks = _real_blocks(line.analysis())[:, : line.parts]
    return blocks.transpose(2, 0, 1, 3).reshape(2 * line.num_modes, line.parts * line.num_points)


def synthesis_matrix(line: Line) -> NDArray[np.float64]:
    """Real form of :meth:`Line.synthesis`, with the complex conjugate added on a one-sided line."""
    blocks = _real_blocks(line.synthesis())[: line.parts] * (2 if line.one_sided else 1)
    return blocks.transpose(0, 2, 3, 1).reshape(line.parts * line.num_points, 2 * line.num_modes)


def analysis_factor(line: Line) -> NDArray[np.float64]:
    """What the FFT's coefficients lack: the share of the Nyquist mode and the phase of the first point."""
    return _pairs(line.analysis()[:, 0] * line.num_points)


def synthesis_factor(line: Line) -> NDArray[np.float64]:
    """What the inverse FFT expects; a real one adds the complex conjugate itself, except at zero and at Nyquist."""
    alone = (line.wavenumbers == 0) | (2 * line.wavenumbers == line.num_points)
    return _pairs(line.synthesis()[0] * np.where(alone & line.one_sided, 2, 1))


_RULES = (analysis_matrix, synthesis_matrix, analysis_factor, synthesis_factor)
_CONSTANTS = {rule.__name__: constant(rule) for rule in _RULES}


def _real_blocks(matrix: NDArray[np.complex128]) -> NDArray[np.float64]:
    """A complex matrix as four real ones, indexed by output part, input part, row, column."""
    return np.array([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def _pairs(values: NDArray[np.complex128]) -> NDArray[np.float64]:
    return np.stack((values.real, values.imag), axis=-1)


def left_multiply(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix @ x`` for a batch of ``x``; a batch of vectors becomes one large product."""
    if x.shape[2] == 1:
        return (x[:, :, 0] @ matrix.T)[:, :, None]
    return torch.matmul(matrix, x)


# A compiled layer keeps the answer of its first call.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _products_are_rounded(device_type: str) -> bool:
    backend: Any = torch.backends.cuda if device_type == "cuda" else torch.backends.mkldnn
    return backend.matmul.fp32_precision in ("tf32", "bf16")


def products_are_rounded(like: Tensor) -> bool:
    """Whether the user lets matrix products of such tensors run in TF32 or bfloat16, as no transform here may."""
    return like.dtype == torch.float32 and _products_are_rounded(like.device.type)
