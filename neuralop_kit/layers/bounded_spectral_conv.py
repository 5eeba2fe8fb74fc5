"""BoundedSpectralConv: a spectral convolution between walls, at the cost of one without."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralop_kit.layers.constants import constant
from neuralop_kit.layers.fourier import AxisTransform, Line, left_multiply
from neuralop_kit.layers.padding import Matrix, Padding, ReflectionPadding, key_of, padding_of
from neuralop_kit.layers.spectral_conv import SpectralConv
from neuralop_kit.solvers.domain import Domain
from neuralop_kit.solvers.errors import DomainError
from neuralop_kit.solvers.nodes import PLACEMENTS, NodePlacement


class BoundedSpectralConv(SpectralConv):
    """Continue a field beyond the walls, convolve it over the longer period, keep what lies inside.

        v(x) = sum_k  R_k u_k exp(2 pi i k.x / P),       u_k = mean over a period of (E u)(x) exp(-2 pi i k.x / P)

    with the continuation ``E`` of ``padding`` and the periods ``P = (1 + fraction) L`` on axes with walls. Everything
    is linear along each axis, so continuation and transform become *one* small matrix: no strip is ever stored, the
    cost is that of :class:`SpectralConv` on the box itself, and the period is exact for every number of points. Padding
    the array instead, as :class:`Extended` does, rounds the period to the spacing.

    Args:
        in_channels, out_channels, modes, generator: as in :class:`SpectralConv`; wavenumbers count waves per *period*.
        domain: a box; its periodic axes are treated as in :class:`SpectralConv`.
        padding: the continuation, by default mirror images on a quarter of the length.

    Shape: ``(batch, in_channels, *space) -> (batch, out_channels, *output_shape)``, any resolution. Error under
    refinement: O(h^2) with zeros and with mirror images, smaller with :class:`FourierContinuation`.

    Raises:
        DomainError: the domain is not a box with as many axes as there are mode counts.
        ArgumentError, ShapeError: as in :class:`SpectralConv`.

    >>> from neuralop_kit import Domain
    >>> layer = BoundedSpectralConv(2, 3, (8, 8), domain=Domain.box((1.0, 2.0)))
    >>> layer(torch.randn(4, 2, 33, 50)).shape
    torch.Size([4, 3, 33, 50])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        *,
        domain: Domain,
        padding: Padding = ReflectionPadding(0.25),  # noqa: B008 - a frozen value
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, modes, generator=generator)
        if type(domain) is not Domain or domain.num_dims != len(self.modes):
            raise DomainError(f"expected a box with {len(self.modes)} axes, got {domain}; give one mode count per axis")
        self.domain = self.box = domain
        self.padding = padding
        self._key = key_of(padding)

    def _plan(self, shape: tuple[int, ...], highest: tuple[int, ...], like: Tensor) -> list[AxisTransform]:
        transforms = super()._plan(shape, highest, like)
        for index, axis in enumerate(self.box.axes):
            if not axis.is_periodic:
                transforms[index] = ContinuedDFT(transforms[index].line, axis.nodes, self._key)
        return transforms

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"{super().extra_repr()}, {self.padding}"


class ContinuedDFT(AxisTransform):
    """Coefficients of the continued field from values inside, and values inside from coefficients."""

    def __init__(self, line: Line, nodes: str, key: str) -> None:
        super().__init__(line)
        self.arguments = (line.num_points, line.highest, line.one_sided, nodes, key)

    def to_modes(self, values: Tensor) -> Tensor:
        """``A E u``, in one product."""
        return left_multiply(_analysis_matrix(*self.arguments, values.dtype, values.device), values)

    def to_points(self, modes: Tensor) -> Tensor:
        """``R S c``, in one product."""
        return left_multiply(_synthesis_matrix(*self.arguments, modes.dtype, modes.device), modes)


@dataclass(frozen=True)
class ContinuedLine(Line):
    """The points of an axis with walls, as part of the longer period; lengths in spacings.

    Args:
        placement: of the points.
        padding: what the field is beyond the walls.
    """

    placement: NodePlacement
    padding: Padding

    @property
    def num_intervals(self) -> int:
        """Length of the axis."""
        return self.placement.num_intervals(self.num_points)

    @property
    def period(self) -> float:
        """Length of axis and strip."""
        return (1 + self.padding.fraction) * self.num_intervals

    def analysis(self) -> NDArray[np.complex128]:
        """Matrix from values to coefficients of the continued field: a sum over the box and one over the strip."""
        modes = self._waves_at(np.arange(self.num_points) + self.offset).T.conj() * self._box_weights()
        if self.padding.is_continuous:
            behind, weights = self._strip_rule()
            length = self.period - self.num_intervals
            continued = weights[:, None] * self.padding.on_strip(self.placement, self.num_points, behind, length)
            modes = modes + self._waves_at(self.num_intervals + behind).T.conj() @ continued
        return modes / self.period

    def synthesis(self) -> NDArray[np.complex128]:
        """Matrix from coefficients to values on the axis; the strip is never asked for."""
        return self._waves_at(np.arange(self.num_points) + self.offset)

    def _box_weights(self) -> Matrix:
        """Weights of the nodes; an end that is a node shares its place with an end of the strip."""
        weights = self.padding.inside(self.placement, self.num_points)
        if self.padding.is_continuous and self.placement.name == "vertex":
            weights[[0, -1]] = 0.5
        return weights

    def _strip_rule(self) -> tuple[Matrix, Matrix]:
        """Where the strip is sampled and with which weights: evenly, as finely as the axis, ends at both walls."""
        length = self.period - self.num_intervals
        count = max(round(length), 1)
        step = length / count
        if self.placement.name == "cell":
            return (np.arange(count) + 0.5) * step, np.full(count, step)
        weights = np.full(count + 1, step)
        # Half a step from the strip; where the wall is no node, the half spacing before it belongs to it as well.
        weights[[0, -1]] = step / 2 + (0.5 if self.placement.name == "interior" else 0.0)
        return np.arange(count + 1) * step, weights

    def _waves_at(self, position: Matrix) -> NDArray[np.complex128]:
        return np.exp(2j * np.pi / self.period * np.multiply.outer(position, self.wavenumbers))


@constant
def _analysis_matrix(*line: Any) -> Matrix:
    """Real form of :meth:`ContinuedLine.analysis`: rows are real and imaginary parts, side by side for each mode."""
    matrix = _line(*line).analysis()
    # A field of imaginary values i u has the coefficients i A u.
    parts = (matrix, 1j * matrix)[: _line(*line).parts]
    return np.concatenate([np.stack((part.real, part.imag), axis=1).reshape(-1, part.shape[1]) for part in parts], 1)


@constant
def _synthesis_matrix(*line: Any) -> Matrix:
    """Real form of :meth:`ContinuedLine.synthesis`, with the complex conjugate added on a one-sided line."""
    matrix = _line(*line).synthesis()
    real = np.stack((matrix.real, -matrix.imag), axis=2).reshape(len(matrix), -1)
    imaginary = np.stack((matrix.imag, matrix.real), axis=2).reshape(len(matrix), -1)
    return 2 * real if _line(*line).one_sided else np.concatenate((real, imaginary))


def _line(num_points: int, highest: int, one_sided: bool, nodes: str, key: str) -> ContinuedLine:
    placement = PLACEMENTS[nodes]
    return ContinuedLine(num_points, highest, placement.offset, one_sided, placement, padding_of(key))
