"""SpectralConv: a global convolution, learned mode by mode."""

import functools
import math
import operator
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuralop_kit.layers.checks import check_field, with_an_item
from neuralop_kit.layers.constants import constant
from neuralop_kit.layers.fourier import AxisTransform, plan, to_modes, to_points
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError


class SpectralConv(nn.Module):
    """Global convolution on a periodic box: every kept Fourier mode is multiplied by its own matrix of channels.

        v(x) = sum_{k >= 0}  R_k u_k exp(2 pi i k.x / L)  +  complex conjugate,      |k_a| <= modes_a // 2 on each axis

    ``u_k`` are the Fourier coefficients of the trigonometric interpolant of ``u``, so that nothing depends on the
    resolution. ``k >= 0`` picks, in lexicographic order, one of each pair ``k, -k``: the operator is real and commutes
    with translations, no parameter repeats another, and there are ``(prod(2 (modes_a // 2) + 1) + 1) / 2`` complex
    numbers per pair of channels. 16 and 17 modes both keep the wavenumbers -8..8 (neuraloperator's 16 are -8..7).

    A mode that the grid of the input or of the output cannot carry is left out. The Nyquist mode of an even grid
    counts as a cosine, half of it on each sign. Functions whose modes are all kept are treated exactly at every
    resolution; between grids of different size, too.

    Args:
        in_channels, out_channels: channels of the field.
        modes: modes per axis, both signs counted; one positive number per space axis, one to three of them.
        domain: a periodic domain; needed only to sample on another grid of *cell centres*, whose first points differ.
        generator: source of the initial weights, independent normal numbers of variance ``1 / in_channels`` per matrix
            entry: a field made of kept modes comes out with the variance that it went in with.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *output_shape)``, any resolution, even or odd.
    Half precision is computed in float32, also under autocast.
    Cost: about ``8 m`` operations per point and channel, ``m = modes_1 // 2``, most of them on the first axis: the
    others see kept modes only. Each axis is transformed by a dense matrix or by FFT, whichever is cheaper. Where
    products in TF32 are allowed, all take the FFT and stay accurate; only the learned matrices are rounded.

    Raises:
        ArgumentError: there are no or more than three mode counts, or a count below one.
        DomainError: the domain is not periodic, or has another number of axes.
        ShapeError: the field has another rank or channel count, or the output shape another length.

    Good values: 12 to 32 modes per axis in two dimensions; the parameters grow like the product.
    Source: Li et al. (2021), arXiv 2010.08895, eq. 4-5.

    >>> layer = SpectralConv(3, 5, (16, 16))
    >>> u = torch.randn(2, 3, 64, 63)
    >>> layer(u).shape, layer(u, output_shape=(128, 80)).shape
    (torch.Size([2, 5, 64, 63]), torch.Size([2, 5, 128, 80]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        *,
        domain: Domain | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(modes, Sequence) or not 1 <= len(modes) <= 3 or min(modes) < 1:
            raise ArgumentError(f"expected one to three positive mode counts, got {modes}; write (16,) or (16, 16)")
        if min(in_channels, out_channels) < 1:
            raise ArgumentError(f"expected at least one channel in and out, got {in_channels} and {out_channels}")
        if domain is not None and not (domain.is_periodic and domain.num_dims == len(modes)):
            raise DomainError(
                f"expected a periodic domain with {len(modes)} axes, got {domain}; use BoundedSpectralConv for walls"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.modes = tuple(modes)
        self.domain = domain
        self.highest = tuple(count // 2 for count in modes)
        num_modes = (math.prod([2 * m + 1 for m in self.highest]) + 1) // 2
        weight = torch.randn(num_modes, in_channels, out_channels, 2, generator=generator) / (2 * in_channels) ** 0.5
        # The mean is real: its matrix is the first one plus its own conjugate.
        weight[0] /= 2**0.5
        self.weight = nn.Parameter(weight)

    def forward(self, u: Tensor, *, output_shape: Sequence[int] | None = None) -> Tensor:
        """Apply the operator to ``u``; sample the result on a grid of ``output_shape``, by default that of ``u``."""
        shape, output_shape = self._check(u, output_shape)
        if not len(u):
            return self(with_an_item(u), output_shape=output_shape)[:0]
        highest = tuple(min(m, n // 2, o // 2) for m, n, o in zip(self.highest, shape, output_shape, strict=True))
        with torch.autocast(u.device.type, enabled=False):
            x = u.to(torch.promote_types(u.dtype, torch.float32))
            modes = to_modes(x, self._plan(shape, highest, x))
            # On the plane k_1 = 0 both signs are there; of each pair the second one stays.
            centre = math.prod([2 * m + 1 for m in highest[1:]]) // 2
            mixed = _mix(modes[:, :, centre:], self._kept_weight(highest).to(x.dtype))
            mixed = nn.functional.pad(mixed, (0, 0, centre, 0))
            v = to_points(mixed, self._plan(output_shape, highest, x))
        return v.to(u.dtype)

    def _check(self, u: Tensor, output_shape: Sequence[int] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Both grid shapes as plain numbers, so that a compiler specialises to them."""
        num_dims = len(self.modes)
        check_field(u, self.in_channels, num_dims)
        shape = tuple(operator.index(n) for n in u.shape[2:])
        if 0 in shape:
            raise ShapeError(f"expected at least one point on every axis, got {tuple(u.shape)}; take a finer grid")
        if output_shape is None:
            return shape, shape
        if len(output_shape) != num_dims or min(output_shape) < 1:
            raise ShapeError(
                f"expected an output shape of {num_dims} positive sizes, got {tuple(output_shape)}; "
                "pass the space axes only, without batch and channel"
            )
        return shape, tuple(operator.index(n) for n in output_shape)

    def _plan(self, shape: tuple[int, ...], highest: tuple[int, ...], like: Tensor) -> list[AxisTransform]:
        """How each axis of a grid is transformed."""
        offsets = [0.0] * len(shape) if self.domain is None else [axis.placement.offset for axis in self.domain.axes]
        return plan(shape, highest, offsets, like)

    def _kept_weight(self, highest: tuple[int, ...]) -> Tensor:
        """Matrices of the modes that both grids carry."""
        if highest == self.highest:
            return self.weight
        return self.weight[_positions(self.highest, highest, torch.int64, self.weight.device)]

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}, parameters={self.weight.numel()}"


def _mix(modes: Tensor, weight: Tensor) -> Tensor:
    """Multiply each mode by its complex matrix: ``(batch, in, num_modes, 2) -> (batch, out, num_modes, 2)``.

    Real and imaginary parts of the modes are rows of the same product, those of the weights its columns: one real
    product per mode, straight from the stored weights, gives all four terms.
    """
    batch, in_channels, num_modes, _ = modes.shape
    rows = modes.permute(2, 3, 0, 1).reshape(num_modes, 2 * batch, in_channels)
    products = torch.bmm(rows, weight.flatten(2)).view(num_modes, 2, batch, -1, 2)
    of_real, of_imag = (part.unbind(-1) for part in products.unbind(1))
    mixed = torch.stack((of_real[0] - of_imag[1], of_real[1] + of_imag[0]), dim=-1)
    return mixed.permute(1, 2, 0, 3)


@constant
def _positions(highest: tuple[int, ...], kept: tuple[int, ...]) -> NDArray[np.int64]:
    """Where the modes ``|k_a| <= kept_a`` stand among the modes ``|k_a| <= highest_a`` of half a box."""
    axes = [np.abs(np.arange(-m, m + 1)) <= limit for m, limit in zip(highest, kept, strict=True)]
    inside = functools.reduce(np.multiply.outer, axes).ravel()
    return np.flatnonzero(inside[len(inside) // 2 :])
