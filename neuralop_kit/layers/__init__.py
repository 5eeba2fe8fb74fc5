"""Building blocks on fields ``(batch, channel, *space)``, each an ordinary ``nn.Module``.

SpectralConv          global convolution, learned per Fourier mode; any resolution in, any resolution out
MultigridOperator     global linear operator as one learned multigrid cycle; exact walls, any resolution
FunctionNorm          mean zero, variance one over the domain, by quadrature
CoordinateEmbedding   appends functions of position, without a jump where an axis is periodic
PointwiseLinear       one matrix at every point
Extended              applies an operator for periodic functions on a box, through one of the next three
ZeroPadding           zero behind the walls: a convolution over the box alone
ReflectionPadding     blended mirror images: continuous
FourierContinuation   blended polynomials fitted at the walls: smooth
"""

from neuralop_kit.layers.coordinate_embedding import CoordinateEmbedding
from neuralop_kit.layers.fourier_continuation import FourierContinuation
from neuralop_kit.layers.function_norm import FunctionNorm
from neuralop_kit.layers.multigrid import MultigridOperator
from neuralop_kit.layers.padding import Extended, Padding, ReflectionPadding, ZeroPadding
from neuralop_kit.layers.pointwise import PointwiseLinear
from neuralop_kit.layers.spectral_conv import SpectralConv

__all__ = [
    "SpectralConv",
    "MultigridOperator",
    "FunctionNorm",
    "CoordinateEmbedding",
    "PointwiseLinear",
    "Extended",
    "Padding",
    "ZeroPadding",
    "ReflectionPadding",
    "FourierContinuation",
]
