"""SpectralConv: a global convolution, learned mode by mode."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import ArgumentError, DomainError, ShapeError


class SpectralConv(nn.Module):
    """Global convolution on a periodic box: every kept Fourier mode is multiplied by its own matrix.

        v(x) = sum_k  R_k u_k exp(2 pi i k.x / L),     R_{-k} = conj R_k,     |k_a| <= modes_a // 2 on every axis a

    with Fourier coefficients ``u_k`` of the trigonometric interpolant of ``u``, so that nothing depends on the
    resolution: 16 and 17 modes both keep the wavenumbers -8..8.

    Args:
        in_channels, out_channels: channels of the field.
        modes: modes per axis, both signs counted; one number per space axis, 1 to 3 of them.
        domain: a periodic domain, needed only when ``output_shape`` is used on a grid of cell centres.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *output_shape)``, any resolution. Modes that either
    grid cannot carry are dropped.
    """

    def __init__(
        self, in_channels: int, out_channels: int, modes: Sequence[int], *, domain: Domain | None = None
    ) -> None:
        super().__init__()
        if not 1 <= len(modes) <= 3 or min(modes) < 1:
            raise ArgumentError(f"expected one to three positive mode counts, got {tuple(modes)}; e.g. (16, 16)")
        if domain is not None and (domain.num_dims != len(modes) or not domain.is_periodic):
            raise DomainError(f"expected a periodic domain of {len(modes)} axes, got {domain}; pad or extend first")
        self.in_channels, self.out_channels, self.modes, self.domain = in_channels, out_channels, tuple(modes), domain
        highest = [count // 2 for count in modes]
        num_modes = (math.prod(2 * m + 1 for m in highest) + 1) // 2
        self.weight = nn.Parameter(torch.randn(num_modes, in_channels, out_channels, 2) * (2 * in_channels) ** -0.5)

    def forward(self, u: Tensor, *, output_shape: Sequence[int] | None = None) -> Tensor:
        """Apply the operator to ``u``; sample the result on the grid ``output_shape``, by default that of ``u``."""
        num_dims = len(self.modes)
        if u.ndim != 2 + num_dims or u.shape[1] != self.in_channels:
            raise ShapeError(
                f"expected a field of shape (batch, {self.in_channels}, *space) with {num_dims} space axes, "
                f"got {tuple(u.shape)}; a single channel still needs its axis: u[:, None]"
            )
        shape = tuple(u.shape[2:])
        output_shape = shape if output_shape is None else tuple(output_shape)
        highest = [min(m // 2, n // 2, o // 2) for m, n, o in zip(self.modes, shape, output_shape, strict=True)]
        offsets = [0.0] * num_dims if self.domain is None else [a.placement.offset for a in self.domain.axes]
        with torch.autocast(u.device.type, enabled=False):
            dtype = torch.promote_types(u.dtype, torch.float32)
            x = u.to(dtype).to(dtype.to_complex())
            for n, m, offset in zip(shape, highest, offsets, strict=True):
                matrix = _analysis(n, m, offset).to(x)
                x = torch.tensordot(x, matrix, dims=([2], [1]))
            x = x[..., highest[-1] :].movedim(-1, 0).movedim((1, 2), (-2, -1))
            box = x.shape[:-2]
            x = x.flatten(0, -3)
            centre = math.prod(box[1:]) // 2
            x = torch.bmm(x[centre:], torch.view_as_complex(self._kept_weight(highest).to(dtype).contiguous()))
            # One mode of each pair k, -k is held: it counts twice in the real part, the mean once.
            x = torch.cat([x[:1], 2 * x[1:]])
            x = torch.nn.functional.pad(x, (0, 0, 0, 0, centre, 0)).unflatten(0, box)
            x = x.movedim((-2, -1), (0, 1)).movedim(2, -1)
            for n, m, offset in zip(output_shape[:-1], highest, offsets, strict=False):
                x = torch.tensordot(x, _synthesis(n, m, offset).to(x), dims=([2], [1]))
            last = _synthesis(output_shape[-1], highest[-1], offsets[-1])[:, highest[-1] :]
            x = torch.tensordot(x, last.to(x), dims=([2], [1]))
            return x.real.to(u.dtype).contiguous()

    def _kept_weight(self, highest: list[int]) -> Tensor:
        """Weights of the modes that the grid can carry."""
        full = [m // 2 for m in self.modes]
        if highest == full:
            return self.weight
        lines = [torch.arange(-m, m + 1).abs() <= k for m, k in zip(full, highest, strict=True)]
        last = lines.pop()[full[-1] :]
        keep = last
        for line in lines:
            keep = keep.unsqueeze(-1) & line
        centre = math.prod(2 * m + 1 for m in full[:-1]) // 2
        return self.weight[keep.flatten()[centre:].to(self.weight.device)]


def _analysis(num_points: int, highest: int, offset: float) -> Tensor:
    """Matrix from point values to the coefficients -highest..highest; the Nyquist mode is shared by both signs."""
    k = torch.arange(-highest, highest + 1, dtype=torch.float64)
    x = (torch.arange(num_points, dtype=torch.float64) + offset) / num_points
    matrix = torch.exp(-2j * math.pi * k[:, None] * x) / num_points
    matrix[k.abs() * 2 == num_points] /= 2
    return matrix


def _synthesis(num_points: int, highest: int, offset: float) -> Tensor:
    """Matrix from the coefficients -highest..highest to point values."""
    k = torch.arange(-highest, highest + 1, dtype=torch.float64)
    x = (torch.arange(num_points, dtype=torch.float64) + offset) / num_points
    return torch.exp(2j * math.pi * x[:, None] * k)
